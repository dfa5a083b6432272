#include "plan/policies.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/text.h"
#include "plan/errors.h"
#include "plan/knapsack.h"
#include "plan/name_list.h"

namespace nibble::plan {
namespace {

using records::Decision;
using records::Part;

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
  const std::vector<int> chosen = choose_options(
      options, std::min(task.budget - task.measurements.inventory.other_bytes, kLargestBudget));
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

constexpr std::array<Policy, 11> kPolicies = {{
    {"dynamic", "keep what removes most of the predicted harm within the budget", true, true,
     decide_by_errors},
    {"all", "every linear in 4 bits", false, false, decide_all},
    {"int8", "every linear in 8 bits (LLM.int8)", false, false, decide_int8},
    {"none", "every linear stays in 16 bits", false, false, decide_none},
    {"weight-error", "keep the groups with the largest weight errors", true, true, decide_weight_error},
    {"activation-error", "keep the groups with the largest activation errors", true, true,
     decide_activation_error},
    {"random:SEED", "keep groups in an order drawn from SEED", true, false, decide_random},
    {"vision", "keep the vision part and the projector", false, false, decide_vision},
    {"projector", "keep the projector", false, false, decide_projector},
    {"projections", "keep the projector and attention's output projections", false, false,
     decide_projections},
    {"list:FILE", "keep the linears or parents that FILE names, one a line", false, false, decide_list},
}};

/// "random" and "SEED" of "random:SEED".
std::pair<std::string_view, std::string_view> split(std::string_view policy) {
  const size_t colon = policy.find(':');
  if (colon == std::string_view::npos) return {policy, {}};
  return {policy.substr(0, colon), policy.substr(colon + 1)};
}

}  // namespace

std::span<const Policy> policies() {
  return kPolicies;
}

const Policy& find_policy(std::string_view policy) {
  const auto [name, argument] = split(policy);
  for (const Policy& candidate : kPolicies) {
    const auto [known, placeholder] = split(candidate.name);
    if (name != known) continue;
    if (placeholder.empty() && policy != known) fail("policy \"{}\": {} takes no argument", policy, known);
    if (!placeholder.empty() && argument.empty()) fail("policy \"{}\": write {}", policy, candidate.name);
    return candidate;
  }
  std::vector<std::string_view> names;
  for (const Policy& candidate : kPolicies) names.push_back(candidate.name);
  fail("unknown policy \"{}\"; known are {}", printable(policy), fmt::join(names, ", "));
}

std::string_view policy_argument(std::string_view policy) {
  return split(policy).second;
}

}  // namespace nibble::plan
