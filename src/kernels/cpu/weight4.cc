#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

constexpr int64_t kHalf = kChunk4 / 2;

/// The code of element i of a file's codes.
uint8_t code_at(const uint8_t* codes, int64_t i) {
  return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
}

/// The bytes of a chunk of n inputs from element `first` on; inputs that are not there get code 0.
void fill_chunk(const uint8_t* codes, int64_t first, int64_t n, uint8_t* chunk) {
  if (first % 2 == 0 && n == kChunk4) {
    const uint8_t* bytes = codes + first / 2;
    for (int64_t i = 0; i < kHalf / 2; ++i) {
      const uint8_t front = bytes[i], back = bytes[i + kHalf / 2];
      chunk[2 * i] = static_cast<uint8_t>((front & 0xf0) | back >> 4);
      chunk[2 * i + 1] = static_cast<uint8_t>(front << 4 | (back & 0x0f));
    }
    return;
  }
  std::fill_n(chunk, kHalf, uint8_t{0});
  for (int64_t i = 0; i < n; ++i)
    chunk[i % kHalf] |= static_cast<uint8_t>(code_at(codes, first + i) << (i < kHalf ? 4 : 0));
}

/// Blocks that the elements [begin, begin + n) touch.
int64_t touched(int64_t begin, int64_t n, int64_t block) {
  return n == 0 ? 0 : (begin + n - 1) / block - begin / block + 1;
}

/// The smallest magnitude that is not 0.
double smallest(std::span<const float> values) {
  double out = std::numeric_limits<double>::infinity();
  for (const float v : values)
    if (v != 0) out = std::min(out, std::abs(static_cast<double>(v)));
  return out;
}

}  // namespace

Codes4 codes_in_panels(const quant::Packed4& packed, std::span<const float> absmax) {
  const int64_t out = packed.shape[0], in = packed.shape[1], block = packed.block;
  NIBBLE_CHECK(quant::valid_block(block), "block {}", block);
  NIBBLE_CHECK(std::ssize(packed.codes) == quant::block_count(out * in, 2) &&
                   std::ssize(absmax) == quant::block_count(out * in, block),
               "{} bytes of codes and {} absmax values for {}", packed.codes.size(), absmax.size(),
               shape_text(packed.shape));
  Codes4 w;
  w.out = out;
  w.in = in;
  w.block = block;
  w.half = packed.dtype == DType::f16;
  w.code = packed.code;
  w.normal = smallest(packed.code) * smallest(absmax) >= std::numeric_limits<float>::min();
  for (int64_t o = 0; o < out; ++o) w.slots = std::max(w.slots, touched(o * in, in, block));
  const int64_t panels = (out + kPanel - 1) / kPanel;
  w.codes = Tensor(DType::u8, {panels, w.chunks(), kPanel, kHalf});
  w.absmax = Tensor(DType::f32, {panels, w.slots, kPanel});
  parallel_for(panels, [&](int64_t p) {
    uint8_t* chunks = w.codes.as<uint8_t>() + p * w.chunks() * kPanel * kHalf;
    float* scales = w.absmax.as<float>() + p * w.slots * kPanel;
    const auto row_of = [&](int64_t place) { return p * kPanel + Codes4::column(place); };
    for (int64_t c = 0; c < w.chunks(); ++c) {
      for (int64_t place = 0; place < kPanel; ++place, chunks += kHalf) {
        const int64_t n = row_of(place) < out ? std::min(kChunk4, in - c * kChunk4) : 0;
        fill_chunk(packed.codes.data(), row_of(place) * in + c * kChunk4, n, chunks);
      }
    }
    for (int64_t column = 0; column < kPanel; ++column) {
      const int64_t row = p * kPanel + column, begin = row * in,
                    own = row < out ? touched(begin, in, block) : 0;
      for (int64_t s = 0; s < w.slots; ++s)
        scales[s * kPanel + column] = s < own ? absmax[static_cast<size_t>(begin / block + s)] : 0.0f;
    }
  });
  return w;
}

}  // namespace nibble::kernels
