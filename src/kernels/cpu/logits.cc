#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops.h"

namespace nibble::kernels {

int64_t argmax(std::span<const float> logits) {
  NIBBLE_CHECK(!logits.empty());
  const float peak = max_of_row(logits.data(), static_cast<int64_t>(logits.size()));
  const auto found = std::find(logits.begin(), logits.end(), peak);
  // Only a NaN is not found again.
  return found == logits.end() ? 0 : found - logits.begin();
}

double log_probability(std::span<const float> logits, int64_t id) {
  const auto n = static_cast<int64_t>(logits.size());
  NIBBLE_CHECK(id >= 0 && id < n, "id {} of {}", id, n);
  const double peak = max_of_row(logits.data(), n);
  return (logits[id] - peak) - std::log(exp_sum_of_row(logits.data(), peak, n));
}

// With weights e = exp(p - p_peak): KL = E_p[p - q] - ln(sum of exp(p)) + ln(sum of exp(q)).
double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const auto n = static_cast<int64_t>(p.size());
  NIBBLE_CHECK(p.size() == q.size() && !p.empty(), "{} and {} logits", p.size(), q.size());
  const double p_peak = max_of_row(p.data(), n), q_peak = max_of_row(q.data(), n);
  const DivergenceSums sums = divergence_sums(p.data(), p_peak, q.data(), q_peak, n);
  const double log_p = p_peak + std::log(sums.p), log_q = q_peak + std::log(sums.q);
  return std::max(sums.weighted / sums.p - log_p + log_q, 0.0);
}

}  // namespace nibble::kernels
