// The multiple-choice knapsack: one option for each group, the largest gain within a budget of bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble::plan {

/// One way to store a group: its bytes (from any zero, also negative) and what it gains (finite).
struct Option {
  int64_t bytes = 0;
  double gain = 0;
};

/// The largest budget of choose_options.
inline constexpr int64_t kLargestBudget = int64_t{1} << 61;

/// The index of the option chosen for each group, such that their bytes add up to at most `budget` and their
/// gains to as much as possible. Each group has 1 to 256 options. A dynamic programme over sizes rounded up
/// to 1/65536 of the slack (the budget above the cheapest choice) gives a first choice, with a gain of at
/// least the best within slack * (1 - groups / 65536); a search over partial choices, cut off where the
/// fractional bound shows that they cannot beat it, then makes it the best. The search ends early, with the
/// best so far, above 2^20 partial choices at a time and above 2048 groups. An option that is smaller and
/// gains no less than another always wins over it. Ties go to earlier groups. Deterministic and thread-safe.
/// The caller promises (NIBBLE_CHECK) a budget that the cheapest choice keeps, and that the budget and all
/// sums of bytes fit in 62 bits.
std::vector<int> choose_options(std::span<const std::vector<Option>> groups, int64_t budget);

}  // namespace nibble::plan
