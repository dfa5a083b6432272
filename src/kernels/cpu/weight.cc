#include "kernels/cpu/weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/panels.h"

namespace nibble::kernels {
namespace {

// Columns of the source that are transposed at a time; both sides stay in the first-level cache.
constexpr int64_t kBlock = 64;
// Bytes of the source that are packed before they are told to be done with.
constexpr int64_t kDoneBytes = 16 << 20;

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
    if (weight.dtype == DType::f32) {
      round_to_bf16(reinterpret_cast<const float*>(data), n, buffer);
      return buffer;
    }
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

bool is_wide(DType dtype, Compute compute) {
  return compute == Compute::f32 && dtype != DType::bf16;
}

TensorView rows_of(const TensorView& weight, int64_t begin, int64_t end) {
  return {weight.dtype,
          {end - begin, weight.shape[1]},
          weight.data + begin * weight.shape[1] * dtype_size(weight.dtype)};
}

}  // namespace

Weight Weight::pack(const TensorView& weight, Compute compute,
                    const std::function<void(const TensorView&)>& done) {
  NIBBLE_CHECK(weight.shape.size() == 2, "weight {}", shape_text(weight.shape));
  NIBBLE_CHECK(weight.dtype == DType::f32 || weight.dtype == DType::bf16 || weight.dtype == DType::f16);
  auto impl = std::make_shared<Impl>();
  impl->compute = compute;
  impl->out = weight.shape[0];
  impl->in = weight.shape[1];
  impl->wide = is_wide(weight.dtype, compute);
  const int64_t depth = impl->depth();
  impl->panels = Tensor(impl->wide ? DType::f32 : DType::bf16, {impl->panel_count(), depth, kPanel});
  // Panels of a task group, after which their rows are told to be done with.
  const int64_t group =
      std::max<int64_t>(1, kDoneBytes / std::max<int64_t>(1, kPanel * impl->in * dtype_size(weight.dtype)));
  for (int64_t first = 0; first < impl->panel_count(); first += group) {
    const int64_t n = std::min(group, impl->panel_count() - first);
    parallel_for(n, [&](int64_t i) {
      const int64_t p = first + i;
      if (impl->wide) {
        fill_panel(weight, p, depth, impl->panels.as<float>() + p * depth * kPanel);
      } else {
        fill_panel(weight, p, depth, impl->panels.as<uint16_t>() + p * depth * kPanel);
      }
    });
    if (done) done(rows_of(weight, first * kPanel, std::min(impl->out, (first + n) * kPanel)));
  }
  Weight packed;
  packed.impl_ = std::move(impl);
  return packed;
}

Weight Weight::pack(const quant::Packed4& packed, Compute compute) {
  NIBBLE_CHECK(packed.shape.size() == 2, "weight {}", shape_text(packed.shape));
  const std::vector<float> decoded = packed.nested ? quant::decode_absmax(packed) : std::vector<float>();
  const std::vector<float>& absmax = packed.nested ? decoded : packed.absmax;
  // The fast decoding knows no NaN; only a damaged or made-up file leads to one.
  if (!std::all_of(absmax.begin(), absmax.end(), [](float a) { return std::isfinite(a); }))
    return pack(quant::decode4(packed).view(), compute);
  auto impl = std::make_shared<Impl>();
  impl->compute = compute;
  impl->out = packed.shape[0];
  impl->in = packed.shape[1];
  impl->wide = is_wide(packed.dtype, compute);
  impl->codes4 = codes_in_panels(packed, absmax);
  Weight weight;
  weight.impl_ = std::move(impl);
  return weight;
}

int64_t Weight::out() const {
  return impl_->out;
}
int64_t Weight::in() const {
  return impl_->in;
}
int64_t Weight::bytes() const {
  return impl_->codes4 ? impl_->codes4->codes.bytes() + impl_->codes4->absmax.bytes() : impl_->panels.bytes();
}

}  // namespace nibble::kernels
