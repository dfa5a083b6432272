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

/// A share of an upgrade in the fractional knapsack: parts of one group follow each other by falling density.
struct Part {
  int64_t bytes = 0;
  double gain = 0;
  size_t place = 0;  // of its group in the order of the search
};

/// The upper convex hull of a group's upgrades, as steps from one to the next.
std::vector<Part> hull_of(const std::vector<Upgrade>& upgrades, size_t place) {
  std::vector<Upgrade> sorted(upgrades);
  std::sort(sorted.begin(), sorted.end(), [](const Upgrade& a, const Upgrade& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.gain > b.gain;
  });
  std::vector<Upgrade> hull = {{-1, 0, 0}};
  for (const Upgrade& u : sorted) {
    if (u.gain <= hull.back().gain) continue;
    const auto below = [&] {
      const Upgrade &a = hull[hull.size() - 2], &b = hull.back();
      return (b.gain - a.gain) * static_cast<double>(u.bytes - b.bytes) <=
             (u.gain - b.gain) * static_cast<double>(b.bytes - a.bytes);
    };
    while (hull.size() >= 2 && below()) hull.pop_back();
    hull.push_back(u);
  }
  std::vector<Part> out;
  for (size_t i = 1; i < hull.size(); ++i)
    out.push_back({hull[i].bytes - hull[i - 1].bytes, hull[i].gain - hull[i - 1].gain, place});
  return out;
}

/// The best that the groups from some place on can gain within so many bytes, if upgrades could be cut.
class Bound {
 public:
  Bound(const Upgrades& upgrades, const std::vector<size_t>& order) : sums_(order.size() + 1) {
    std::vector<Part> parts;
    for (size_t place = 0; place < order.size(); ++place)
      for (const Part& part : hull_of(upgrades[order[place]], place)) parts.push_back(part);
    std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.gain * static_cast<double>(b.bytes) > b.gain * static_cast<double>(a.bytes);
    });
    for (size_t place = 0; place <= order.size(); ++place) {
      sums_[place].push_back({0, 0});
      for (const Part& part : parts)
        if (part.place >= place)
          sums_[place].push_back(
              {sums_[place].back().bytes + part.bytes, sums_[place].back().gain + part.gain});
    }
  }

  double operator()(size_t place, int64_t left) const {
    const std::vector<Sum>& sums = sums_[place];
    const auto above = std::upper_bound(sums.begin(), sums.end(), left,
                                        [](int64_t bytes, const Sum& sum) { return bytes < sum.bytes; });
    const Sum& whole = *(above - 1);
    if (above == sums.end()) return whole.gain;
    return whole.gain + (above->gain - whole.gain) * static_cast<double>(left - whole.bytes) /
                            static_cast<double>(above->bytes - whole.bytes);
  }

 private:
  struct Sum {
    int64_t bytes;
    double gain;
  };
  std::vector<std::vector<Sum>> sums_;
};

/// What the groups before some place add up to, and how: a chain of choices.
struct Partial {
  int64_t bytes = 0;
  double gain = 0;
  int upgrade = -1;   // of the last group
  size_t before = 0;  // index in the level before
};

/// The best choice, or `best` where none gains more or the search grows too large.
Choice search(const Upgrades& upgrades, int64_t slack, Choice best) {
  constexpr size_t kMostGroups = 2048, kMostPartials = size_t{1} << 20, kMostKept = size_t{1} << 24;
  std::vector<size_t> order;
  for (size_t g = 0; g < upgrades.size(); ++g)
    if (!upgrades[g].empty()) order.push_back(g);
  if (order.size() > kMostGroups) return best;
  // Groups that matter most first: bounds of the rest are then tight.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto most = [&](size_t g) {
      double gain = 0;
      for (const Upgrade& u : upgrades[g]) gain = std::max(gain, u.gain);
      return gain;
    };
    return most(a) > most(b);
  });
  const Bound bound(upgrades, order);
  // Sums of gains in another order differ by rounding: a choice counts as better only beyond it.
  const double target = total_gain(upgrades, best) * (1 + 1e-12);
  std::vector<std::vector<Partial>> levels = {{{}}};
  size_t kept = 0;
  for (size_t place = 0; place < order.size(); ++place) {
    const std::vector<Upgrade>& options = upgrades[order[place]];
    std::vector<Partial> next;
    for (size_t i = 0; i < levels.back().size(); ++i) {
      const Partial& from = levels.back()[i];
      for (int u = -1; u < static_cast<int>(options.size()); ++u) {
        Partial to{from.bytes, from.gain, u, i};
        if (u >= 0) {
          to.bytes += options[static_cast<size_t>(u)].bytes;
          to.gain += options[static_cast<size_t>(u)].gain;
        }
        if (to.bytes <= slack && to.gain + bound(place + 1, slack - to.bytes) > target) next.push_back(to);
      }
    }
    std::stable_sort(next.begin(), next.end(), [](const Partial& a, const Partial& b) {
      return a.bytes != b.bytes ? a.bytes < b.bytes : a.gain > b.gain;
    });
    // Of two partial choices the one with more bytes must gain more.
    double most = -1;
    std::erase_if(next, [&](const Partial& p) {
      const bool worse = p.gain <= most;
      most = std::max(most, p.gain);
      return worse;
    });
    kept += next.size();
    if (next.empty() || next.size() > kMostPartials || kept > kMostKept) return best;
    levels.push_back(std::move(next));
  }
  const auto top = std::max_element(levels.back().begin(), levels.back().end(),
                                    [](const Partial& a, const Partial& b) { return a.gain < b.gain; });
  Choice out(upgrades.size(), -1);
  size_t at = static_cast<size_t>(top - levels.back().begin());
  for (size_t place = order.size(); place-- > 0;) {
    const Partial& p = levels[place + 1][at];
    out[order[place]] = p.upgrade;
    at = p.before;
  }
  return out;
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
    best = search(upgrades, slack, std::move(best));
  }
  for (size_t g = 0; g < groups.size(); ++g)
    if (best[g] >= 0) chosen[g] = upgrades[g][best[g]].option;
  return chosen;
}

}  // namespace nibble::plan
