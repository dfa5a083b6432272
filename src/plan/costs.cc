#include "plan/costs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "plan/choose.h"
#include "plan/errors.h"

namespace nibble::plan {
namespace {

using records::Measurements;
using records::Modality;

/// Below this a KL or an error is all rounding.
constexpr double kTiny = 1e-14;
/// The least share of a joint run's KL that is left to groups not run alone: KLs do not add more exactly.
constexpr double kLeastLeft = 0.01;
/// Of the logarithm of a predicted KL: its deviation.
constexpr double kSpread = 1.5;
/// The chance that what keeps a group was predicted of it alone and is another's.
constexpr double kMisplaced = 0.2;

struct Kind {
  records::Part part;
  records::Role role;
  friend auto operator<=>(const Kind&, const Kind&) = default;
};

Kind kind_of(const Measurements& m, const records::Group& group) {
  const auto& linear = m.inventory.linears[group.members[0]];
  return {linear.part, linear.role};
}

double depth_of(const Measurements& m, const records::Group& group) {
  return static_cast<double>(m.inventory.linears[group.members[0]].depth);
}

/// The squared relative activation error of a linear, a mean over the modalities of its rows; the weight's
/// own where no rows were seen.
double linear_error(const records::LinearErrors& errors, bool rounded) {
  const auto& activation = rounded ? errors.rounded->activation : errors.activation;
  double sum = 0;
  int seen = 0;
  for (const records::ActivationError& error : activation) {
    if (error.rows == 0) continue;
    const double relative = std::min(error.relative(), kLargestError);
    sum += relative * relative;
    ++seen;
  }
  if (seen > 0) return sum / seen;
  const double weight = std::min(rounded ? errors.rounded->weight : errors.weight, kLargestError);
  return weight * weight;
}

/// The sum over a group's linears.
double group_error(const Measurements& m, const records::Group& group, bool rounded) {
  double sum = 0;
  for (const size_t member : group.members) sum += linear_error(m.errors[member], rounded);
  return sum;
}

/// What a run's KL says of other inputs: its typical KL, scaled so that over all runs it sums up to the mean
/// KL.
class Expected {
 public:
  explicit Expected(const Measurements& m) : m_(m) {
    for (const Modality modality : records::kModalities) {
      double mean = 0, typical = 0;
      const auto add = [&](const std::vector<double>& kl) {
        mean += records::mean_kl(m, kl, modality);
        typical += records::typical_kl(m.inputs, kl, modality);
      };
      for (const auto& run : m.solo) add(run.kl);
      for (const auto& run : m.joint) add(run.kl);
      scale_[static_cast<size_t>(modality)] = typical > 0 ? mean / typical : 1;
    }
  }
  double operator()(const std::vector<double>& kl, Modality modality) const {
    return scale_[static_cast<size_t>(modality)] * records::typical_kl(m_.inputs, kl, modality);
  }

 private:
  const Measurements& m_;
  std::array<double, 2> scale_{};
};

/// A group's gain: KL per squared error, by modality of the inputs, on a logarithmic scale.
struct Gain {
  Kind kind;
  double depth = 0;
  std::array<double, 2> log{};
};

/// The gains of all groups that were run alone. Where a group was run with both roundings, the run recorded
/// last counts: that of the rounding that is not plain.
std::map<std::string, Gain> gains_of(const Measurements& m, const std::vector<records::Group>& groups,
                                     const Expected& expected) {
  std::map<std::string, const records::Group*> by_name;
  for (const auto& group : groups) by_name[group.name] = &group;
  std::map<std::string, Gain> out;
  for (const records::SoloRun& run : m.solo) {
    const records::Group& group = *by_name.at(run.group);
    Gain gain{kind_of(m, group), depth_of(m, group), {}};
    const double error = std::max(group_error(m, group, run.rounding != "plain"), kTiny);
    for (const Modality modality : records::kModalities)
      gain.log[static_cast<size_t>(modality)] = std::log(std::max(expected(run.kl, modality), kTiny) / error);
    out[run.group] = gain;
  }
  return out;
}

/// Interpolates in depth between the nearest gains on either side.
std::array<double, 2> interpolated(std::vector<const Gain*> gains, double depth) {
  std::stable_sort(gains.begin(), gains.end(), [](auto* a, auto* b) { return a->depth < b->depth; });
  const auto above = std::find_if(gains.begin(), gains.end(), [&](auto* g) { return g->depth >= depth; });
  if (above == gains.end()) return gains.back()->log;
  if (above == gains.begin() || (*above)->depth == depth) return (*above)->log;
  const Gain &a = **(above - 1), &b = **above;
  const double t = (depth - a.depth) / (b.depth - a.depth);
  return {std::lerp(a.log[0], b.log[0], t), std::lerp(a.log[1], b.log[1], t)};
}

/// The median over gains that are not of one kind and depth.
std::array<double, 2> median(const std::vector<const Gain*>& gains) {
  std::array<double, 2> out{};
  for (size_t m = 0; m < 2; ++m) {
    std::vector<double> values;
    for (const Gain* gain : gains) values.push_back(gain->log[m]);
    std::sort(values.begin(), values.end());
    out[m] = values[values.size() / 2];
  }
  return out;
}

/// The gain of a group from those of other groups; nothing where there are none.
std::optional<std::array<double, 2>> predicted_gain(const std::map<std::string, Gain>& gains,
                                                    const Kind& kind, double depth,
                                                    const std::string& without) {
  std::vector<const Gain*> same, part, all;
  for (const auto& [name, gain] : gains) {
    if (name == without) continue;
    all.push_back(&gain);
    if (gain.kind.part == kind.part) part.push_back(&gain);
    if (gain.kind == kind) same.push_back(&gain);
  }
  if (!same.empty()) return interpolated(same, depth);
  if (!part.empty()) return median(part);
  if (!all.empty()) return median(all);
  return std::nullopt;
}

/// Gains on a logarithmic scale, by group.
using LogGains = std::map<std::string, std::array<double, 2>>;

/// The gains of the groups that were not run alone, or of `without` as if it had not been: from those of
/// others, and scaled to what joint runs leave. Empty without any runs.
LogGains predicted_gains(const Measurements& m, const std::vector<records::Group>& groups,
                         const Expected& expected, const std::map<std::string, Gain>& gains,
                         const std::string& without = "") {
  LogGains out;
  std::map<std::string_view, const records::Group*> by_name;
  for (const records::Group& group : groups) {
    by_name[group.name] = &group;
    if (group.name != without && gains.contains(group.name)) continue;
    const auto gain = predicted_gain(gains, kind_of(m, group), depth_of(m, group), without);
    if (gain || !m.joint.empty()) out[group.name] = gain.value_or(std::array{0.0, 0.0});
  }
  for (const records::JointRun& run : m.joint) {
    const bool rounded = run.rounding != "plain";
    for (const Modality modality : records::kModalities) {
      const auto k = static_cast<size_t>(modality);
      const double total = expected(run.kl, modality);
      double known = 0, predicted = 0;
      for (const std::string& name : run.groups) {
        const double error = std::max(group_error(m, *by_name.at(name), rounded), kTiny);
        const auto it = out.find(name);
        if (it == out.end())
          known += error * std::exp(gains.at(name).log[k]);
        else
          predicted += error * std::exp(it->second[k]);
      }
      if (predicted <= 0) continue;
      const double shift = std::log(std::max({total - known, kLeastLeft * total, kTiny}) / predicted);
      for (const std::string& name : run.groups)
        if (const auto it = out.find(name); it != out.end()) it->second[k] += shift;
    }
  }
  return out;
}

const records::SoloRun* find_run(const Measurements& m, const std::string& group,
                                 const std::string& rounding) {
  const auto it = std::find_if(m.solo.begin(), m.solo.end(), [&](const records::SoloRun& run) {
    return run.group == group && run.rounding == rounding;
  });
  return it == m.solo.end() ? nullptr : &*it;
}

/// Ranks from 1, equal values sharing the mean of theirs.
std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t j = i + 1;
    while (j < order.size() && values[order[j]] == values[order[i]]) ++j;
    for (size_t k = i; k < j; ++k) out[order[k]] = static_cast<double>(i + j + 1) / 2;
    i = j;
  }
  return out;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// A cost in one number: the sum over the modalities of the inputs.
double total(const std::array<double, 2>& kl) {
  return kl[0] + kl[1];
}

}  // namespace

const StoredAs& better4(const GroupCosts& costs) {
  return *std::min_element(costs.options.begin(), costs.options.end() - 1,
                           [](const StoredAs& a, const StoredAs& b) { return total(a.kl) < total(b.kl); });
}

bool has_costs(const Measurements& measurements) {
  return !measurements.solo.empty() || !measurements.joint.empty();
}

std::vector<GroupCosts> predict_costs(const Measurements& m) {
  const auto groups = records::group_linears(m.inventory, m.fuse);
  const Expected expected(m);
  const auto gains = gains_of(m, groups, expected);
  const LogGains others = predicted_gains(m, groups, expected, gains);
  std::vector<std::string> roundings = {"plain"};
  if (!m.rounding.plain()) roundings.push_back(m.rounding.kind);
  std::vector<GroupCosts> out;
  for (const records::Group& group : groups) {
    GroupCosts& costs = out.emplace_back(GroupCosts{group, {}});
    std::optional<std::array<double, 2>> gain;
    if (const auto own = gains.find(group.name); own != gains.end())
      gain = own->second.log;
    else if (const auto other = others.find(group.name); other != others.end())
      gain = other->second;
    for (const std::string& rounding : roundings) {
      const bool rounded = rounding != "plain";
      StoredAs option{.rounding = rounding, .bytes = 0, .kl = {}, .measured = true};
      for (const size_t member : group.members)
        option.bytes += rounded ? m.errors[member].rounded->bytes4 : m.inventory.linears[member].bytes4;
      if (const records::SoloRun* run = find_run(m, group.name, rounding)) {
        for (const Modality modality : records::kModalities)
          option.kl[static_cast<size_t>(modality)] = expected(run->kl, modality);
      } else {
        option.measured = false;
        const double error = group_error(m, group, rounded);
        for (size_t k = 0; k < 2 && gain; ++k) option.kl[k] = error * std::exp((*gain)[k]);
      }
      costs.options.push_back(std::move(option));
    }
    costs.options.push_back({.rounding = "", .bytes = group.bytes16, .kl = {}, .measured = true});
  }
  // A modality that no input has costs nothing.
  for (const Modality modality : records::kModalities) {
    const bool seen = std::any_of(m.inputs.begin(), m.inputs.end(),
                                  [&](const auto& input) { return input.modality == modality; });
    if (seen) continue;
    for (GroupCosts& costs : out)
      for (StoredAs& option : costs.options) option.kl[static_cast<size_t>(modality)] = 0;
  }
  return out;
}

PredictionQuality prediction_quality(const Measurements& m) {
  const auto groups = records::group_linears(m.inventory, m.fuse);
  const Expected expected(m);
  const auto gains = gains_of(m, groups, expected);
  PredictionQuality out{.run = std::ssize(gains), .groups = std::ssize(groups)};
  std::vector<double> measured, predicted;
  for (const records::Group& group : groups) {
    const auto own = gains.find(group.name);
    if (own == gains.end()) continue;
    const LogGains others = predicted_gains(m, groups, expected, gains, group.name);
    const auto gain = others.find(group.name);
    if (gain == others.end()) continue;
    const bool rounded = find_run(m, group.name, m.rounding.kind) != nullptr && !m.rounding.plain();
    const double error = std::max(group_error(m, group, rounded), kTiny);
    double real = 0, guess = 0;
    for (const Modality modality : records::kModalities) {
      const auto k = static_cast<size_t>(modality);
      const bool seen = std::any_of(m.inputs.begin(), m.inputs.end(),
                                    [&](const auto& input) { return input.modality == modality; });
      if (!seen) continue;
      real += error * std::exp(own->second.log[k]);
      guess += error * std::exp(gain->second[k]);
    }
    measured.push_back(real);
    predicted.push_back(guess);
  }
  if (measured.size() < 3) return out;
  out.rank_correlation = correlation(ranks(measured), ranks(predicted));
  const double floor = 1e-4 * *std::max_element(measured.begin(), measured.end());
  for (size_t i = 0; i < measured.size(); ++i) {
    const double a = std::max(measured[i], floor), b = std::max(predicted[i], floor);
    if (a > 0 && b > 0) out.largest_miss = std::max(out.largest_miss, std::max(a / b, b / a));
  }
  return out;
}

std::vector<std::vector<std::string>> first_runs(const Measurements& m, size_t most) {
  const auto groups = records::group_linears(m.inventory, m.fuse);
  const auto sets_by = [&](auto key) {
    std::map<decltype(key(groups[0])), std::vector<std::string>> sets;
    for (const auto& group : groups) sets[key(group)].push_back(group.name);
    std::vector<std::vector<std::string>> out;
    for (auto& [_, names] : sets) out.push_back(std::move(names));
    return out;
  };
  if (groups.empty() || most == 0) return {};
  if (auto kinds = sets_by([&](const auto& group) { return kind_of(m, group); }); kinds.size() <= most)
    return kinds;
  if (auto parts = sets_by([&](const auto& group) { return kind_of(m, group).part; }); parts.size() <= most)
    return parts;
  return sets_by([](const auto&) { return 0; });
}

namespace {

/// A plan of costs, and what a byte buys where the budget ends.
struct Margin {
  std::vector<bool> kept;
  std::vector<double> bytes, density;  // of keeping each group; what a byte buys there
  double stop = 0;                     // the density of the first that no longer fits, the densest first

  Margin(const Measurements& m, const std::vector<GroupCosts>& costs, int64_t budget) {
    const std::vector<int> chosen = choose_within(costs, budget - m.inventory.other_bytes, {1, 1});
    auto room = static_cast<double>(budget - m.inventory.other_bytes);
    for (size_t g = 0; g < costs.size(); ++g) {
      const StoredAs& four = better4(costs[g]);
      kept.push_back(costs[g].options[static_cast<size_t>(chosen[g])].rounding.empty());
      bytes.push_back(static_cast<double>(std::max<int64_t>(1, costs[g].group.bytes16 - four.bytes)));
      density.push_back(std::max(total(four.kl), kTiny) / bytes.back());
      room -= static_cast<double>(four.bytes);
    }
    std::vector<size_t> order(costs.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return density[a] > density[b]; });
    for (const size_t g : order) {
      stop = density[g];
      room -= bytes[g];
      if (room < 0) break;
    }
  }
};

/// The names of the first `most` groups of `order` by falling score.
std::vector<std::string> names_by(const std::vector<GroupCosts>& costs, std::vector<size_t> order,
                                  size_t most, const std::vector<double>& score) {
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] > score[b]; });
  order.resize(std::min(most, order.size()));
  std::vector<std::string> out;
  for (const size_t g : order) out.push_back(costs[g].group.name);
  return out;
}

/// E max(0, X - limit) for log X normal with mean log(median) and deviation kSpread.
double expected_excess(double median, double limit) {
  const auto below = [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; };
  const double d = std::log(median / limit) / kSpread;
  return median * std::exp(kSpread * kSpread / 2) * below(d + kSpread) - limit * below(d);
}

/// What the groups that were not run alone cost together at most: for each, what its joint run leaves.
std::map<std::string_view, double> left_of_joint(const Measurements& m,
                                                 const std::vector<GroupCosts>& costs) {
  const Expected expected(m);
  std::map<std::string_view, double> out;
  for (const records::JointRun& run : m.joint) {
    std::map<std::string_view, double> alone;
    for (const GroupCosts& group : costs)
      for (const StoredAs& option : group.options)
        if (option.rounding == run.rounding && option.measured) alone[group.group.name] = total(option.kl);
    double left = expected(run.kl, Modality::vision) + expected(run.kl, Modality::text);
    for (const std::string& name : run.groups)
      if (const auto it = alone.find(name); it != alone.end()) left -= it->second;
    for (const std::string& name : run.groups) out[name] = std::max(0.0, left);
  }
  return out;
}

}  // namespace

std::vector<std::string> uncertain_groups(const Measurements& m, int64_t budget, size_t most) {
  const std::vector<GroupCosts> costs = predict_costs(m);
  const Margin margin(m, costs, budget);
  const auto left = left_of_joint(m, costs);
  std::vector<size_t> order;
  std::vector<double> loss(costs.size());
  for (size_t g = 0; g < costs.size(); ++g) {
    if (better4(costs[g]).measured) continue;
    order.push_back(g);
    const double kl = std::max(total(better4(costs[g]).kl), kTiny), worth = margin.stop * margin.bytes[g];
    const double excess = expected_excess(kl, worth);
    const auto most_left = left.find(costs[g].group.name);
    if (margin.kept[g])
      loss[g] = std::max(excess - (kl * std::exp(kSpread * kSpread / 2) - worth), kMisplaced * worth);
    else if (most_left == left.end())
      loss[g] = excess;
    else
      loss[g] = std::min(excess, std::max(0.0, most_left->second - worth));
  }
  return names_by(costs, order, most, loss);
}

std::vector<std::string> costly_groups(const Measurements& m, int64_t budget, size_t most) {
  const std::vector<GroupCosts> costs = predict_costs(m);
  const Margin margin(m, costs, budget);
  std::vector<size_t> order;
  std::vector<double> kl(costs.size());
  for (size_t g = 0; g < costs.size(); ++g) {
    if (margin.kept[g] || costs[g].options[0].measured) continue;
    order.push_back(g);
    kl[g] = total(better4(costs[g]).kl);
  }
  return names_by(costs, order, most, kl);
}

std::vector<std::string> contested_groups(const Measurements& m, int64_t budget, size_t most) {
  const std::vector<GroupCosts> costs = predict_costs(m);
  const Margin margin(m, costs, budget);
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<double> nearness;
  for (const double density : margin.density) nearness.push_back(-std::abs(std::log(density / margin.stop)));
  return names_by(costs, order, most, nearness);
}

}  // namespace nibble::plan
