#include "plan/choose.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "plan/knapsack.h"

namespace nibble::plan {
namespace {

/// The sum of those that count; one that is no number is more than any that is.
double weighted(const std::array<double, 2>& kl, const std::array<double, 2>& weights) {
  constexpr double kMost = std::numeric_limits<double>::max() / 1e6;
  double sum = 0;
  for (size_t m = 0; m < 2; ++m)
    if (weights[m] > 0) sum += weights[m] * kl[m];
  return sum < kMost ? sum : kMost;
}

}  // namespace

std::array<double, 2> predicted_kl(std::span<const GroupCosts> costs, std::span<const int> chosen) {
  std::array<double, 2> out{};
  for (size_t g = 0; g < costs.size(); ++g)
    for (size_t m = 0; m < 2; ++m) out[m] += costs[g].options[static_cast<size_t>(chosen[g])].kl[m];
  return out;
}

int64_t chosen_bytes(std::span<const GroupCosts> costs, std::span<const int> chosen) {
  int64_t sum = 0;
  for (size_t g = 0; g < costs.size(); ++g) sum += costs[g].options[static_cast<size_t>(chosen[g])].bytes;
  return sum;
}

std::vector<int> choose_within(std::span<const GroupCosts> costs, int64_t budget,
                               const std::array<double, 2>& weights) {
  std::vector<std::vector<Option>> options;
  int64_t least = 0;
  for (const GroupCosts& group : costs) {
    auto& list = options.emplace_back();
    double worst = 0;
    int64_t smallest = std::numeric_limits<int64_t>::max();
    for (const StoredAs& option : group.options) {
      worst = std::max(worst, weighted(option.kl, weights));
      smallest = std::min(smallest, option.bytes);
    }
    for (const StoredAs& option : group.options)
      list.push_back({option.bytes, worst - weighted(option.kl, weights)});
    least += smallest;
  }
  return choose_options(options, std::clamp(budget, least, kLargestBudget));
}

double worst_ratio(const std::array<double, 2>& kl, const std::array<double, 2>& reference) {
  double worst = 0;
  for (size_t m = 0; m < 2; ++m)
    if (reference[m] > 0)
      worst = std::max(worst,
                       std::isfinite(kl[m]) ? kl[m] / reference[m] : std::numeric_limits<double>::infinity());
  return worst;
}

std::vector<int> choose_worst_ratio(std::span<const GroupCosts> costs, int64_t budget,
                                    const std::array<double, 2>& reference) {
  if (reference[0] <= 0 || reference[1] <= 0)
    return choose_within(costs, budget, {reference[0] > 0 ? 1.0 : 0.0, reference[1] > 0 ? 1.0 : 0.0});
  constexpr std::array<double, 7> kShares = {0.5, 0.3, 0.7, 0.15, 0.85, 0.05, 0.95};
  std::vector<int> best;
  double least = 0;
  for (const double share : kShares) {
    std::vector<int> chosen =
        choose_within(costs, budget, {share / reference[0], (1 - share) / reference[1]});
    const double ratio = worst_ratio(predicted_kl(costs, chosen), reference);
    if (!best.empty() && ratio >= least) continue;
    least = ratio;
    best = std::move(chosen);
  }
  return best;
}

double Objective::operator()(const std::array<double, 2>& kl) const {
  return weights ? weighted(kl, *weights) : worst_ratio(kl, reference);
}

Objective objective_for(std::span<const GroupCosts> costs,
                        const std::optional<std::array<double, 2>>& weights) {
  return {.weights = weights, .reference = predicted_kl(costs, choose_within(costs, 0, {1, 1}))};
}

std::vector<int> choose(std::span<const GroupCosts> costs, int64_t budget, const Objective& objective) {
  return objective.weights ? choose_within(costs, budget, *objective.weights)
                           : choose_worst_ratio(costs, budget, objective.reference);
}

}  // namespace nibble::plan
