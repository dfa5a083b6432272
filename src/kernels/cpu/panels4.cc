#include "kernels/cpu/panels4.h"

#include <algorithm>
#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panels4.cc"
// foreach_target.h compiles this file once for each instruction set; it must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace nibble::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void put(float value, int64_t k, int64_t column, float* panel) {
  panel[k * kPanel + column] = value;
}
void put(float value, int64_t k, int64_t column, uint16_t* panel) {
  panel[k / 2 * 2 * kPanel + 2 * column + k % 2] = float_to_bf16(value);
}

template <typename T>
void decode_chunks(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4&, T* panel) {
  for (int64_t k = begin; k < end; ++k) {
    const int64_t in_chunk = k % kChunk4, half = kChunk4 / 2;
    for (int64_t place = 0; place < kPanel; ++place) {
      const uint8_t byte = w.chunk(p, k / kChunk4)[place * half + in_chunk % half];
      const int64_t column = Codes4::column(place), from = (p * kPanel + column) * w.in % w.block + k;
      const int64_t slot = std::min(from / w.block, w.slots - 1);
      float value = w.code[in_chunk < half ? byte >> 4 : byte & 15] * w.absmax_of(p)[slot * kPanel + column];
      if (w.half) value = f16_to_float(float_to_f16(value));
      put(value, k - begin, column, panel);
    }
  }
}

#else

using D8 = hn::CappedTag<uint8_t, kPanel * 4>;
using D16 = hn::Repartition<uint16_t, D8>;
using D32 = hn::Repartition<uint32_t, D8>;
using D64 = hn::Repartition<uint64_t, D8>;
using DF = hn::Repartition<float, D8>;
using V8 = hn::Vec<D8>;
using V32 = hn::Vec<D32>;
using VF = hn::Vec<DF>;

constexpr int64_t kPlace = 16;                   // bytes of a place: a table, or the codes of a chunk
constexpr int64_t kGroup = kPanel / 4 * kPlace;  // bytes of the places of outputs 4 g + j, j the same

using Planes = uint8_t[4][kPanel * kPlace];

/// fp32 bits of a value rounded to f16. It is no NaN.
HWY_INLINE V32 to_half(V32 bits) {
  const D32 d;
  const DF f;
  const V32 magnitude = hn::And(bits, hn::Set(d, 0x7fffffffu)), sign = hn::Xor(bits, magnitude);
  const V32 odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d, 1u));
  V32 out = hn::And(hn::Add(hn::Add(magnitude, hn::Set(d, 0xfffu)), odd), hn::Set(d, 0xffffe000u));
  // Below the smallest normal the sum with 1/2 rounds to the steps of subnormals.
  const VF half = hn::Set(f, 0.5f);
  const V32 small = hn::BitCast(d, hn::Sub(hn::Add(hn::BitCast(f, magnitude), half), half));
  out = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x38800000u)), small, out);
  out = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, 0x477fefffu)), hn::Set(d, 0x7f800000u), out);
  return hn::Or(sign, out);
}

/// fp32 bits of a value rounded to bf16, in the upper half. It is no NaN.
HWY_INLINE V32 to_bf16(V32 bits) {
  const D32 d;
  const V32 odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
  return hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fffu)));
}

/// Byte 4 i + q of each place comes from lane i of value vector q.
HWY_INLINE V8 interleave_bytes(V32 lower, V32 upper) {
  return hn::OddEven(hn::BitCast(D8(), upper), hn::BitCast(D8(), lower));
}

/// Two vectors of 16-bit halves in one: those of `even` and of `odd` beside each other.
HWY_INLINE V32 pair_words(V32 even, V32 odd) {
  return hn::BitCast(D32(), hn::OddEven(hn::BitCast(D16(), odd), hn::BitCast(D16(), even)));
}

HWY_INLINE V32 shift_words_left(V32 v) {
  return hn::BitCast(D32(), hn::ShiftLeft<8>(hn::BitCast(D16(), v)));
}
HWY_INLINE V32 shift_words_right(V32 v) {
  return hn::BitCast(D32(), hn::ShiftRight<8>(hn::BitCast(D16(), v)));
}

/// absmax: each value four times, by place.
template <int kPlanes>
HWY_INLINE void fill_tables(const std::array<float, 16>& code, bool half, const float* absmax,
                            Planes& planes) {
  const D8 d8;
  const D32 d32;
  const DF f;
  // The order in which pair_words and interleave_bytes bring four vectors together.
  HWY_ALIGN float quads[4][4];
  for (size_t i = 0; i < 4; ++i) {
    quads[0][i] = code[4 * i];
    quads[2][i] = code[4 * i + 1];
    quads[1][i] = code[4 * i + 2];
    quads[3][i] = code[4 * i + 3];
  }
  const VF q0 = hn::LoadDup128(f, quads[0]), q1 = hn::LoadDup128(f, quads[1]);
  const VF q2 = hn::LoadDup128(f, quads[2]), q3 = hn::LoadDup128(f, quads[3]);
  const auto value = [&](VF q, VF scale) HWY_ATTR {
    V32 bits = hn::BitCast(d32, hn::Mul(q, scale));
    if (half) bits = to_half(bits);
    return kPlanes == 2 ? to_bf16(bits) : bits;
  };
  const auto store = [&](V32 words01, V32 words23, size_t plane, int64_t at) HWY_ATTR {
    hn::Store(interleave_bytes(words01, shift_words_left(words23)), d8, planes[plane] + at);
    hn::Store(interleave_bytes(shift_words_right(words01), words23), d8, planes[plane + 1] + at);
  };
  for (int64_t at = 0; at < kPanel * kPlace; at += static_cast<int64_t>(hn::Lanes(d8))) {
    const VF scale = hn::Load(f, absmax + at / 4);
    const V32 v0 = value(q0, scale), v1 = value(q1, scale), v2 = value(q2, scale), v3 = value(q3, scale);
    if constexpr (kPlanes == 4)
      store(pair_words(v0, hn::ShiftLeft<16>(v1)), pair_words(v2, hn::ShiftLeft<16>(v3)), 0, at);
    store(pair_words(hn::ShiftRight<16>(v0), v1), pair_words(hn::ShiftRight<16>(v2), v3), kPlanes - 2, at);
  }
}

/// Dword i of 128-bit block b of v[j] goes to dword j of block b of v[i].
HWY_INLINE void transpose(V32& v0, V32& v1, V32& v2, V32& v3) {
  const D32 d32;
  const D64 d64;
  const auto a = hn::BitCast(d64, hn::InterleaveLower(d32, v0, v1));
  const auto b = hn::BitCast(d64, hn::InterleaveLower(d32, v2, v3));
  const auto c = hn::BitCast(d64, hn::InterleaveUpper(d32, v0, v1));
  const auto d = hn::BitCast(d64, hn::InterleaveUpper(d32, v2, v3));
  v0 = hn::BitCast(d32, hn::InterleaveLower(d64, a, b));
  v1 = hn::BitCast(d32, hn::InterleaveUpper(d64, a, b));
  v2 = hn::BitCast(d32, hn::InterleaveLower(d64, c, d));
  v3 = hn::BitCast(d32, hn::InterleaveUpper(d64, c, d));
}

/// What decodes a chunk whose outputs all stay in one block.
struct OneBlock {
  const Planes& planes;

  HWY_INLINE V8 look_up(size_t plane, int64_t at, V8 nibbles, int64_t) const {
    const D8 d8;
    return hn::TableLookupBytes(hn::Load(d8, planes[plane] + at), nibbles);
  }
};

/// What decodes a chunk in which outputs go on from one block to the next: at input bounds[place].
struct TwoBlocks {
  const Planes &before, &after;
  const uint8_t* bounds;  // by place, 16 times

  HWY_INLINE V8 look_up(size_t plane, int64_t at, V8 nibbles, int64_t first) const {
    const D8 d8;
    const V8 position =
        hn::Add(hn::And(hn::Iota(d8, 0), hn::Set(d8, kPlace - 1)), hn::Set(d8, static_cast<uint8_t>(first)));
    const V8 b = hn::TableLookupBytes(hn::Load(d8, before[plane] + at), nibbles);
    const V8 a = hn::TableLookupBytes(hn::Load(d8, after[plane] + at), nibbles);
    return hn::IfThenElse(hn::Lt(position, hn::Load(d8, bounds + at)), b, a);
  }
};

/// 16 inputs, from `first` of the chunk on, of a vector of outputs from `column` on, whose nibbles of every
/// fourth output from number j on are nibbles[j], to their places in the panel of the chunk.
template <int kPlanes, class Source>
HWY_INLINE void decode_sixteen(const Source& source, const V8 (&nibbles)[4], int64_t column, int64_t first,
                               uint32_t* panel) {
  const D8 d8;
  const D16 d16;
  const D32 d32;
  const int64_t at = column / 4 * kPlace;
  V32 v[kPlanes][4];  // [four of 16 inputs, or of 8 pairs][j]
  for (int64_t j = 0; j < 4; ++j) {
    const auto plane = [&](size_t i)
                           HWY_ATTR { return source.look_up(i, at + j * kGroup, nibbles[j], first); };
    const V8 p0 = plane(0), p1 = plane(1);
    const auto front = hn::BitCast(d16, hn::InterleaveLower(d8, p0, p1));
    const auto back = hn::BitCast(d16, hn::InterleaveUpper(d8, p0, p1));
    if constexpr (kPlanes == 2) {
      v[0][j] = hn::BitCast(d32, front);
      v[1][j] = hn::BitCast(d32, back);
    } else {
      const V8 p2 = plane(2), p3 = plane(3);
      const auto upper_front = hn::BitCast(d16, hn::InterleaveLower(d8, p2, p3));
      const auto upper_back = hn::BitCast(d16, hn::InterleaveUpper(d8, p2, p3));
      v[0][j] = hn::BitCast(d32, hn::InterleaveLower(d16, front, upper_front));
      v[1][j] = hn::BitCast(d32, hn::InterleaveUpper(d16, front, upper_front));
      v[2][j] = hn::BitCast(d32, hn::InterleaveLower(d16, back, upper_back));
      v[3][j] = hn::BitCast(d32, hn::InterleaveUpper(d16, back, upper_back));
    }
  }
  for (int64_t i = 0; i < kPlanes; ++i) {
    transpose(v[i][0], v[i][1], v[i][2], v[i][3]);
    // A row of the panel has a pair of inputs (bf16) or one input for each output.
    uint32_t* to = panel + (first * kPlanes / 4 + 4 * i) * kPanel + column;
    for (int64_t n = 0; n < 4; ++n) hn::StoreU(v[i][n], d32, to + n * kPanel);
  }
}

template <int kPlanes, class Source>
HWY_INLINE void decode_chunk(const Source& source, const uint8_t* codes, uint32_t* panel) {
  const D8 d8;
  const D16 d16;
  const V8 mask = hn::Set(d8, 0x0f);
  const auto outputs = static_cast<int64_t>(hn::Lanes(D32()));
  for (int64_t column = 0; column < kPanel; column += outputs) {
    V8 high[4], low[4];
    for (int64_t j = 0; j < 4; ++j) {
      const V8 bytes = hn::Load(d8, codes + column / 4 * kPlace + j * kGroup);
      high[j] = hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), mask);
      low[j] = hn::And(bytes, mask);
    }
    decode_sixteen<kPlanes>(source, high, column, 0, panel);
    decode_sixteen<kPlanes>(source, low, column, kChunk4 / 2, panel);
  }
}

/// The absmax values of a panel's outputs, four times each as fill_tables takes them.
struct Scales {
  HWY_ALIGN float values[kPanel * 4];

  HWY_INLINE void put(int64_t place, float absmax) {
    const hn::FixedTag<float, 4> four;
    hn::Store(hn::Set(four, absmax), four, values + 4 * place);
  }
};

/// Makes the tables for the chunk at input k of a weight whose outputs all begin with a block.
template <int kPlanes>
HWY_INLINE void fill_aligned(const Codes4& w, int64_t p, int64_t k, Tables4& tables) {
  Scales scales;
  const float* absmax = w.absmax_of(p) + k / w.block * kPanel;
  for (int64_t place = 0; place < kPanel; ++place) scales.put(place, absmax[Codes4::column(place)]);
  fill_tables<kPlanes>(w.code, w.half, scales.values, tables.values);
  tables.until = (k / w.block + 1) * w.block;
}

/// The same for any weight. bounds: by place, 16 times each, the input of the chunk at which the next block
/// begins (kChunk4 or more: none does). True when one does; then tables.next are those of the next blocks,
/// and the tables hold for this chunk only.
template <int kPlanes>
bool fill_unaligned(const Codes4& w, int64_t p, int64_t k, Tables4& tables, uint8_t* bounds) {
  Scales scales, next;
  const float* absmax = w.absmax_of(p);
  const int64_t mask = w.block - 1;  // a power of two
  const int shift = std::countr_zero(static_cast<uint64_t>(w.block));
  int64_t nearest = w.block;
  for (int64_t place = 0; place < kPanel; ++place) {
    const int64_t column = Codes4::column(place), at = ((p * kPanel + column) * w.in & mask) + k;
    const int64_t slot = std::min(at >> shift, w.slots - 1), bound = w.block - (at & mask);
    scales.put(place, absmax[slot * kPanel + column]);
    next.put(place, absmax[std::min(slot + 1, w.slots - 1) * kPanel + column]);
    std::fill_n(bounds + kPlace * place, kPlace, static_cast<uint8_t>(std::min(bound, kChunk4)));
    nearest = std::min(nearest, bound);
  }
  fill_tables<kPlanes>(w.code, w.half, scales.values, tables.values);
  tables.until = nearest < kChunk4 ? k : k + nearest;
  if (nearest >= kChunk4) return false;
  fill_tables<kPlanes>(w.code, w.half, next.values, tables.next);
  return true;
}

template <typename T>
HWY_INLINE void decode_chunks(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables,
                              T* panel) {
  constexpr int kPlanes = sizeof(T);
  const bool aligned = w.in % w.block == 0;
  HWY_ALIGN uint8_t bounds[kPanel * kPlace];
  for (int64_t k = begin; k < end; k += kChunk4) {
    const uint8_t* codes = w.chunk(p, k / kChunk4);
    for (int64_t line = 0; line < 4 * kGroup; line += 64) hwy::Prefetch(codes + kAhead4 + line);
    auto* to = reinterpret_cast<uint32_t*>(panel + (k - begin) * kPanel);
    bool crossing = false;
    if (k + kChunk4 > tables.until) {
      if (aligned)
        fill_aligned<kPlanes>(w, p, k, tables);
      else
        crossing = fill_unaligned<kPlanes>(w, p, k, tables, bounds);
    }
    if (crossing)
      decode_chunk<kPlanes>(TwoBlocks{tables.values, tables.next, bounds}, codes, to);
    else
      decode_chunk<kPlanes>(OneBlock{tables.values}, codes, to);
  }
}

#endif  // HWY_SCALAR

void DecodeWide(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, float* panel) {
  decode_chunks(w, p, begin, end, tables, panel);
}

void DecodeNarrow(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, uint16_t* panel) {
  decode_chunks(w, p, begin, end, tables, panel);
}

}  // namespace nibble::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::kernels {

HWY_EXPORT(DecodeWide);
HWY_EXPORT(DecodeNarrow);

void decode_panel4(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, float* panel) {
  HWY_DYNAMIC_DISPATCH(DecodeWide)(w, p, begin, end, tables, panel);
  if (end > w.in) std::fill_n(panel + (w.in - begin) * kPanel, (end - w.in) * kPanel, 0.0f);
}

void decode_panel4(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, uint16_t* panel) {
  HWY_DYNAMIC_DISPATCH(DecodeNarrow)(w, p, begin, end, tables, panel);
  // Two inputs lie side by side.
  for (int64_t k = w.in; k < end; ++k) {
    uint16_t* row = panel + (k - begin) / 2 * 2 * kPanel + k % 2;
    for (int64_t c = 0; c < kPanel; ++c) row[2 * c] = 0;
  }
}

}  // namespace nibble::kernels
#endif
