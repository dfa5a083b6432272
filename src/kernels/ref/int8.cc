#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/ref.h"

namespace nibble::kernels::ref {
namespace {

float rounded_to_half(float value) {
  return f16_to_float(float_to_f16(value));
}

/// True for each column of x that has an outlier.
std::vector<bool> outlier_columns(ConstMatrix x, float threshold) {
  std::vector<bool> outlier(static_cast<size_t>(x.cols), false);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < x.cols; ++i) {
      if (std::abs(rounded_to_half(x.row(r)[i])) >= threshold) outlier[static_cast<size_t>(i)] = true;
    }
  }
  return outlier;
}

/// The largest magnitude of n values, outliers left out; NaN with a NaN among them.
float absmax(const float* x, int64_t n, float threshold) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(rounded_to_half(x[i]));
    if (std::isnan(magnitude)) return magnitude;
    if (!(magnitude >= threshold) && magnitude > largest) largest = magnitude;
  }
  return largest;
}

}  // namespace

void linear_int8(ConstMatrix x, const quant::Packed8& weight, std::span<const float> bias, float threshold,
                 MutableMatrix y) {
  // Nothing reaches a NaN, not even an infinity.
  const float limit = threshold > 0 ? rounded_to_half(threshold) : std::numeric_limits<float>::quiet_NaN();
  const std::vector<bool> outlier = outlier_columns(x, limit);
  const bool mixed = std::find(outlier.begin(), outlier.end(), true) != outlier.end();
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.row(r);
    const float s = absmax(row, x.cols, limit);
    for (int64_t o = 0; o < y.cols; ++o) {
      const float scb = weight.scb[static_cast<size_t>(o)];
      int64_t sum = 0;
      double outliers = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        const int8_t code = weight.codes[static_cast<size_t>(o * x.cols + i)];
        if (outlier[static_cast<size_t>(i)]) {
          outliers += static_cast<double>(row[i]) * (static_cast<float>(code) * scb * quant::kInverse127);
        } else if (s > 0 && std::isfinite(s)) {
          sum += static_cast<int64_t>(std::nearbyint(rounded_to_half(row[i]) * (1 / s * 127))) * code;
        }
      }
      float value = static_cast<float>(sum) * (s * scb) * 6.200124e-05f;
      if (!bias.empty()) value += bias[static_cast<size_t>(o)];
      y.row(r)[o] = mixed ? value + static_cast<float>(outliers) : value;
    }
  }
}

}  // namespace nibble::kernels::ref
