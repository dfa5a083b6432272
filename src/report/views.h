// The records as text for people: what the commands print.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "records/comparison.h"
#include "records/evaluation.h"
#include "records/inventory.h"
#include "records/measurements.h"
#include "records/multiple_choice.h"
#include "records/plan.h"
#include "report/table.h"

namespace nibble::report {

/// One line for each linear in the order of the forward pass, then the totals of the model.
std::string inventory_text(const records::Inventory& inventory);

/// Sizes of a model by format, for one whose weights are not there. `published`: description and size of
/// selections that were published for it, in bytes of weights, scales not counted.
std::string sizes_text(const records::Inventory& inventory, int64_t ten_percent,
                       std::span<const std::pair<std::string, int64_t>> published);

/// What was measured on what, and the `top` worst linears (0 for all) by activation error, the larger of the
/// modalities; ties in the order of the forward pass.
std::string measurements_text(const records::Measurements& measurements, int top);

/// Policy, budget and bytes, then the kept linears with the reasons, highest score first. Neighbours under
/// one parent that were decided alike share a line: "model.layers.3.self_attn: q_proj, k_proj, v_proj". What
/// was predicted and, for a verified plan, every run beside it.
std::string plan_text(const records::Plan& plan);

/// The kept groups in the order of what a byte buys: the bytes that each takes beyond 4 bits, their running
/// total, its score (the KL that it costs alone in 4 bits, or what the policy ranks by) and that score per
/// MiB; then the first groups that are not kept. The measurements must be those of the plan.
std::string plan_explained(const records::Plan& plan, const records::Measurements& measurements);

/// The totals with their 95 % intervals, answers and plain texts apart; exact only where something was
/// generated, KL and agreement only with a reference model.
std::string evaluation_text(const records::Evaluation& evaluation);

/// Shares of right answers with their 95 % intervals: overall, by category where there are categories, and by
/// subject; the share of equal choices only with a reference model.
std::string multiple_choice_text(const records::MultipleChoice& result);

/// One model of a comparison.
struct ComparisonRow {
  std::string description;                             // "dynamic, 10 %"
  int64_t bytes = 0;                                   // of tensor data
  std::string rounding;                                // of its 4-bit codes; "" where that is not known
  std::array<std::optional<records::Interval>, 3> kl;  // by KlKind, against the 16-bit model
  std::optional<records::Spread> spread;               // of these, with other calibration samples
  std::optional<double> agreement;                     // share of the answers' positions
  std::optional<double> exact;                         // share of samples answered exactly
  std::string unchanged;  // outputs equal to the 16-bit model's: "93 of 96"; "" for none
  std::string result;     // a caption or an answer to look at; "" for none
  std::optional<records::TextTotals> texts;
  bool text_compared = false;             // texts has its agreement with the 16-bit model
  std::optional<records::Share> choices;  // multiple-choice questions answered right
};

/// The row of a model of `nibble compare`.
ComparisonRow comparison_row(const records::ComparedModel& model);

/// Description | Size | KL by its kind | agreement | exact answers, the totals of texts, the multiple choice,
/// and the result. Columns that no row has are left out; a missing value is "-".
Table comparison(std::span<const ComparisonRow> rows);

/// comparison() as plain text.
std::string comparison_table(std::span<const ComparisonRow> rows);

}  // namespace nibble::report
