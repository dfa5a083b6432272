#include "plan/knapsack.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace nibble::plan {
namespace {

constexpr int64_t kCells = 65536;         // resolution of the slack
constexpr int64_t kTableBytes = 1 << 27;  // of the table of choices
constexpr size_t kLargestGroup = 256;     // options: a choice is one byte of the table

/// An option above the cheapest one of its group.
struct Upgrade {
  int option = 0;
  int64_t bytes = 0;  // more than the cheapest, > 0
  double gain = 0;    // more than the cheapest, > 0
};

/// Upgrades of each group that cost and gain something and fit into the slack.
using Upgrades = std::vector<std::vector<Upgrade>>;

/// Chosen upgrade of each group: its number, or -1 for the cheapest option.
using Choice = std::vector<int>;

/// The option of the fewest bytes; of several the one that gains most, then the first.
int cheapest(const std::vector<Option>& options) {
  const auto less = [](const Option& a, const Option& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.gain > b.gain;
  };
  return static_cast<int>(std::min_element(options.begin(), options.end(), less) - options.begin());
}

Upgrades list_upgrades(std::span<const std::vector<Option>> groups, const std::vector<int>& base,
                       int64_t slack) {
  Upgrades upgrades(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const Option& from = groups[g][base[g]];
    for (size_t o = 0; o < groups[g].size(); ++o) {
      const Upgrade upgrade{static_cast<int>(o), groups[g][o].bytes - from.bytes,
                            groups[g][o].gain - from.gain};
      if (upgrade.gain > 0 && upgrade.bytes <= slack) upgrades[g].push_back(upgrade);
    }
  }
  return upgrades;
}

int64_t bytes_of(const Upgrades& upgrades, const Choice& choice, size_t g) {
  return choice[g] < 0 ? 0 : upgrades[g][choice[g]].bytes;
}

double gain_of(const Upgrades& upgrades, const Choice& choice, size_t g) {
  return choice[g] < 0 ? 0 : upgrades[g][choice[g]].gain;
}

/// The bytes of the largest upgrade of every group: within this slack the choices do not compete.
int64_t most_bytes(const Upgrades& upgrades) {
  int64_t sum = 0;
  for (const auto& group : upgrades) {
    int64_t largest = 0;
    for (const auto& upgrade : group) largest = std::max(largest, upgrade.bytes);
    sum += largest;
  }
  return sum;
}

double total_gain(const Upgrades& upgrades, const Choice& choice) {
  double sum = 0;
  for (size_t g = 0; g < upgrades.size(); ++g) sum += gain_of(upgrades, choice, g);
  return sum;
}

/// Adds upgrades in order of gain per byte while they fit into what the choice leaves of the slack.
void fill(const Upgrades& upgrades, int64_t slack, Choice& choice) {
  struct Candidate {
    size_t group;
    int upgrade;
    double density;
  };
  std::vector<Candidate> candidates;
  for (size_t g = 0; g < upgrades.size(); ++g) {
    slack -= bytes_of(upgrades, choice, g);
    for (size_t u = 0; u < upgrades[g].size(); ++u)
      candidates.push_back(
          {g, static_cast<int>(u), upgrades[g][u].gain / static_cast<double>(upgrades[g][u].bytes)});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.density > b.density; });
  for (const auto& [g, u, density] : candidates) {
    const int64_t more = upgrades[g][u].bytes - bytes_of(upgrades, choice, g);
    if (upgrades[g][u].gain <= gain_of(upgrades, choice, g) || more > slack) continue;
    choice[g] = u;
    slack -= more;
  }
}

/// The slack and the upgrades' sizes in cells of the dynamic programme. A cell is the common divisor of all
/// sizes where the slack has few enough of those, else a fraction of the slack.
class Scale {
 public:
  Scale(const Upgrades& upgrades, int64_t slack, int64_t limit) : slack_(slack) {
    int64_t divisor = 0;
    for (const auto& group : upgrades)
      for (const auto& upgrade : group) divisor = std::gcd(divisor, upgrade.bytes);
    exact_ = divisor > 0 && slack / divisor <= limit;
    divisor_ = divisor;
    cells_ = exact_ ? slack / divisor : std::min(limit, slack);
  }
  int64_t cells() const { return cells_; }

  /// The size in cells, rounded up.
  int64_t operator()(int64_t bytes) const {
    if (exact_) return bytes / divisor_;
    __extension__ using Wide = __int128;
    return static_cast<int64_t>((static_cast<Wide>(bytes) * cells_ + slack_ - 1) / slack_);
  }

 private:
  int64_t slack_, divisor_ = 0, cells_ = 0;
  bool exact_ = false;
};

/// Dynamic programming from the last group to the first: best[c] is the largest gain of groups g, g+1, ...
/// within c cells, and the table holds the choice made there (0 for the cheapest option, u + 1 for upgrade
/// u).
Choice solve(const Upgrades& upgrades, int64_t slack) {
  const auto groups = static_cast<int64_t>(upgrades.size());
  const Scale scale(upgrades, slack,
                    std::clamp(kTableBytes / std::max<int64_t>(groups, 1), int64_t{1}, kCells));
  const int64_t width = scale.cells() + 1;
  std::vector<double> best(width, 0.0);
  std::vector<uint8_t> table(groups * width, 0);
  std::vector<int64_t> sizes;
  for (int64_t g = groups - 1; g >= 0; --g) {
    sizes.clear();
    for (const auto& upgrade : upgrades[g]) sizes.push_back(scale(upgrade.bytes));
    uint8_t* row = &table[g * width];
    for (int64_t c = width - 1; c >= 0 && !sizes.empty(); --c) {
      double largest = best[c];
      for (size_t u = 0; u < sizes.size(); ++u) {
        if (sizes[u] > c) continue;
        const double gain = upgrades[g][u].gain + best[c - sizes[u]];
        if (gain > largest || (gain == largest && row[c] == 0)) {
          largest = gain;
          row[c] = static_cast<uint8_t>(u + 1);
        }
      }
      best[c] = largest;
    }
  }
  Choice choice(groups, -1);
  int64_t left = scale.cells();
  for (int64_t g = 0; g < groups; ++g) {
    choice[g] = table[g * width + left] - 1;
    if (choice[g] >= 0) left -= scale(upgrades[g][choice[g]].bytes);
  }
  return choice;
}

}  // namespace

std::vector<int> choose_options(std::span<const std::vector<Option>> groups, int64_t budget) {
  std::vector<int> chosen;
  int64_t slack = budget;
  for (const auto& options : groups) {
    NIBBLE_CHECK(!options.empty() && options.size() <= kLargestGroup, "{} options", options.size());
    chosen.push_back(cheapest(options));
    slack -= options[chosen.back()].bytes;
  }
  NIBBLE_CHECK(slack >= 0, "the cheapest choice is {} bytes above the budget", -slack);

  const Upgrades upgrades = list_upgrades(groups, chosen, slack);
  Choice best(groups.size(), -1);
  fill(upgrades, slack, best);
  if (most_bytes(upgrades) > slack) {
    Choice solved = solve(upgrades, slack);
    fill(upgrades, slack, solved);
    if (total_gain(upgrades, solved) >= total_gain(upgrades, best)) best = std::move(solved);
  }
  for (size_t g = 0; g < groups.size(); ++g)
    if (best[g] >= 0) chosen[g] = upgrades[g][best[g]].option;
  return chosen;
}

}  // namespace nibble::plan
