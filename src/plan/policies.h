// The policies: ways to decide which groups of linears stay in 16 bits. make_plan (plan.h) runs them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "records/groups.h"
#include "records/measurements.h"
#include "records/plan.h"

namespace nibble::plan {

/// What a policy decides from.
struct Task {
  const records::Measurements& measurements;
  const std::vector<records::Group>& groups;
  std::string_view argument;  // of the policy: "7" of "random:7"
  int64_t budget;             // bytes of tensor data; only for policies that need one
  int64_t all4;               // bytes of tensor data with every linear in 4 bits
};

/// A policy as the user writes it; the line is shown by --help.
struct Policy {
  std::string_view name, help;
  bool needs_budget, needs_measurements;
  /// Fills keep, reason and score of the decisions, which are named and in the inventory's order. That of
  /// `dynamic` serves where there are no solo runs.
  void (*decide)(const Task&, std::vector<records::Decision>&);
};

/// dynamic, all, int8, none, weight-error, activation-error, random:SEED, vision, projector, projections,
/// list:FILE.
std::span<const Policy> policies();

/// The record of `policy` in policies(); throws Error listing what is known.
const Policy& find_policy(std::string_view policy);

/// "7" of "random:7", "" of "all".
std::string_view policy_argument(std::string_view policy);

}  // namespace nibble::plan
