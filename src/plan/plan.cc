#include "plan/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "plan/choose.h"
#include "plan/policies.h"
#include "records/groups.h"

namespace nibble::plan {
namespace {

using records::Decision;

int64_t bytes_of(const records::Measurements& measurements, const records::Plan& plan) {
  int64_t bytes = measurements.inventory.other_bytes;
  for (size_t i = 0; i < plan.decisions.size(); ++i) {
    const records::LinearRecord& linear = measurements.inventory.linears[i];
    const Decision& decision = plan.decisions[i];
    if (decision.keep)
      bytes += linear.bytes16;
    else if (plan.format == "int8")
      bytes += linear.bytes8();
    else
      bytes += decision.rounding == "plain" ? linear.bytes4 : measurements.errors[i].rounded->bytes4;
  }
  return bytes;
}

void check_measured(const records::Measurements& measurements, std::string_view policy) {
  const auto& linears = measurements.inventory.linears;
  if (measurements.errors.size() != linears.size())
    fail("policy \"{}\" needs measurements of every linear: there are {} for {} linears", policy,
         measurements.errors.size(), linears.size());
  for (size_t i = 0; i < linears.size(); ++i)
    NIBBLE_CHECK(measurements.errors[i].name == linears[i].name, "{} beside {}", measurements.errors[i].name,
                 linears[i].name);
}

/// What every plan of these measurements begins with: nothing decided.
records::Plan empty_plan(const records::Measurements& measurements, std::string_view policy,
                         std::string_view budget) {
  const records::Inventory& inventory = measurements.inventory;
  records::Plan plan;
  plan.family = inventory.family;
  plan.model = inventory.model;
  plan.weights = inventory.weights;
  plan.policy = policy;
  plan.budget = budget;
  if (policy == "int8") plan.format = "int8";
  plan.bytes_all4 = inventory.bytes_all4();
  plan.bytes_all16 = inventory.bytes_all16();
  plan.fuse = measurements.fuse;
  for (const auto& linear : inventory.linears) plan.decisions.push_back({.name = linear.name, .reason = {}});
  return plan;
}

/// Throws Error unless these measurements know the codes of a rounding ("" is plain).
void check_rounding(const std::string& rounding, const records::Measurements& measurements,
                    const std::string& format) {
  if (rounding.empty() || rounding == "plain") return;
  if (rounding != measurements.rounding.kind)
    fail("rounding \"{}\": the measurements were made with \"{}\"; measure with --rounding {}", rounding,
         measurements.rounding.kind, rounding);
  if (format == "int8") fail("rounding \"{}\" is for 4 bits; int8 has its own", rounding);
}

/// The groups, their sizes in 4 bits those of a rounding: a file names a number of each, whose digits differ.
std::vector<records::Group> groups_rounded(const std::string& rounding,
                                           const records::Measurements& measurements) {
  std::vector<records::Group> groups = records::group_linears(measurements.inventory, measurements.fuse);
  if (rounding.empty() || rounding == "plain") return groups;
  for (records::Group& group : groups) {
    group.bytes4 = 0;
    for (const size_t member : group.members) group.bytes4 += measurements.errors[member].rounded->bytes4;
  }
  return groups;
}

/// Where statistics come from, for plans whose codes need them.
void name_statistics(const records::Measurements& measurements, records::Plan& plan) {
  const bool needed = std::any_of(plan.decisions.begin(), plan.decisions.end(),
                                  [](const Decision& d) { return !d.keep && d.rounding != "plain"; });
  if (!needed) return;
  plan.rounding = measurements.rounding;
  plan.rounding.in_order = plan.rounding.kind == "feedback";
  plan.data = measurements.data;
  plan.window = measurements.window;
  plan.compute = measurements.compute;
}

}  // namespace

std::vector<GroupCosts> costs_for(const records::Measurements& measurements, const Preferences& preferences) {
  std::vector<GroupCosts> costs = predict_costs(measurements);
  if (preferences.rounding.empty()) return costs;
  check_rounding(preferences.rounding, measurements, "nf4");
  for (GroupCosts& group : costs)
    std::erase_if(group.options, [&](const StoredAs& option) {
      return !option.rounding.empty() && option.rounding != preferences.rounding;
    });
  return costs;
}

std::vector<int> choose_for_kl(std::span<const GroupCosts> costs, const std::array<double, 2>& limit) {
  int64_t low = 0, high = 0;
  for (const GroupCosts& group : costs) {
    int64_t smallest = group.group.bytes16, largest = group.group.bytes16;
    for (const StoredAs& option : group.options) {
      smallest = std::min(smallest, option.bytes);
      largest = std::max(largest, option.bytes);
    }
    low += smallest;
    high += largest;
  }
  constexpr int kSteps = 24;
  std::vector<int> best = choose_worst_ratio(costs, high, limit);
  for (int step = 0; step < kSteps && low <= high; ++step) {
    const int64_t middle = low + (high - low) / 2;
    std::vector<int> chosen = choose_worst_ratio(costs, middle, limit);
    if (worst_ratio(predicted_kl(costs, chosen), limit) <= 1) {
      high = std::min(middle, chosen_bytes(costs, chosen)) - 1;
      best = std::move(chosen);
    } else {
      low = middle + 1;
    }
  }
  return best;
}

records::Plan plan_of_choice(const records::Measurements& measurements, std::span<const GroupCosts> costs,
                             std::span<const int> chosen, const records::Plan& like) {
  records::Plan plan = empty_plan(measurements, like.policy, like.budget);
  plan.budget_bytes = like.budget_bytes;
  std::vector<const StoredAs*>
      four;  // of each group, what the plan stores, or would if it did not keep the group
  std::vector<double> kl;
  for (size_t g = 0; g < costs.size(); ++g) {
    const StoredAs& option = costs[g].options[static_cast<size_t>(chosen[g])];
    four.push_back(option.rounding.empty() ? &better4(costs[g]) : &option);
    kl.push_back(std::min(four[g]->kl[0] + four[g]->kl[1], std::numeric_limits<double>::max()));
  }
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return kl[a] > kl[b]; });
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const size_t g = order[rank];
    const StoredAs& option = costs[g].options[static_cast<size_t>(chosen[g])];
    const bool keep = option.rounding.empty();
    const std::string_view how = four[g]->measured ? "alone in 4 bits" : "alone in 4 bits, predicted";
    for (const size_t member : costs[g].group.members) {
      Decision& decision = plan.decisions[member];
      decision.keep = keep;
      decision.score = kl[g];
      decision.rounding = keep ? "plain" : option.rounding;
      decision.reason =
          keep ? fmt::format("KL {:.3g} {}, rank {} of {} groups", kl[g], how, rank + 1, costs.size())
               : fmt::format("KL {:.3g} {}", kl[g], how);
    }
  }
  plan.predicted = predicted_kl(costs, chosen);
  plan.bytes = bytes_of(measurements, plan);
  name_statistics(measurements, plan);
  return plan;
}

std::vector<int> choice_of_plan(std::span<const GroupCosts> costs, const records::Plan& plan) {
  std::vector<int> out;
  for (const GroupCosts& group : costs) {
    const Decision& decision = plan.decisions[group.group.members[0]];
    const std::string rounding = decision.keep ? "" : decision.rounding;
    const auto it = std::find_if(group.options.begin(), group.options.end(),
                                 [&](const StoredAs& option) { return option.rounding == rounding; });
    NIBBLE_CHECK(it != group.options.end(), "{}: {}", group.group.name, rounding);
    out.push_back(static_cast<int>(it - group.options.begin()));
  }
  return out;
}

std::vector<records::CurvePoint> pareto_curve(const records::Measurements& measurements,
                                              const Preferences& preferences) {
  std::vector<records::CurvePoint> out;
  if (!has_costs(measurements)) return out;
  const auto costs = costs_for(measurements, preferences);
  const Objective objective = objective_for(costs, preferences.weights);
  const int64_t other = measurements.inventory.other_bytes;
  const auto all4 = static_cast<double>(measurements.inventory.bytes_all4() - other);
  const auto all16 = static_cast<double>(measurements.inventory.bytes_all16() - other);
  for (const double share :
       {0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.22, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0}) {
    const auto chosen = choose(costs, static_cast<int64_t>(all4 + share * (all16 - all4)), objective);
    const records::CurvePoint point{other + chosen_bytes(costs, chosen), predicted_kl(costs, chosen)};
    if (out.empty() || point.bytes > out.back().bytes) out.push_back(point);
  }
  return out;
}

records::Plan make_plan(const records::Measurements& measurements, std::string_view policy,
                        std::string_view budget, const Preferences& preferences) {
  const Policy& help = find_policy(policy);
  const records::Inventory& inventory = measurements.inventory;
  records::Plan plan = empty_plan(measurements, policy, budget);
  const auto limit = kl_budget(budget, measurements);
  if (limit && (policy != "dynamic" || !has_costs(measurements)))
    fail("budget \"{}\" is for policy dynamic with solo runs; measure with --effort auto or full", budget);
  if (limit && preferences.weights)
    fail("budget \"{}\" holds for each modality on its own: --weights has no part in it", budget);
  // What the codes at hand need at least may be more than plain ones do, or less.
  const auto set_budget = [&](int64_t least) {
    if (!budget.empty() && !limit)
      plan.budget_bytes = parse_budget(budget, inventory, inventory.other_bytes + least);
  };
  if (help.needs_budget && budget.empty()) fail("policy \"{}\" needs a budget, such as 10%", policy);
  if (help.needs_measurements) check_measured(measurements, policy);

  if (policy == "dynamic" && has_costs(measurements)) {
    const auto costs = costs_for(measurements, preferences);
    set_budget(chosen_bytes(costs, choose_within(costs, 0, {1, 1})));
    const auto chosen = limit ? choose_for_kl(costs, *limit)
                              : choose(costs, plan.budget_bytes - inventory.other_bytes,
                                       objective_for(costs, preferences.weights));
    plan = plan_of_choice(measurements, costs, chosen, plan);
    plan.curve = pareto_curve(measurements, preferences);
    if (limit) plan.budget_bytes = plan.bytes;
  } else {
    const bool better = preferences.rounding.empty() && policy == "dynamic";
    const std::string rounding = better ? measurements.rounding.kind : preferences.rounding;
    check_rounding(rounding, measurements, plan.format);
    const std::vector<records::Group> groups = groups_rounded(rounding, measurements);
    int64_t all4 = inventory.other_bytes, least = 0;
    for (const records::Group& group : groups) {
      all4 += group.bytes4;
      least += std::min(group.bytes4, group.bytes16);
    }
    set_budget(least);
    help.decide({measurements, groups, policy_argument(policy), plan.budget_bytes, all4}, plan.decisions);
    for (Decision& decision : plan.decisions)
      if (!decision.keep && !rounding.empty()) decision.rounding = rounding;
    name_statistics(measurements, plan);
    plan.bytes = bytes_of(measurements, plan);
  }
  if (!budget.empty() && plan.bytes > plan.budget_bytes)
    fail("policy \"{}\" takes {} ({} bytes), above the budget \"{}\" of {} ({} bytes)", policy,
         bytes_text(plan.bytes), plan.bytes, budget, bytes_text(plan.budget_bytes), plan.budget_bytes);
  return plan;
}

}  // namespace nibble::plan
