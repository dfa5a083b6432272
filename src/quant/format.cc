#include "quant/format.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "quant/ref.h"
#include "quant/simd.h"
#include "quant/tables.h"

namespace nibble::quant {
namespace {

constexpr int64_t kGrain = 1 << 16;  // elements of one task; a multiple of every block size

}  // namespace

std::string_view format_name(Format format) {
  switch (format) {
    case Format::bf16:
      return "bf16";
    case Format::nf4:
      return "nf4";
    case Format::fp4:
      return "fp4";
  }
  NIBBLE_CHECK(false, "format {}", static_cast<int>(format));
  return "";
}

std::optional<Format> parse_format(std::string_view name) {
  for (const Format f : {Format::bf16, Format::nf4, Format::fp4})
    if (format_name(f) == name) return f;
  return std::nullopt;
}

const char* instruction_set() {
  return simd::target_name();
}

Packed4 encode4(const TensorView& weight, Format format, bool double_quant, int64_t block) {
  Packed4 packed;
  encode4_into(weight, format, double_quant, block, packed);
  return packed;
}

void encode4_into(const TensorView& weight, Format format, bool double_quant, int64_t block,
                  Packed4& packed) {
  NIBBLE_CHECK(valid_block(block), "block {}", block);
  const int64_t n = weight.count(), size = dtype_size(weight.dtype);
  packed.format = format;
  packed.shape = weight.shape;
  packed.dtype = weight.dtype;
  packed.block = block;
  packed.code = code_values(format);
  packed.codes.resize(static_cast<size_t>(n / 2 + n % 2));
  packed.absmax.resize(static_cast<size_t>(block_count(n, block)));
  packed.nested.reset();
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    simd::encode_range(weight.data + begin * size, weight.dtype, format, block, end - begin,
                       packed.codes.data() + begin / 2, packed.absmax.data() + begin / block);
  });
  if (!double_quant) return;
  packed.nested = encode_absmax(packed.absmax);
  packed.absmax.clear();
}

Tensor decode4(const Packed4& packed, DType dtype) {
  Tensor out(dtype, packed.shape);
  decode4_into(packed, dtype, out.as<std::byte>());
  return out;
}

void decode4_into(const Packed4& packed, DType dtype, std::byte* target) {
  const int64_t n = TensorView{dtype, packed.shape, nullptr}.count(), size = dtype_size(dtype);
  const int64_t block = packed.block;
  NIBBLE_CHECK(valid_block(block), "block {}", block);
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16, "decode to {}",
               dtype_name(dtype));
  NIBBLE_CHECK(std::ssize(packed.codes) == n / 2 + n % 2, "{} bytes of codes for {} elements",
               packed.codes.size(), n);
  const std::vector<float> decoded = packed.nested ? decode_absmax(packed) : std::vector<float>();
  const std::vector<float>& absmax = packed.nested ? decoded : packed.absmax;
  NIBBLE_CHECK(std::ssize(absmax) == block_count(n, block), "{} absmax values for {} elements", absmax.size(),
               n);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    simd::decode_range(packed.codes.data() + begin / 2, absmax.data() + begin / block, packed.code.data(),
                       block, end - begin, dtype, target + begin * size);
  });
}

int64_t packed_bytes(int64_t count, bool double_quant, int64_t state_bytes, int64_t block) {
  const int64_t blocks = block_count(count, block);
  const int64_t scales = double_quant ? blocks + (block_count(blocks, kNestedBlock) + 256) * 4 : blocks * 4;
  return count / 2 + count % 2 + scales + 16 * 4 + state_bytes;
}

std::optional<int64_t> find_nonfinite(const TensorView& tensor) {
  if (!is_float(tensor.dtype)) return std::nullopt;
  const int64_t n = tensor.count(), size = dtype_size(tensor.dtype);
  const uint32_t infinity = tensor.dtype == DType::f32    ? 0x7f800000u
                            : tensor.dtype == DType::bf16 ? 0x7f80u
                                                          : 0x7c00u;
  std::vector<int64_t> first(static_cast<size_t>(block_count(n, kGrain)), n);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    const std::byte* data = tensor.data + begin * size;
    if (tensor.dtype != DType::f64 && simd::largest_magnitude(data, tensor.dtype, end - begin) < infinity)
      return;
    if (const auto at = ref::find_nonfinite({tensor.dtype, {end - begin}, data}))
      first[static_cast<size_t>(begin / kGrain)] = begin + *at;
  });
  for (const int64_t at : first)
    if (at < n) return at;
  return std::nullopt;
}

WeightError weight_error(const TensorView& original, const TensorView& decoded, int64_t block) {
  NIBBLE_CHECK(original.count() == decoded.count() && block > 0);
  const int64_t n = original.count();
  block = std::min(block, std::max<int64_t>(n, 1));
  const int64_t blocks = block_count(n, block);
  const int64_t size_w = dtype_size(original.dtype), size_q = dtype_size(decoded.dtype);
  std::vector<simd::Norms> sums(static_cast<size_t>(block_count(blocks, ref::kErrorRange)));
  parallel_ranges(blocks, ref::kErrorRange, [&](int64_t first, int64_t last) {
    const int64_t begin = first * block, end = std::min(n, last * block);
    sums[static_cast<size_t>(first / ref::kErrorRange)] =
        simd::block_norms(original.data + begin * size_w, original.dtype, decoded.data + begin * size_q,
                          decoded.dtype, block, end - begin);
  });
  simd::Norms total;
  for (const simd::Norms& s : sums) {
    total.error += s.error;
    total.original += s.original;
    total.largest_block = std::max(total.largest_block, s.largest_block);
  }
  return {total.error == 0 ? 0 : std::sqrt(total.error / total.original), total.largest_block};
}

}  // namespace nibble::quant
