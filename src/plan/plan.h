// Choice: which linears stay in 16 bits within a byte budget. Works on records alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "records/measurements.h"
#include "records/plan.h"

namespace nibble::plan {

/// Bytes of tensor data that a budget allows for this model.
/// "10%": over all-4-bit. "1.81GiB" (also MiB, KiB, GB, MB, KB, B): that many bytes. "4.6bpw": those bits
/// times all parameters. Exact in decimal, rounded down to whole bytes; units in any case, spaces allowed
/// before them. Throws Error for a text that is none of these, and for a budget below all-4-bit (saying the
/// smallest that is possible).
int64_t parse_budget(std::string_view budget, const records::Inventory& inventory);

/// A policy as the user writes it; the line is shown by --help.
struct PolicyHelp {
  std::string_view name, help;
  bool needs_budget, needs_measurements;
};
/// dynamic, all, int8, none, weight-error, activation-error, random:SEED, vision, projector, list:FILE.
std::span<const PolicyHelp> policies();

/// The record of `policy` in policies(); throws Error listing what is known.
const PolicyHelp& find_policy(std::string_view policy);

/// Makes the plan. Groups are kept or not as a whole; ties break by order in the inventory; the result is the
/// same for the same input. Policies without measurements use only measurements.inventory.
/// `measurements_digest` stays empty: whoever read the file fills it.
///
/// all: everything NF4. int8: everything LLM.int8. none: everything kept. vision: the vision part and the projector kept. projector: the
/// projector kept. list:FILE: the linears (or parents: a name and all below it) of FILE kept, one a line, #
/// comments; a name that matches nothing is an Error. These take a budget only as a limit to check (Error
/// when above it).
///
/// dynamic: the groups kept that together remove most of the predicted harm within the budget
/// (choose_options); the harm of a group is the square of the largest activation error of its members, over
/// both modalities (of the weight error for a linear that calibration never reached).
///
/// The ranking policies keep groups in order of their score (for a group: the largest of its members;
/// activation error: the larger of the modalities) while they fit, passing over a group that does not fit.
/// random:SEED ranks at random.
///
/// Throws Error also where a budget or measurements are needed and missing.
records::Plan make_plan(const records::Measurements& measurements, std::string_view policy,
                        std::string_view budget);

}  // namespace nibble::plan
