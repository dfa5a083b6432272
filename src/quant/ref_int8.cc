#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/int8.h"
#include "quant/ref.h"

namespace nibble::quant::ref {

float encode_row8(std::span<const float> x, float threshold, int8_t* codes, uint8_t* outliers) {
  std::vector<float> inliers;
  float absmax = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    float half = f16_to_float(float_to_f16(x[i]));
    if (threshold > 0 && std::fabs(half) >= threshold) {
      outliers[i] = 1;
      half = 0;
    }
    if (!(std::fabs(half) <= absmax)) absmax = std::isnan(absmax) ? absmax : std::fabs(half);
    inliers.push_back(half);
  }
  const bool usable = absmax > 0 && std::isfinite(absmax);
  for (size_t i = 0; i < x.size(); ++i)
    codes[i] = usable ? static_cast<int8_t>(std::nearbyint(inliers[i] * (1 / absmax * 127))) : int8_t{0};
  return absmax;
}

Packed8 encode8(const TensorView& weight) {
  const int64_t out = weight.shape[0], in = weight.shape[1];
  Packed8 packed{.shape = weight.shape, .dtype = weight.dtype, .codes = {}, .scb = {}};
  packed.codes.resize(static_cast<size_t>(out * in));
  for (int64_t r = 0; r < out; ++r) {
    std::vector<float> row;
    for (int64_t i = r * in; i < (r + 1) * in; ++i) row.push_back(element(weight, i));
    packed.scb.push_back(ref::encode_row8(row, 0, packed.codes.data() + r * in, nullptr));
  }
  return packed;
}

Tensor decode8(const Packed8& packed, DType dtype) {
  Tensor out(dtype, packed.shape);
  for (int64_t i = 0; i < out.count(); ++i) {
    const float scaled = static_cast<float>(packed.codes[static_cast<size_t>(i)]) *
                         packed.scb[static_cast<size_t>(i / packed.shape[1])];
    const float value = scaled * kInverse127;
    from_float({&value, 1}, dtype, out.as<std::byte>() + i * dtype_size(dtype));
  }
  return out;
}

std::optional<int64_t> find_beyond_f16(const TensorView& weight) {
  for (int64_t i = 0; i < weight.count(); ++i)
    if (!std::isfinite(f16_to_float(float_to_f16(element(weight, i))))) return i;
  return std::nullopt;
}

}  // namespace nibble::quant::ref
