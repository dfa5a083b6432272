#include "quant/ref.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/tables.h"

namespace nibble::quant::ref {
namespace {

template <typename T>
T read(const TensorView& tensor, int64_t i) {
  T value;
  std::memcpy(&value, tensor.data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

/// Eight running sums: term i goes to sum i mod 8; the total adds them in pairs. An order that every
/// instruction set can keep.
struct Sum8 {
  std::array<double, 8> lanes{};

  void add(int64_t i, double term) { lanes[static_cast<size_t>(i % 8)] += term; }
  double total() const {
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
};

float mean(std::span<const float> values) {
  if (values.empty()) return 0;
  Sum8 sum;
  for (size_t i = 0; i < values.size(); ++i) sum.add(static_cast<int64_t>(i), values[i]);
  return static_cast<float>(sum.total() / static_cast<double>(values.size()));
}

}  // namespace

float element(const TensorView& tensor, int64_t i) {
  switch (tensor.dtype) {
    case DType::f32:
      return read<float>(tensor, i);
    case DType::bf16:
      return bf16_to_float(read<uint16_t>(tensor, i));
    case DType::f16:
      return f16_to_float(read<uint16_t>(tensor, i));
    default:
      NIBBLE_CHECK(false, "4-bit formats of {}", dtype_name(tensor.dtype));
      return 0;
  }
}

uint8_t code_of(float y, Format format) {
  uint8_t rank = 0;
  if (format == Format::nf4) {
    for (float t : kNf4Thresholds) rank = static_cast<uint8_t>(rank + (y > t));
    return rank;
  }
  for (float t : kFp4Thresholds) rank = static_cast<uint8_t>(rank + (std::fabs(y) > t));
  return static_cast<uint8_t>(kFp4Ranks[rank] + (y < 0 ? 8 : 0));
}

float encode_block(std::span<const float> x, Format format, uint8_t* codes) {
  float absmax = 0;
  for (float v : x)
    if (std::fabs(v) > absmax) absmax = std::fabs(v);
  const float inverse = 1.0f / absmax;
  for (size_t i = 0; i < x.size(); i += 2) {
    const uint8_t high = code_of(x[i] * inverse, format);
    const uint8_t low = i + 1 < x.size() ? code_of(x[i + 1] * inverse, format) : zero_code(format);
    codes[i / 2] = static_cast<uint8_t>(high << 4 | low);
  }
  return absmax;
}

uint8_t dynamic_index(float y) {
  const auto& map = dynamic_map();
  uint8_t index = 0;
  for (size_t k = 0; k + 1 < map.size(); ++k) {
    const float midpoint = (map[k] + map[k + 1]) * 0.5f;
    if (y > midpoint || (y == midpoint && k % 2 == 1)) index = static_cast<uint8_t>(k + 1);
  }
  return index;
}

Packed4 encode4(const TensorView& weight, Format format, bool double_quant, int64_t block) {
  NIBBLE_CHECK(valid_block(block), "block {}", block);
  Packed4 out{.format = format,
              .shape = weight.shape,
              .dtype = weight.dtype,
              .block = block,
              .code = code_values(format),
              .codes = {},
              .absmax = {},
              .nested = {}};
  const int64_t n = weight.count();
  out.codes.resize(static_cast<size_t>((n + 1) / 2));
  std::vector<float> x;
  for (int64_t begin = 0; begin < n; begin += block) {
    x.clear();
    for (int64_t i = begin; i < std::min(n, begin + block); ++i) x.push_back(element(weight, i));
    out.absmax.push_back(encode_block(x, format, out.codes.data() + begin / 2));
  }
  if (double_quant) {
    out.nested = ref::encode_absmax(out.absmax);
    out.absmax.clear();
  }
  return out;
}

float encode_nested_block(std::span<const float> absmax, float offset, uint8_t* q) {
  float scale = 0;
  for (float v : absmax)
    if (std::fabs(v - offset) > scale) scale = std::fabs(v - offset);
  const float inverse = 1.0f / scale;
  for (size_t i = 0; i < absmax.size(); ++i) q[i] = dynamic_index((absmax[i] - offset) * inverse);
  return scale;
}

NestedAbsmax encode_absmax(std::span<const float> absmax, std::optional<float> offset) {
  NestedAbsmax out{.q = {}, .absmax = {}, .map = dynamic_map(), .offset = offset ? *offset : mean(absmax)};
  if (!std::isfinite(out.offset)) fail("the mean of the absmax values is {}", out.offset);
  out.q.resize(absmax.size());
  for (size_t begin = 0; begin < absmax.size(); begin += kNestedBlock) {
    const auto values = absmax.subspan(begin, std::min<size_t>(kNestedBlock, absmax.size() - begin));
    out.absmax.push_back(encode_nested_block(values, out.offset, out.q.data() + begin));
  }
  return out;
}

std::vector<float> decode_absmax(const Packed4& packed) {
  if (!packed.nested) return packed.absmax;
  const NestedAbsmax& nested = *packed.nested;
  std::vector<float> out;
  for (size_t i = 0; i < nested.q.size(); ++i) {
    const float product =
        nested.map[nested.q[i]] * nested.absmax[i / static_cast<size_t>(nested.nested_block)];
    out.push_back(product + nested.offset);
  }
  return out;
}

Tensor decode4(const Packed4& packed, DType dtype) {
  Tensor out(dtype, packed.shape);
  const std::vector<float> absmax = ref::decode_absmax(packed);
  for (int64_t i = 0; i < out.count(); ++i) {
    const uint8_t byte = packed.codes[static_cast<size_t>(i / 2)];
    const float value =
        packed.code[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax[static_cast<size_t>(i / packed.block)];
    from_float({&value, 1}, dtype, out.as<std::byte>() + i * dtype_size(dtype));
  }
  return out;
}

std::optional<int64_t> find_nonfinite(const TensorView& tensor) {
  if (!is_float(tensor.dtype)) return std::nullopt;
  for (int64_t i = 0; i < tensor.count(); ++i) {
    const bool finite = tensor.dtype == DType::f64 ? std::isfinite(read<double>(tensor, i))
                                                   : std::isfinite(element(tensor, i));
    if (!finite) return i;
  }
  return std::nullopt;
}

WeightError weight_error(const TensorView& original, const TensorView& decoded, int64_t block) {
  NIBBLE_CHECK(original.count() == decoded.count() && block > 0);
  const int64_t n = original.count();
  block = std::min(block, std::max<int64_t>(n, 1));
  const auto ratio = [](double error, double norm) { return error == 0 ? 0 : std::sqrt(error / norm); };
  double error = 0, norm = 0, largest = 0;
  const int64_t range = kErrorRange * block;
  for (int64_t start = 0; start < n; start += range) {
    double range_error = 0, range_norm = 0;
    for (int64_t begin = start; begin < std::min(n, start + range); begin += block) {
      Sum8 d2, w2;
      for (int64_t i = begin; i < std::min(n, begin + block); ++i) {
        const double w = element(original, i), d = w - static_cast<double>(element(decoded, i));
        d2.add(i - begin, d * d);
        w2.add(i - begin, w * w);
      }
      largest = std::max(largest, ratio(d2.total(), w2.total()));
      range_error += d2.total();
      range_norm += w2.total();
    }
    error += range_error;
    norm += range_norm;
  }
  return {ratio(error, norm), largest};
}

}  // namespace nibble::quant::ref
