// Choice: which linears stay in 16 bits within a byte budget. Works on records alone.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plan/costs.h"
#include "plan/policies.h"
#include "records/measurements.h"
#include "records/plan.h"

namespace nibble::plan {

/// Bytes of tensor data that a budget allows for this model.
/// "10%": over all-4-bit. "1.81GiB" (also MiB, KiB, GB, MB, KB, B): that many bytes. "4.6bpw": those bits
/// times all parameters. Exact in decimal, rounded down to whole bytes; units in any case, spaces allowed
/// before them. `least`: bytes of the smallest plan, where that is not all-4-bit with plain codes; a share
/// allows them, however small it is. Throws Error for a text that is none of these, and for a size below
/// `least`, which it names.
int64_t parse_budget(std::string_view budget, const records::Inventory& inventory,
                     std::optional<int64_t> least = std::nullopt);

/// True for "kl:X" and "match", which only dynamic with solo runs can keep.
bool is_kl_budget(std::string_view budget);

/// Throws Error where make_plan could not read the budget, or it is below all-4-bit; before anything is
/// measured.
void check_budget(std::string_view budget, const records::Inventory& inventory);

/// What a plan should be like, besides policy and budget.
struct Preferences {
  /// Of the linears that are not kept: "plain", or the kind of the measurements' rounding; "": the better one
  /// for `dynamic`, plain for the other policies, which stand for what others do.
  std::string rounding = {};
  /// How much a nat of KL counts by modality of the inputs; nothing: dynamic makes the worst ratio to the KLs
  /// of all-4-bit as small as it can.
  std::optional<std::array<double, 2>> weights = {};
};

/// Makes the plan. Groups are kept or not as a whole; ties break by order in the inventory; the result is the
/// same for the same input. Policies without measurements use only measurements.inventory.
/// `measurements_digest` stays empty: whoever read the file fills it.
///
/// all: everything NF4. int8: everything LLM.int8. none: everything kept. vision: the vision part and the
/// projector kept. projector: the projector kept. projections: the projector and every output projection of
/// attention kept. list:FILE: the linears (or parents: a name and all below it) of FILE kept, one a line, #
/// comments; a name that matches nothing is an Error. These take a budget only as a limit to check (Error
/// when above it).
///
/// dynamic: with solo runs, the choice of a rounding or of 16 bits for every group that makes the predicted
/// KL least within the budget (predict_costs, choose_worst_ratio). Without solo runs the groups kept that
/// together remove most of the predicted harm (choose_options); the harm of a group is then the square of the
/// largest activation error of its members, over both modalities (of the weight error for a linear that
/// calibration never reached).
///
/// The ranking policies keep groups in order of their score (for a group: the largest of its members;
/// activation error: the larger of the modalities) while they fit, passing over a group that does not fit.
/// random:SEED ranks at random.
///
/// Besides what parse_budget reads, the budget of dynamic may be "kl:0.001", the smallest plan whose
/// predicted KL is at most that on inputs of either modality, or "match": the measurements' own noise instead
/// of a number.
///
/// Throws Error also where a budget or measurements are needed and missing.
records::Plan make_plan(const records::Measurements& measurements, std::string_view policy,
                        std::string_view budget, const Preferences& preferences = {});

/// The KL that a budget "kl:X" or "match" allows by modality of the inputs; nothing for budgets in bytes.
/// Throws Error for a text that is neither, and for "match" without noise in the measurements.
std::optional<std::array<double, 2>> kl_budget(std::string_view budget,
                                               const records::Measurements& measurements);

/// The smallest choice, by bytes, whose predicted KLs are at most `limit`; 16 bits throughout where none is.
std::vector<int> choose_for_kl(std::span<const GroupCosts> costs, const std::array<double, 2>& limit);

/// The costs (predict_costs) of only those options that the preferences allow. Throws Error where the
/// measurements do not know the rounding.
std::vector<GroupCosts> costs_for(const records::Measurements& measurements, const Preferences& preferences);

/// A choice of options (predict_costs) as a plan: decisions with reasons, bytes, predicted KL. Policy and
/// budget are copied from `like`.
records::Plan plan_of_choice(const records::Measurements& measurements, std::span<const GroupCosts> costs,
                             std::span<const int> chosen, const records::Plan& like);

/// The option of each group that a plan takes.
std::vector<int> choice_of_plan(std::span<const GroupCosts> costs, const records::Plan& plan);

/// Points of the curve from all-4-bit to 16 bit: the best predicted plan of rising budgets. Empty without
/// solo runs.
std::vector<records::CurvePoint> pareto_curve(const records::Measurements& measurements,
                                              const Preferences& preferences);

}  // namespace nibble::plan
