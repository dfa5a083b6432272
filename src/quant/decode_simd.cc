// Decoding of full blocks: the 16 values of a block are computed and rounded once, split into planes of
// bytes, and looked up by nibble with byte shuffles of 128 bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/decode_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "quant/simd.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void decode_blocks(const uint8_t* codes, const float* absmax, const float* code, int64_t block,
                   int64_t blocks, DType dtype, std::byte* target) {
  for (int64_t i = 0; i < blocks * block; ++i) {
    const int nibble = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
    const float value = code[nibble] * absmax[i / block];
    from_float({&value, 1}, dtype, target + i * dtype_size(dtype));
  }
}

#else

using DF = hn::CappedTag<float, 16>;
using DU = hn::Rebind<uint32_t, DF>;
using VU = hn::Vec<DU>;
using D8 = hn::FixedTag<uint8_t, 16>;
using D16 = hn::FixedTag<uint16_t, 8>;
using V8 = hn::Vec<D8>;
using V16 = hn::Vec<D16>;

// The roundings of tensor/dtype.h on fp32 bits. kPlanes: bytes of a rounded value.

struct ToF32 {
  static constexpr size_t kPlanes = 4;
  static HWY_INLINE VU round(VU bits) { return bits; }
};

struct ToBf16 {
  static constexpr size_t kPlanes = 2;
  static HWY_INLINE VU round(VU bits) {
    const DU du;
    const VU high = hn::ShiftRight<16>(bits);
    const VU odd = hn::And(high, hn::Set(du, 1u));
    const VU rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
    const auto nan = hn::Gt(hn::And(bits, hn::Set(du, 0x7fffffffu)), hn::Set(du, 0x7f800000u));
    return hn::IfThenElse(nan, hn::Or(high, hn::Set(du, 0x40u)), rounded);
  }
};

struct ToF16 {
  static constexpr size_t kPlanes = 2;
  static HWY_INLINE VU round(VU bits) {
    const DF df;
    const DU du;
    const VU sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
    const VU magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
    const VU rebased = hn::Sub(magnitude, hn::Set(du, 112u << 23));
    const VU odd = hn::And(hn::ShiftRight<13>(rebased), hn::Set(du, 1u));
    VU result = hn::ShiftRight<13>(hn::Add(hn::Add(rebased, hn::Set(du, 0xfffu)), odd));
    // Below the smallest normal the sum with 1/2 aligns the mantissa and rounds to even.
    const VU sum = hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f)));
    result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x38800000u)),
                            hn::Sub(sum, hn::Set(du, 0x3f000000u)), result);
    const auto large = hn::Gt(magnitude, hn::Set(du, 0x477fefffu));
    result = hn::IfThenElse(large, hn::Set(du, 0x7c00u), result);
    const VU payload = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x3ffu));
    const auto nan = hn::Gt(magnitude, hn::Set(du, 0x7f800000u));
    return hn::Or(sign, hn::IfThenElse(nan, hn::Or(hn::Set(du, 0x7e00u), payload), result));
  }
};

/// planes[p][c] = byte p of the rounded value of code c.
template <class To>
HWY_INLINE void fill_planes(const float* code, float absmax, uint8_t (*planes)[16]) {
  const DF df;
  const DU du;
  const hn::Rebind<int32_t, DF> di;
  const hn::Rebind<uint8_t, DF> d8;
  const VU byte = hn::Set(du, 0xffu);
  const auto store = [&](VU bits, uint8_t* to) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, hn::And(bits, byte))), d8, to);
  };
  for (size_t c = 0; c < 16; c += hn::Lanes(df)) {
    const VU rounded = To::round(hn::BitCast(du, hn::Mul(hn::LoadU(df, code + c), hn::Set(df, absmax))));
    store(rounded, planes[0] + c);
    store(hn::ShiftRight<8>(rounded), planes[1] + c);
    if constexpr (To::kPlanes == 4) {
      store(hn::ShiftRight<16>(rounded), planes[2] + c);
      store(hn::ShiftRight<24>(rounded), planes[3] + c);
    }
  }
}

/// 16-bit values of 32 elements in order, four vectors, from their nibbles and two planes.
struct Words {
  V16 v0, v1, v2, v3;

  HWY_INLINE Words(V8 high_nibbles, V8 low_nibbles, V8 low_plane, V8 high_plane) {
    const D8 d8;
    const D16 d16;
    const V8 even_low = hn::TableLookupBytes(low_plane, high_nibbles);
    const V8 even_high = hn::TableLookupBytes(high_plane, high_nibbles);
    const V8 odd_low = hn::TableLookupBytes(low_plane, low_nibbles);
    const V8 odd_high = hn::TableLookupBytes(high_plane, low_nibbles);
    const V16 even0 = hn::BitCast(d16, hn::InterleaveLower(d8, even_low, even_high));
    const V16 even1 = hn::BitCast(d16, hn::InterleaveUpper(d8, even_low, even_high));
    const V16 odd0 = hn::BitCast(d16, hn::InterleaveLower(d8, odd_low, odd_high));
    const V16 odd1 = hn::BitCast(d16, hn::InterleaveUpper(d8, odd_low, odd_high));
    v0 = hn::InterleaveLower(d16, even0, odd0);
    v1 = hn::InterleaveUpper(d16, even0, odd0);
    v2 = hn::InterleaveLower(d16, even1, odd1);
    v3 = hn::InterleaveUpper(d16, even1, odd1);
  }
};

HWY_INLINE void store_f32(V16 low, V16 high, uint16_t* to) {
  const D16 d16;
  hn::StoreU(hn::InterleaveLower(d16, low, high), d16, to);
  hn::StoreU(hn::InterleaveUpper(d16, low, high), d16, to + 8);
}

template <class To>
void decode(const uint8_t* codes, const float* absmax, const float* code, int64_t block, int64_t blocks,
            std::byte* target) {
  const D8 d8;
  const D16 d16;
  HWY_ALIGN uint8_t planes[To::kPlanes][16];
  auto* out = reinterpret_cast<uint16_t*>(target);
  for (int64_t b = 0; b < blocks; ++b) {
    fill_planes<To>(code, absmax[b], planes);
    const V8 p0 = hn::Load(d8, planes[0]), p1 = hn::Load(d8, planes[1]);
    for (int64_t i = 0; i < block; i += 32, codes += 16, out += 16 * To::kPlanes) {
      const V8 bytes = hn::LoadU(d8, codes);
      const V8 high = hn::ShiftRight<4>(bytes), low = hn::And(bytes, hn::Set(d8, 0x0f));
      const Words words(high, low, p0, p1);
      if constexpr (To::kPlanes == 2) {
        hn::StoreU(words.v0, d16, out);
        hn::StoreU(words.v1, d16, out + 8);
        hn::StoreU(words.v2, d16, out + 16);
        hn::StoreU(words.v3, d16, out + 24);
      } else {
        const Words upper(high, low, hn::Load(d8, planes[2]), hn::Load(d8, planes[3]));
        store_f32(words.v0, upper.v0, out);
        store_f32(words.v1, upper.v1, out + 16);
        store_f32(words.v2, upper.v2, out + 32);
        store_f32(words.v3, upper.v3, out + 48);
      }
    }
  }
}

void decode_blocks(const uint8_t* codes, const float* absmax, const float* code, int64_t block,
                   int64_t blocks, DType dtype, std::byte* target) {
  if (dtype == DType::bf16) return decode<ToBf16>(codes, absmax, code, block, blocks, target);
  if (dtype == DType::f16) return decode<ToF16>(codes, absmax, code, block, blocks, target);
  decode<ToF32>(codes, absmax, code, block, blocks, target);
}

#endif  // HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quant::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::quant::simd {

HWY_EXPORT(decode_blocks);

void decode_blocks(const uint8_t* codes, const float* absmax, const float* code, int64_t block,
                   int64_t blocks, DType dtype, std::byte* target) {
  HWY_DYNAMIC_DISPATCH(decode_blocks)(codes, absmax, code, block, blocks, dtype, target);
}

}  // namespace nibble::quant::simd
#endif
