#include "records/interval.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace nibble::records {
namespace {

constexpr double kLow = 0.025, kHigh = 0.975;

/// The value at `share` of the sorted values, linear between neighbours.
double quantile(std::span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

}  // namespace

size_t draw(std::mt19937_64& generator, size_t n) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<size_t>((static_cast<Wide>(generator()) * n) >> 64);
}

std::pair<double, double> interval_ends(std::span<double> resampled) {
  std::sort(resampled.begin(), resampled.end());
  return {quantile(resampled, kLow), quantile(resampled, kHigh)};
}

Interval weighted_mean(std::span<const double> values, std::span<const double> weights) {
  NIBBLE_CHECK(values.size() == weights.size());
  double sum = 0, share = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    sum += weights[i] * values[i];
    share += weights[i];
  }
  if (share <= 0) return {};
  Interval out{sum / share, sum / share, sum / share};
  if (!std::isfinite(out.mean)) return out;
  std::vector<double> resampled;
  std::mt19937_64 generator(kBootstrapSeed);
  for (int resample = 0; resample < kResamples; ++resample) {
    double drawn_sum = 0, drawn_share = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t k = draw(generator, values.size());
      drawn_sum += weights[k] * values[k];
      drawn_share += weights[k];
    }
    if (drawn_share > 0) resampled.push_back(drawn_sum / drawn_share);
  }
  std::tie(out.low, out.high) = interval_ends(resampled);
  return out;
}

}  // namespace nibble::records
