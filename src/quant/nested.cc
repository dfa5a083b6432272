// Double quantization of absmax values.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/threads.h"
#include "quant/format.h"
#include "quant/ref.h"
#include "quant/tables.h"

namespace nibble::quant {
namespace {

constexpr int64_t kGrain = 1 << 14;  // absmax values of one task; a multiple of the nested block

/// Finds indices of the dynamic map. The floats of [2^-22, 1] are cut into cells by sign, exponent and the
/// six highest mantissa bits; no cell holds more than one threshold, so its first index and one comparison
/// decide.
class IndexFinder {
 public:
  IndexFinder() : thresholds_(dynamic_thresholds()) {
    for (uint32_t sign = 0; sign < 2; ++sign)
      for (uint32_t cell = 0; cell < kCells; ++cell) {
        // The end of the cell that is nearer to minus infinity, which a negative cell does not hold itself;
        // the first cell of a sign reaches to zero.
        const uint32_t edge = sign == 0 ? cell : cell + 1;
        float lowest = edge == 0 ? 0 : std::bit_cast<float>((edge + kFirstCell) << kShift);
        if (sign == 1) lowest = cell + 1 == kCells ? -std::numeric_limits<float>::infinity() : -lowest;
        first_[sign * kCells + cell] = static_cast<uint8_t>(
            std::lower_bound(thresholds_.begin(), thresholds_.end(), lowest) - thresholds_.begin());
      }
  }

  /// The number of thresholds below y; |y| must be finite.
  uint8_t operator()(float y) const {
    const auto bits = std::bit_cast<uint32_t>(y);
    const int32_t cell =
        static_cast<int32_t>((bits & 0x7fffffffu) >> kShift) - static_cast<int32_t>(kFirstCell);
    const auto within = static_cast<uint32_t>(std::clamp(cell, 0, static_cast<int32_t>(kCells) - 1));
    const uint8_t first = first_[(bits >> 31) * kCells + within];
    return static_cast<uint8_t>(first + (y > padded(first)));
  }

 private:
  static constexpr uint32_t kShift = 17, kFirstCell = (127 - 22) << 6, kCells = (22 << 6) + 1;

  float padded(uint8_t k) const { return k == 255 ? std::numeric_limits<float>::infinity() : thresholds_[k]; }

  std::array<float, 255> thresholds_;
  std::array<uint8_t, 2 * kCells> first_;
};

/// One nested block: indices of the differences to q; returns their scale.
float encode_block(std::span<const float> absmax, float offset, const IndexFinder& find, uint8_t* q) {
  uint32_t bits = 0;
  for (const float v : absmax) bits = std::max(bits, std::bit_cast<uint32_t>(v - offset) & 0x7fffffffu);
  const float scale = std::bit_cast<float>(bits);
  if (scale >= std::numeric_limits<float>::min() && scale <= std::numeric_limits<float>::max()) {
    const float inverse = 1.0f / scale;
    for (size_t i = 0; i < absmax.size(); ++i) q[i] = find((absmax[i] - offset) * inverse);
    return scale;
  }
  // All equal, subnormal, infinite or NaN: by the definition.
  return ref::encode_nested_block(absmax, offset, q);
}

}  // namespace

float mean_absmax(std::span<const float> values) {
  // Eight interleaved running sums.
  if (values.empty()) return 0;
  std::array<double, 8> sums{};
  const size_t whole = values.size() / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += values[i + lane];
  for (size_t i = whole; i < values.size(); ++i) sums[i - whole] += values[i];
  const double total =
      ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  return static_cast<float>(total / static_cast<double>(values.size()));
}

NestedAbsmax encode_absmax(std::span<const float> absmax, std::optional<float> offset) {
  NestedAbsmax out;
  out.map = dynamic_map();
  out.offset = offset ? *offset : mean_absmax(absmax);
  if (!std::isfinite(out.offset))
    fail("double quantization: the mean of the absmax values is {}; the weight holds NaN or infinity",
         out.offset);
  const auto n = static_cast<int64_t>(absmax.size());
  out.q.resize(absmax.size());
  out.absmax.resize(static_cast<size_t>(block_count(n, kNestedBlock)));
  static const IndexFinder find;
  parallel_ranges(n, kGrain, [&](int64_t first, int64_t last) {
    for (int64_t begin = first; begin < last; begin += kNestedBlock) {
      const auto count = static_cast<size_t>(std::min(kNestedBlock, last - begin));
      out.absmax[static_cast<size_t>(begin / kNestedBlock)] = encode_block(
          absmax.subspan(static_cast<size_t>(begin), count), out.offset, find, out.q.data() + begin);
    }
  });
  return out;
}

std::vector<float> decode_absmax(const Packed4& packed) {
  if (!packed.nested) return packed.absmax;
  const NestedAbsmax& nested = *packed.nested;
  const auto n = static_cast<int64_t>(nested.q.size());
  NIBBLE_CHECK(nested.nested_block > 0 && std::ssize(nested.absmax) == block_count(n, nested.nested_block),
               "{} nested absmax values for {}", nested.absmax.size(), n);
  std::vector<float> out(nested.q.size());
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const float scale = nested.absmax[static_cast<size_t>(i / nested.nested_block)];
      const int64_t stop = std::min(end, (i / nested.nested_block + 1) * nested.nested_block);
      for (; i < stop; ++i) {
        const float product = nested.map[nested.q[static_cast<size_t>(i)]] * scale;
        out[static_cast<size_t>(i)] = product + nested.offset;
      }
    }
  });
  return out;
}

}  // namespace nibble::quant
