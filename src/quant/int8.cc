#include "quant/int8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "base/threads.h"
#include "quant/simd.h"

namespace nibble::quant {
namespace {

constexpr int64_t kGrain = 1 << 16;  // elements of one task, about
constexpr uint8_t kRowMajor = 0;     // the only weight_format that is still written

/// Calls f(row) for every row of (rows, cols), on nibble's threads.
template <class F>
void for_each_row(int64_t rows, int64_t cols, const F& f) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cols));
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r);
  });
}

void check_float(DType dtype) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16, "8-bit codes of {}",
               dtype_name(dtype));
}

TensorView needed(const TensorLookup& lookup, const std::string& suffix, DType dtype, size_t rank,
                  const std::string& what) {
  const auto view = lookup(suffix);
  if (!view) fail("{}{} is missing; an 8-bit linear needs it", what, suffix);
  if (view->dtype != dtype)
    fail("{}{} is {}; an 8-bit linear needs {} here", what, suffix, dtype_name(view->dtype),
         dtype_name(dtype));
  if (view->shape.size() != rank)
    fail("{}{} has shape {}; an 8-bit linear needs {} here", what, suffix, shape_text(view->shape),
         rank == 2 ? "[out, in]" : "[out]");
  return *view;
}

void check_weight_format(const TensorLookup& lookup, const std::string& what) {
  const auto view = lookup(".weight_format");
  if (!view) return;
  if (view->dtype != DType::u8 || checked_product(view->shape) != 1)
    fail("{}.weight_format is {} of shape {}; it should be one U8", what, dtype_name(view->dtype),
         shape_text(view->shape));
  if (*view->as<uint8_t>() != kRowMajor)
    fail(
        "{}.weight_format is {}; nibble reads {}, row-major: save the model again with bitsandbytes 0.45 or "
        "later",
        what, *view->as<uint8_t>(), kRowMajor);
}

}  // namespace

float encode_row8(const std::byte* x, DType dtype, int64_t n, float threshold, int8_t* codes,
                  uint8_t* outliers) {
  check_float(dtype);
  return simd::encode_row8(x, dtype, n, threshold, codes, outliers);
}

Packed8 encode8(const TensorView& weight) {
  check_float(weight.dtype);
  NIBBLE_CHECK(weight.shape.size() == 2, "weight {}", shape_text(weight.shape));
  const int64_t out = weight.shape[0], in = weight.shape[1], size = dtype_size(weight.dtype);
  Packed8 packed{.shape = weight.shape, .dtype = weight.dtype, .codes = {}, .scb = {}};
  packed.codes.resize(static_cast<size_t>(out * in));
  packed.scb.resize(static_cast<size_t>(out));
  for_each_row(out, in, [&](int64_t r) {
    packed.scb[static_cast<size_t>(r)] = simd::encode_row8(weight.data + r * in * size, weight.dtype, in, 0,
                                                           packed.codes.data() + r * in, nullptr);
  });
  return packed;
}

Tensor decode8(const Packed8& packed, DType dtype) {
  check_float(dtype);
  NIBBLE_CHECK(packed.shape.size() == 2, "weight {}", shape_text(packed.shape));
  const int64_t out = packed.shape[0], in = packed.shape[1], size = dtype_size(dtype);
  NIBBLE_CHECK(std::ssize(packed.codes) == out * in && std::ssize(packed.scb) == out,
               "{} codes and {} scales for {}", packed.codes.size(), packed.scb.size(),
               shape_text(packed.shape));
  Tensor decoded(dtype, packed.shape);
  for_each_row(out, in, [&](int64_t r) {
    constexpr int64_t kPiece = 256;
    std::array<float, kPiece> values;
    const float scale = packed.scb[static_cast<size_t>(r)];
    for (int64_t begin = r * in; begin < (r + 1) * in; begin += kPiece) {
      const int64_t n = std::min(kPiece, (r + 1) * in - begin);
      const int8_t* codes = packed.codes.data() + begin;
      for (int64_t i = 0; i < n; ++i)
        values[static_cast<size_t>(i)] = static_cast<float>(codes[i]) * scale * kInverse127;
      from_float({values.data(), static_cast<size_t>(n)}, dtype, decoded.as<std::byte>() + begin * size);
    }
  });
  return decoded;
}

std::optional<int64_t> find_beyond_f16(const TensorView& weight) {
  check_float(weight.dtype);
  const int64_t n = weight.count(), size = dtype_size(weight.dtype);
  // The magnitude's bits from which on fp16 rounds to infinity (65520), in each type.
  const uint32_t limit = weight.dtype == DType::f32    ? 0x477ff000u
                         : weight.dtype == DType::bf16 ? 0x4780u  // the bf16 below, 65280, is within fp16
                                                       : 0x7c00u;
  std::vector<int64_t> first(static_cast<size_t>(block_count(n, kGrain)), n);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    const auto largest = [&](int64_t from, int64_t count) {
      return simd::largest_magnitude(weight.data + from * size, weight.dtype, count);
    };
    if (largest(begin, end - begin) < limit) return;
    int64_t at = begin;
    while (largest(at, 1) < limit) ++at;
    first[static_cast<size_t>(begin / kGrain)] = at;
  });
  for (const int64_t at : first)
    if (at < n) return at;
  return std::nullopt;
}

std::vector<StoredTensor> to_tensors8(const Packed8& packed) {
  const auto view = [](DType dtype, Shape shape, const void* data) {
    return TensorView{dtype, std::move(shape), static_cast<const std::byte*>(data)};
  };
  return {{".weight", view(DType::i8, packed.shape, packed.codes.data()), nullptr},
          {".SCB", view(DType::f32, {std::ssize(packed.scb)}, packed.scb.data()), nullptr},
          {".weight_format", view(DType::u8, {}, &kRowMajor), nullptr}};
}

Packed8 from_tensors8(const TensorLookup& lookup, const std::string& what) {
  const TensorView codes = needed(lookup, ".weight", DType::i8, 2, what);
  const TensorView scb = needed(lookup, ".SCB", DType::f32, 1, what);
  check_weight_format(lookup, what);
  if (scb.shape[0] != codes.shape[0])
    fail("{}.SCB has {} values, but the weight has {} rows", what, scb.shape[0], codes.shape[0]);
  Packed8 packed{.shape = codes.shape, .dtype = DType::f16, .codes = {}, .scb = {}};
  packed.codes.resize(static_cast<size_t>(codes.count()));
  if (!packed.codes.empty()) std::memcpy(packed.codes.data(), codes.data, packed.codes.size());
  packed.scb.resize(static_cast<size_t>(scb.count()));
  if (!packed.scb.empty()) std::memcpy(packed.scb.data(), scb.data, packed.scb.size() * sizeof(float));
  for (size_t r = 0; r < packed.scb.size(); ++r)
    if (!(packed.scb[r] >= 0 && packed.scb[r] <= std::numeric_limits<float>::max()))
      fail("{}.SCB holds {} at {}; the file is damaged", what, packed.scb[r], r);
  return packed;
}

}  // namespace nibble::quant
