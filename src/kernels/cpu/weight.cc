#include "kernels/cpu/weight.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/panels.h"

namespace nibble::kernels {
namespace {

// Columns of the source that are transposed at a time; both sides stay in the first-level cache.
constexpr int64_t kBlock = 64;

/// n values of a row from a column on, as they lie in `weight`, or converted into `buffer`.
template <typename T>
const T* piece_of(const TensorView& weight, int64_t row, int64_t column, int64_t n, T* buffer) {
  const int64_t offset = row * weight.shape[1] + column;
  const std::byte* data = weight.data + offset * dtype_size(weight.dtype);
  if constexpr (std::is_same_v<T, float>) {
    if (weight.dtype == DType::f32) return reinterpret_cast<const float*>(data);
    to_float({weight.dtype, {n}, data}, buffer);
  } else {
    if (weight.dtype == DType::bf16) return reinterpret_cast<const uint16_t*>(data);
    float values[kBlock];
    to_float({weight.dtype, {n}, data}, values);
    round_to_bf16(values, n, buffer);
  }
  return buffer;
}

/// Puts the rows of panel p in their places: put(row in the panel, first column, values, number of columns).
template <typename T, typename Put>
void for_each_piece(const TensorView& weight, int64_t p, Put put) {
  const int64_t rows = std::min(kPanel, weight.shape[0] - p * kPanel), in = weight.shape[1];
  T buffer[kBlock];
  for (int64_t k = 0; k < in; k += kBlock) {
    const int64_t n = std::min(kBlock, in - k);
    for (int64_t r = 0; r < rows; ++r) put(r, k, piece_of(weight, p * kPanel + r, k, n, buffer), n);
  }
}

void fill_panel(const TensorView& weight, int64_t p, int64_t depth, float* panel) {
  if (weight.shape[0] - p * kPanel < kPanel) std::fill_n(panel, depth * kPanel, 0.0f);
  for_each_piece<float>(weight, p, [&](int64_t r, int64_t k, const float* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) panel[(k + i) * kPanel + r] = values[i];
  });
}

void fill_panel(const TensorView& weight, int64_t p, int64_t depth, uint16_t* panel) {
  if (weight.shape[0] - p * kPanel < kPanel || depth > weight.shape[1]) {
    std::fill_n(panel, depth * kPanel, uint16_t{0});
  }
  for_each_piece<uint16_t>(weight, p, [&](int64_t r, int64_t k, const uint16_t* values, int64_t n) {
    uint16_t* column = panel + k * kPanel + 2 * r;
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) std::memcpy(column + i * kPanel, values + i, 2 * sizeof(uint16_t));
    if (i < n) column[i * kPanel] = values[i];
  });
}

}  // namespace

Weight Weight::pack(const TensorView& weight, Compute compute) {
  NIBBLE_CHECK(weight.shape.size() == 2, "weight {}", shape_text(weight.shape));
  NIBBLE_CHECK(weight.dtype == DType::f32 || weight.dtype == DType::bf16 || weight.dtype == DType::f16);
  auto impl = std::make_shared<Impl>();
  impl->compute = compute;
  impl->out = weight.shape[0];
  impl->in = weight.shape[1];
  const bool narrow = compute == Compute::bf16 || weight.dtype == DType::bf16;
  const int64_t depth = narrow ? (impl->in + kDepth - 1) / kDepth * kDepth : impl->in;
  impl->panels = Tensor(narrow ? DType::bf16 : DType::f32, {impl->panel_count(), depth, kPanel});
  parallel_for(impl->panel_count(), [&](int64_t p) {
    if (narrow) {
      fill_panel(weight, p, depth, impl->panels.as<uint16_t>() + p * depth * kPanel);
    } else {
      fill_panel(weight, p, depth, impl->panels.as<float>() + p * depth * kPanel);
    }
  });
  Weight packed;
  packed.impl_ = std::move(impl);
  return packed;
}

int64_t Weight::out() const {
  return impl_->out;
}
int64_t Weight::in() const {
  return impl_->in;
}
int64_t Weight::bytes() const {
  return impl_->panels.bytes();
}

}  // namespace nibble::kernels
