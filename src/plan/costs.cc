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

/// The squared relative activation error of a linear, a mean over the modalities of its rows; the weight's own
/// where no rows were seen.
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

/// A group's gain: KL per squared error, by modality of the inputs, on a logarithmic scale.
struct Gain {
  Kind kind;
  double depth = 0;
  std::array<double, 2> log{};
};

/// The gains of all groups that were run alone. Where a group was run with both roundings, the run recorded last
/// counts: that of the rounding that is not plain.
std::map<std::string, Gain> gains_of(const Measurements& m, const std::vector<records::Group>& groups) {
  std::map<std::string, const records::Group*> by_name;
  for (const auto& group : groups) by_name[group.name] = &group;
  std::map<std::string, Gain> out;
  for (const records::SoloRun& run : m.solo) {
    const records::Group& group = *by_name.at(run.group);
    Gain gain{kind_of(m, group), depth_of(m, group), {}};
    const double error = std::max(group_error(m, group, run.rounding != "plain"), kTiny);
    for (const Modality modality : records::kModalities)
      gain.log[static_cast<size_t>(modality)] =
          std::log(std::max(records::mean_kl(m, run.kl, modality), kTiny) / error);
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
std::optional<std::array<double, 2>> predicted_gain(const std::map<std::string, Gain>& gains, const Kind& kind,
                                                    double depth, const std::string& without) {
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

const records::SoloRun* find_run(const Measurements& m, const std::string& group, const std::string& rounding) {
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
  return !measurements.solo.empty();
}

std::vector<GroupCosts> predict_costs(const Measurements& m) {
  const auto groups = records::group_linears(m.inventory, m.fuse);
  const auto gains = gains_of(m, groups);
  std::vector<std::string> roundings = {"plain"};
  if (!m.rounding.plain()) roundings.push_back(m.rounding.kind);
  std::vector<GroupCosts> out;
  for (const records::Group& group : groups) {
    GroupCosts& costs = out.emplace_back(GroupCosts{group, {}});
    const auto own = gains.find(group.name);
    const auto gain = own != gains.end()
                          ? std::optional(own->second.log)
                          : predicted_gain(gains, kind_of(m, group), depth_of(m, group), group.name);
    for (const std::string& rounding : roundings) {
      const bool rounded = rounding != "plain";
      StoredAs option{.rounding = rounding, .bytes = 0, .kl = {}, .measured = true};
      for (const size_t member : group.members)
        option.bytes += rounded ? m.errors[member].rounded->bytes4 : m.inventory.linears[member].bytes4;
      if (const records::SoloRun* run = find_run(m, group.name, rounding)) {
        for (const Modality modality : records::kModalities)
          option.kl[static_cast<size_t>(modality)] = records::mean_kl(m, run->kl, modality);
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
  const auto gains = gains_of(m, groups);
  PredictionQuality out{.run = std::ssize(gains), .groups = std::ssize(groups)};
  std::vector<double> measured, predicted;
  for (const records::Group& group : groups) {
    const auto own = gains.find(group.name);
    if (own == gains.end()) continue;
    const auto gain = predicted_gain(gains, own->second.kind, own->second.depth, group.name);
    if (!gain) continue;
    const bool rounded = find_run(m, group.name, m.rounding.kind) != nullptr && !m.rounding.plain();
    const double error = std::max(group_error(m, group, rounded), kTiny);
    double real = 0, guess = 0;
    for (const Modality modality : records::kModalities) {
      const auto k = static_cast<size_t>(modality);
      const bool seen = std::any_of(m.inputs.begin(), m.inputs.end(),
                                    [&](const auto& input) { return input.modality == modality; });
      if (!seen) continue;
      real += error * std::exp(own->second.log[k]);
      guess += error * std::exp((*gain)[k]);
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

std::vector<std::string> anchor_groups(const Measurements& m, size_t most) {
  const auto groups = records::group_linears(m.inventory, m.fuse);
  std::map<Kind, std::vector<const records::Group*>> kinds;
  for (const auto& group : groups) kinds[kind_of(m, group)].push_back(&group);
  for (auto& [kind, members] : kinds)
    std::stable_sort(members.begin(), members.end(),
                     [&](auto* a, auto* b) { return depth_of(m, *a) < depth_of(m, *b); });
  // Of each kind the middle, then the first, then the last, as far as the number goes.
  std::vector<std::string> out;
  const auto take = [&](const std::vector<const records::Group*>& members, size_t at) {
    const std::string& name = members[at]->name;
    if (out.size() < most && std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  };
  for (const auto& [kind, members] : kinds) take(members, members.size() / 2);
  for (const auto& [kind, members] : kinds) take(members, 0);
  for (const auto& [kind, members] : kinds) take(members, members.size() - 1);
  return out;
}

std::vector<std::string> contested_groups(const Measurements& m, int64_t budget, size_t most,
                                          bool fresh) {
  const std::vector<GroupCosts> costs = predict_costs(m);
  const std::vector<int> chosen = choose_within(costs, budget - m.inventory.other_bytes, {1, 1});
  // What a byte buys in each group, and where the plan stops: between its best left out and its worst taken.
  std::vector<double> density(costs.size());
  double worst_kept = std::numeric_limits<double>::infinity(), best_left = 0;
  for (size_t g = 0; g < costs.size(); ++g) {
    const StoredAs& four = better4(costs[g]);
    const auto bytes = static_cast<double>(std::max<int64_t>(1, costs[g].group.bytes16 - four.bytes));
    density[g] = std::max(total(four.kl), kTiny) / bytes;
    if (costs[g].options[static_cast<size_t>(chosen[g])].rounding.empty())
      worst_kept = std::min(worst_kept, density[g]);
    else
      best_left = std::max(best_left, density[g]);
  }
  const double stop = std::isfinite(worst_kept) && best_left > 0 ? std::sqrt(worst_kept * best_left)
                                                                : std::max(best_left, kTiny);
  std::vector<size_t> order;
  for (size_t g = 0; g < costs.size(); ++g)
    if (!fresh || !better4(costs[g]).measured) order.push_back(g);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::abs(std::log(density[a] / stop)) < std::abs(std::log(density[b] / stop));
  });
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(most, order.size()); ++i) out.push_back(costs[order[i]].group.name);
  return out;
}

}  // namespace nibble::plan
