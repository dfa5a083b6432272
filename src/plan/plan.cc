#include "plan/plan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/text.h"
#include "plan/choose.h"
#include "plan/errors.h"
#include "records/groups.h"
#include "plan/knapsack.h"
#include "plan/name_list.h"

namespace nibble::plan {
namespace {

using records::Decision;
using records::Part;

/// What a policy decides from.
struct Task {
  const records::Measurements& measurements;
  const std::vector<records::Group>& groups;
  std::string_view argument;  // of the policy: "7" of "random:7"
  int64_t budget;             // bytes of tensor data; only for policies that need one
  int64_t all4;               // bytes of tensor data with every linear in 4 bits
};

/// Fills keep, reason and score of the decisions, which are named and in the inventory's order.
using Decide = void (*)(const Task&, std::vector<Decision>&);

constexpr std::string_view kOverBudget = "over budget";

void decide_group(const records::Group& group, bool keep, std::string_view reason, double score,
                  std::vector<Decision>& decisions) {
  for (const size_t member : group.members) {
    decisions[member].keep = keep;
    decisions[member].reason = reason;
    decisions[member].score = score;
  }
}

void decide_all(const Task& task, std::vector<Decision>& decisions) {
  for (const auto& group : task.groups) decide_group(group, false, "policy all", 0, decisions);
}

void decide_int8(const Task& task, std::vector<Decision>& decisions) {
  for (const auto& group : task.groups) {
    const bool fits = std::all_of(group.members.begin(), group.members.end(), [&](size_t member) {
      return task.measurements.inventory.linears[member].fits8;
    });
    decide_group(group, !fits, fits ? "policy int8" : "the 8-bit module cannot take its input", 0, decisions);
  }
}

void decide_none(const Task& task, std::vector<Decision>& decisions) {
  for (const auto& group : task.groups) decide_group(group, true, "policy none", 0, decisions);
}

/// Keeps the groups that have a member in one of the parts.
void decide_parts(const Task& task, std::string_view policy, std::span<const Part> parts,
                  std::vector<Decision>& decisions) {
  for (const auto& group : task.groups) {
    const bool keep = std::any_of(group.members.begin(), group.members.end(), [&](size_t member) {
      const Part part = task.measurements.inventory.linears[member].part;
      return std::find(parts.begin(), parts.end(), part) != parts.end();
    });
    decide_group(group, keep, fmt::format("policy {}", policy), 0, decisions);
  }
}

void decide_vision(const Task& task, std::vector<Decision>& decisions) {
  constexpr std::array parts = {Part::vision, Part::projector};
  decide_parts(task, "vision", parts, decisions);
}

void decide_projector(const Task& task, std::vector<Decision>& decisions) {
  constexpr std::array parts = {Part::projector};
  decide_parts(task, "projector", parts, decisions);
}

/// The projector and every output projection of attention: what people keep by hand.
void decide_projections(const Task& task, std::vector<Decision>& decisions) {
  for (const auto& group : task.groups) {
    const auto& linear = task.measurements.inventory.linears[group.members[0]];
    const bool keep = linear.part == Part::projector || linear.role == records::Role::attention_out;
    decide_group(group, keep, "policy projections", 0, decisions);
  }
}

void decide_list(const Task& task, std::vector<Decision>& decisions) {
  const std::vector<int64_t> lines = match_list(task.argument, task.measurements.inventory);
  for (const auto& group : task.groups) {
    const auto listed = std::find_if(group.members.begin(), group.members.end(),
                                     [&lines](size_t member) { return lines[member] > 0; });
    if (listed == group.members.end()) {
      decide_group(group, false, "not listed", 0, decisions);
      continue;
    }
    for (const size_t member : group.members) {
      Decision& decision = decisions[member];
      decision.keep = true;
      decision.reason = lines[member] > 0 ? fmt::format("listed in {} line {}", task.argument, lines[member])
                                          : fmt::format("in one group with {}", decisions[*listed].name);
    }
  }
}

/// A group as a ranking policy sees it.
struct Ranked {
  double score = 0;
  std::string reason;  // "activation error 0.41 on vision"
};

/// Indices of the groups by falling score; equal scores in the inventory's order.
std::vector<size_t> order_by_score(const std::vector<Ranked>& ranked) {
  std::vector<size_t> order(ranked.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&ranked](size_t a, size_t b) { return ranked[a].score > ranked[b].score; });
  return order;
}

std::string ranked_reason(const Ranked& ranked, size_t rank, size_t groups) {
  return fmt::format("{}, rank {} of {} groups", ranked.reason, rank + 1, groups);
}

/// Keeps groups in this order while they fit, passing over those that do not.
void keep_in_order(const Task& task, const std::vector<Ranked>& ranked, const std::vector<size_t>& order,
                   std::vector<Decision>& decisions) {
  int64_t bytes = task.all4;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const records::Group& group = task.groups[order[rank]];
    const bool keep = group.extra_bytes() <= task.budget - bytes;
    if (keep) bytes += group.extra_bytes();
    const Ranked& seen = ranked[order[rank]];
    decide_group(group, keep, keep ? ranked_reason(seen, rank, order.size()) : std::string(kOverBudget),
                 seen.score, decisions);
  }
}

std::string error_text(const SeenError& seen) {
  if (seen.where.empty()) return "no calibration rows";
  if (seen.where == "weight") return fmt::format("weight error {:.3g}", seen.error);
  return fmt::format("activation error {:.3g} on {}", seen.error, seen.where);
}

/// The largest error among a group's members.
SeenError largest_error(const Task& task, const records::Group& group,
                        SeenError (*error)(const records::LinearErrors&)) {
  SeenError largest;
  bool first = true;
  for (const size_t member : group.members) {
    SeenError seen = error(task.measurements.errors[member]);
    if (first || seen.error > largest.error) largest = std::move(seen);
    first = false;
  }
  return largest;
}

void rank_by(const Task& task, SeenError (*error)(const records::LinearErrors&),
             std::vector<Decision>& decisions) {
  std::vector<Ranked> ranked;
  for (const auto& group : task.groups) {
    const SeenError seen = largest_error(task, group, error);
    ranked.push_back({seen.error, error_text(seen)});
  }
  keep_in_order(task, ranked, order_by_score(ranked), decisions);
}

void decide_weight_error(const Task& task, std::vector<Decision>& decisions) {
  rank_by(task, weight_error, decisions);
}

void decide_activation_error(const Task& task, std::vector<Decision>& decisions) {
  rank_by(task, activation_error, decisions);
}

void decide_random(const Task& task, std::vector<Decision>& decisions) {
  uint64_t seed = 0;
  const char* end = task.argument.data() + task.argument.size();
  const auto [stop, status] = std::from_chars(task.argument.data(), end, seed);
  if (status != std::errc() || stop != end)
    fail("policy \"random:{}\": the seed is not a whole number from 0 to 18446744073709551615",
         printable(task.argument));
  std::vector<size_t> order(task.groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::mt19937_64 generator(seed);
  __extension__ using Wide = unsigned __int128;
  for (size_t left = order.size(); left > 1; --left)
    std::swap(order[left - 1], order[static_cast<size_t>((static_cast<Wide>(generator()) * left) >> 64)]);
  keep_in_order(task,
                std::vector<Ranked>(task.groups.size(), {0, fmt::format("random order of seed {}", seed)}),
                order, decisions);
}

/// dynamic without solo runs.
void decide_by_errors(const Task& task, std::vector<Decision>& decisions) {
  std::vector<Ranked> ranked;
  std::vector<std::vector<Option>> options;
  for (const auto& group : task.groups) {
    const auto largest = largest_error(task, group, expected_error);
    const double harm = largest.error * largest.error;
    ranked.push_back({harm, error_text(largest)});
    options.push_back({{group.bytes4, 0}, {group.bytes16, harm}});
  }
  constexpr int64_t most = int64_t{1} << 61;
  const std::vector<int> chosen =
      choose_options(options, std::min(task.budget - task.measurements.inventory.other_bytes, most));
  const std::vector<size_t> order = order_by_score(ranked);
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const size_t g = order[rank];
    const bool keep = chosen[g] == 1;
    std::string reason = std::string(kOverBudget);
    if (task.groups[g].extra_bytes() <= 0 && keep)
      reason = "16 bits take no more bytes than 4";
    else if (keep)
      reason = ranked_reason(ranked[g], rank, order.size());
    else if (ranked[g].score == 0)
      reason = "no error in 4 bits";
    decide_group(task.groups[g], keep, reason, ranked[g].score, decisions);
  }
}

constexpr std::array<PolicyHelp, 11> kHelp = {{
    {"dynamic", "keep what removes most of the predicted harm within the budget", true, true},
    {"all", "every linear in 4 bits", false, false},
    {"int8", "every linear in 8 bits (LLM.int8)", false, false},
    {"none", "every linear stays in 16 bits", false, false},
    {"weight-error", "keep the groups with the largest weight errors", true, true},
    {"activation-error", "keep the groups with the largest activation errors", true, true},
    {"random:SEED", "keep groups in an order drawn from SEED", true, false},
    {"vision", "keep the vision part and the projector", false, false},
    {"projector", "keep the projector", false, false},
    {"projections", "keep the projector and attention's output projections", false, false},
    {"list:FILE", "keep the linears or parents that FILE names, one a line", false, false},
}};

/// The function of each entry of kHelp, in the same order.
constexpr std::array<Decide, kHelp.size()> kDecide = {
    decide_by_errors, decide_all,    decide_int8,      decide_none,        decide_weight_error, decide_activation_error,
    decide_random,    decide_vision, decide_projector, decide_projections, decide_list};

/// "random" and "SEED" of "random:SEED".
std::pair<std::string_view, std::string_view> split(std::string_view policy) {
  const size_t colon = policy.find(':');
  if (colon == std::string_view::npos) return {policy, {}};
  return {policy.substr(0, colon), policy.substr(colon + 1)};
}

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

}  // namespace

std::span<const PolicyHelp> policies() {
  return kHelp;
}

const PolicyHelp& find_policy(std::string_view policy) {
  const auto [name, argument] = split(policy);
  for (const auto& help : kHelp) {
    const auto [known, placeholder] = split(help.name);
    if (name != known) continue;
    if (placeholder.empty() && policy != known) fail("policy \"{}\": {} takes no argument", policy, known);
    if (!placeholder.empty() && argument.empty()) fail("policy \"{}\": write {}", policy, help.name);
    return help;
  }
  std::vector<std::string_view> names;
  for (const auto& help : kHelp) names.push_back(help.name);
  fail("unknown policy \"{}\"; known are {}", printable(policy), fmt::join(names, ", "));
}

namespace {

/// What every plan of these measurements begins with: nothing decided.
records::Plan empty_plan(const records::Measurements& measurements, std::string_view policy,
                         std::string_view budget) {
  const records::Inventory& inventory = measurements.inventory;
  records::Plan plan;
  plan.family = inventory.family;
  plan.model = inventory.model;
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
  plan.data = measurements.data;
  plan.window = measurements.window;
  plan.compute = measurements.compute;
}

/// The costs with only those roundings that are wanted.
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

/// KL of all-4-bit with the better of its roundings.
std::array<double, 2> all4_kl(std::span<const GroupCosts> costs) {
  return predicted_kl(costs, choose_within(costs, 0, {1, 1}));
}

std::vector<int> choose(std::span<const GroupCosts> costs, int64_t budget, const Preferences& preferences) {
  if (preferences.weights) return choose_within(costs, budget, *preferences.weights);
  return choose_worst_ratio(costs, budget, all4_kl(costs));
}

}  // namespace

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

std::optional<std::array<double, 2>> kl_budget(std::string_view budget, const records::Measurements& measurements) {
  if (budget == "match") {
    if (!measurements.noise)
      fail("budget \"match\" needs solo runs in the measurements; measure with --effort auto or full");
    return measurements.noise;
  }
  if (!budget.starts_with("kl:")) return std::nullopt;
  const std::string_view number = budget.substr(3);
  double kl = 0;
  const auto [stop, status] = std::from_chars(number.data(), number.data() + number.size(), kl);
  if (status != std::errc() || stop != number.data() + number.size() || !(kl > 0) || !std::isfinite(kl))
    fail("budget \"{}\": write kl: and a positive number of nats, such as kl:0.001", printable(budget));
  return std::array<double, 2>{kl, kl};
}

records::Plan plan_of_choice(const records::Measurements& measurements, std::span<const GroupCosts> costs,
                             std::span<const int> chosen, const records::Plan& like) {
  records::Plan plan = empty_plan(measurements, like.policy, like.budget);
  plan.budget_bytes = like.budget_bytes;
  std::vector<double> kl;
  for (const GroupCosts& group : costs) {
    double least = std::numeric_limits<double>::infinity();
    for (const StoredAs& option : group.options)
      if (!option.rounding.empty()) least = std::min(least, option.kl[0] + option.kl[1]);
    kl.push_back(std::min(least, std::numeric_limits<double>::max()));
  }
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return kl[a] > kl[b]; });
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const size_t g = order[rank];
    const StoredAs& option = costs[g].options[static_cast<size_t>(chosen[g])];
    const bool keep = option.rounding.empty();
    const bool measured = costs[g].options[0].measured || costs[g].options[costs[g].options.size() - 2].measured;
    const std::string_view how = measured ? "alone in 4 bits" : "alone in 4 bits, predicted";
    for (const size_t member : costs[g].group.members) {
      Decision& decision = plan.decisions[member];
      decision.keep = keep;
      decision.score = kl[g];
      decision.rounding = keep ? "plain" : option.rounding;
      decision.reason = keep ? fmt::format("KL {:.3g} {}, rank {} of {} groups", kl[g], how, rank + 1, costs.size())
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
  const int64_t other = measurements.inventory.other_bytes;
  const auto all4 = static_cast<double>(measurements.inventory.bytes_all4() - other);
  const auto all16 = static_cast<double>(measurements.inventory.bytes_all16() - other);
  for (const double share : {0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.22, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0}) {
    const auto chosen = choose(costs, static_cast<int64_t>(all4 + share * (all16 - all4)), preferences);
    const records::CurvePoint point{other + chosen_bytes(costs, chosen), predicted_kl(costs, chosen)};
    if (out.empty() || point.bytes > out.back().bytes) out.push_back(point);
  }
  return out;
}

records::Plan make_plan(const records::Measurements& measurements, std::string_view policy,
                        std::string_view budget, const Preferences& preferences) {
  const PolicyHelp& help = find_policy(policy);
  const records::Inventory& inventory = measurements.inventory;
  records::Plan plan = empty_plan(measurements, policy, budget);
  const auto limit = kl_budget(budget, measurements);
  if (limit && (policy != "dynamic" || !has_costs(measurements)))
    fail("budget \"{}\" is for policy dynamic with solo runs; measure with --effort auto or full", budget);
  if (!budget.empty() && !limit) plan.budget_bytes = parse_budget(budget, inventory);
  if (help.needs_budget && budget.empty()) fail("policy \"{}\" needs a budget, such as 10%", policy);
  if (help.needs_measurements) check_measured(measurements, policy);

  if (policy == "dynamic" && has_costs(measurements)) {
    const auto costs = costs_for(measurements, preferences);
    const auto chosen = limit ? choose_for_kl(costs, *limit)
                              : choose(costs, plan.budget_bytes - inventory.other_bytes, preferences);
    plan = plan_of_choice(measurements, costs, chosen, plan);
    plan.curve = pareto_curve(measurements, preferences);
    if (limit) plan.budget_bytes = plan.bytes;
  } else {
    const bool better = preferences.rounding.empty() && policy == "dynamic";
    const std::string rounding = better ? measurements.rounding.kind : preferences.rounding;
    check_rounding(rounding, measurements, plan.format);
    const std::vector<records::Group> groups = groups_rounded(rounding, measurements);
    int64_t all4 = inventory.other_bytes;
    for (const records::Group& group : groups) all4 += group.bytes4;
    const Task task{measurements, groups, split(policy).second, plan.budget_bytes, all4};
    kDecide[static_cast<size_t>(&help - kHelp.data())](task, plan.decisions);
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
