// The choice of an option for every group from what the options cost.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "plan/costs.h"

namespace nibble::plan {

/// The sum of the chosen options' KLs, by modality of the inputs.
std::array<double, 2> predicted_kl(std::span<const GroupCosts> costs, std::span<const int> chosen);
/// The sum of the chosen options' bytes.
int64_t chosen_bytes(std::span<const GroupCosts> costs, std::span<const int> chosen);

/// The index of the option chosen for each group: the least sum of weights * KL among the choices whose bytes
/// come to at most `budget` (of the linears alone), exactly (choose_options). Where nothing fits, the
/// smallest.
std::vector<int> choose_within(std::span<const GroupCosts> costs, int64_t budget,
                               const std::array<double, 2>& weights);

/// The same for the least worst ratio over the modalities of KL / reference. Weights between the modalities
/// are tried on a fixed grid; a modality whose reference is 0 takes no part.
std::vector<int> choose_worst_ratio(std::span<const GroupCosts> costs, int64_t budget,
                                    const std::array<double, 2>& reference);

/// KL over reference, the larger over the modalities; a reference of 0 is left out, a KL that is no number is
/// infinite.
double worst_ratio(const std::array<double, 2>& kl, const std::array<double, 2>& reference);

/// What plans are chosen and compared by: one number of a KL of each modality, the less the better.
struct Objective {
  std::optional<std::array<double, 2>> weights;  // the weighted sum, or
  std::array<double, 2> reference{};             // worst_ratio to these; a modality with 0 takes no part

  double operator()(const std::array<double, 2>& kl) const;
  /// False for a modality that changes nothing.
  bool counts(size_t modality) const { return (weights ? *weights : reference)[modality] > 0; }
};

/// By the weights that a user gave, or by the worst ratio to all-4-bit with the better codes of each group.
Objective objective_for(std::span<const GroupCosts> costs,
                        const std::optional<std::array<double, 2>>& weights);

/// choose_within the weights, or choose_worst_ratio.
std::vector<int> choose(std::span<const GroupCosts> costs, int64_t budget, const Objective& objective);

}  // namespace nibble::plan
