// A mean with its bootstrap interval.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace nibble::records {

/// A mean with its 95 % bootstrap interval over samples.
struct Interval {
  double mean = 0, low = 0, high = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// The percentile bootstrap that all intervals of nibble come from: 2000 resamples of a fixed seed, the same
/// draws for the same number of samples on every platform.
inline constexpr int kResamples = 2000;
inline constexpr uint64_t kBootstrapSeed = 20240607;
/// A number in [0, n).
size_t draw(std::mt19937_64& generator, size_t n);
/// The lower and upper end of an interval: the values at 2.5 % and 97.5 % of these, which are sorted in
/// place.
std::pair<double, double> interval_ends(std::span<double> resampled);

/// sum of weight * value / sum of weight over samples, with its interval; zeros where the weights sum to 0.
Interval weighted_mean(std::span<const double> values, std::span<const double> weights);

}  // namespace nibble::records
