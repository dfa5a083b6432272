// Encoding of full blocks: absmax by integer comparison of magnitudes, several blocks at once; codes by a
// guess and one exact comparison.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/encode_simd.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <limits>
#include <type_traits>

#include "base/error.h"
#include "quant/load-inl.h"
#include "quant/ref.h"
#include "quant/simd.h"
#include "quant/tables.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax) {
  for (int64_t b = 0; b < blocks; ++b)
    absmax[b] = encode_plain_block(weight + b * block * dtype_size(dtype), dtype, format, block,
                                   codes + b * block / 2);
}

#else

using DF = hn::CappedTag<float, 16>;
using DI = hn::Rebind<int32_t, DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;

/// Elements at p[0 .. 2 * Lanes), those of even and those of odd index apart.
template <class Load>
HWY_INLINE void load_pairs(const std::byte* p, VF& even, VF& odd) {
  const DF df;
  if constexpr (std::is_same_v<Load, LoadBf16>) {
    const hn::Rebind<uint32_t, DF> du;
    const auto bits = load_bytes(du, p);
    even = hn::BitCast(df, hn::ShiftLeft<16>(bits));
    odd = hn::BitCast(df, hn::And(bits, hn::Set(du, 0xffff0000u)));
  } else {
    const VF a = Load::load(df, p), b = Load::load(df, p + hn::Lanes(df) * Load::kSize);
    even = hn::ConcatEven(df, b, a);
    odd = hn::ConcatOdd(df, b, a);
  }
}

/// The number of thresholds below y, for |y| <= 1 + 2^-20. A polynomial names a rank that is right or one too
/// low, with a quarter to spare: the comparison with that rank's threshold decides. Vectors of less than
/// eight lanes have no lookup in 16 floats and count.
template <size_t kThresholds>
class Ranks {
 public:
  explicit Ranks(const float* thresholds) {
    for (size_t k = 0; k < 16; ++k)
      table_[k] = k < kThresholds ? thresholds[k] : std::numeric_limits<float>::infinity();
  }

  /// guess: p(y) in which p(t[k]) lies between k and k + 1 for every threshold, less one half.
  HWY_INLINE VI find(VF y, VF guess) const {
    const DF df;
    const DI di;
    if constexpr (kLookup) {
      // The low bits of guess + 1.5 * 2^23 are the nearest whole number.
      const VF shifted = hn::Add(guess, hn::Set(df, 12582912.0f));
      const VI low = hn::And(hn::BitCast(di, shifted), hn::Set(di, 15));
      return plus(low, y, lookup(low));
    } else {
      VI rank = hn::Zero(di);
      for (size_t k = 0; k < kThresholds; ++k) rank = plus(rank, y, hn::Set(df, table_[k]));
      return rank;
    }
  }

 private:
  static constexpr bool kLookup = !HWY_HAVE_SCALABLE && hn::MaxLanes(DF()) >= 8;

  /// rank + (y > threshold).
  static HWY_INLINE VI plus(VI rank, VF y, VF threshold) {
    const DI di;
    const auto above = hn::RebindMask(di, hn::Gt(y, threshold));
#if HWY_TARGET <= HWY_AVX3
    return hn::IfThenElse(above, hn::Add(rank, hn::Set(di, 1)), rank);
#else
    return hn::Sub(rank, hn::VecFromMask(di, above));
#endif
  }

  HWY_INLINE VF lookup(VI index) const {
    const DF df;
    const DI di;
    if constexpr (hn::MaxLanes(DF()) >= 16) {
      return hn::TableLookupLanes(hn::Load(df, table_), hn::IndicesFromVec(df, index));
    } else {
      const auto within = hn::IndicesFromVec(df, hn::And(index, hn::Set(di, 7)));
      const VF low = hn::TableLookupLanes(hn::Load(df, table_), within);
      const VF high = hn::TableLookupLanes(hn::Load(df, table_ + 8), within);
      return hn::IfThenElse(hn::RebindMask(df, hn::Gt(index, hn::Set(di, 7))), high, low);
    }
  }

  HWY_ALIGN float table_[16];
};

class Nf4Codes {
 public:
  /// Bytes of two codes each, in lanes of 32 bits.
  HWY_INLINE VI pack(VF even, VF odd) const { return hn::Or(hn::ShiftLeft<4>(code(even)), code(odd)); }

 private:
  HWY_INLINE VI code(VF y) const {
    const DF df;
    const VF slope = hn::MulAdd(hn::Set(df, -4.35f), hn::Mul(y, y), hn::Set(df, 11.32f));
    return ranks_.find(y, hn::MulAdd(slope, y, hn::Set(df, 7.27f - 0.5f)));
  }

  Ranks<15> ranks_{kNf4Thresholds.data()};
};

class Fp4Codes {
 public:
  HWY_INLINE VI pack(VF even, VF odd) const {
    const DI di;
    const VI ranks = hn::Or(hn::ShiftLeft<4>(rank(even)), rank(odd));
    // kFp4Ranks: ranks 2, 3 and 6, 7 change places.
    const VI codes = hn::Xor(ranks, hn::ShiftLeft<1>(hn::And(ranks, hn::Set(di, 0x22))));
    return hn::Or(codes, hn::Or(sign(even, 0x80), sign(odd, 0x08)));
  }

 private:
  HWY_INLINE VI rank(VF y) const {
    const DF df;
    const VF magnitude = hn::Abs(y);
    const VF slope = hn::MulAdd(hn::Set(df, -4.6f), magnitude, hn::Set(df, 11.2f));
    return ranks_.find(magnitude, hn::Mul(slope, magnitude));
  }

  static HWY_INLINE VI sign(VF y, int32_t bit) {
    const DI di;
    return hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(y, hn::Zero(DF()))), hn::Set(di, bit));
  }

  Ranks<7> ranks_{kFp4Thresholds.data()};
};

/// The magnitudes of 16 bytes of elements, as integers in the order of their values.
template <class Load>
using MagnitudeTag = hn::FixedTag<std::conditional_t<Load::kSize == 2, int16_t, int32_t>, 16 / Load::kSize>;

/// The lane by lane maximum of all parts of v of 128 bits.
template <class D, class V>
HWY_INLINE auto fold([[maybe_unused]] D d, V v) {
  if constexpr (hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) <= 16) {
    return v;
  } else {
    const hn::Half<D> half;
    return fold(half, hn::Max(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// The largest magnitudes of kBlocks consecutive blocks, repeated over a vector of 128 bits.
template <class Load, size_t kBlocks>
HWY_INLINE auto maxima(const std::byte* x, int64_t block) {
  using D128 = MagnitudeTag<Load>;
  using T = hn::TFromD<D128>;
  if constexpr (kBlocks == 1) {
    const std::conditional_t<HWY_HAVE_SCALABLE, D128, hn::CappedTag<T, 64 / sizeof(T)> > d;
    const auto magnitude = hn::Set(d, std::numeric_limits<T>::max());
    auto largest = hn::Zero(d);
    for (int64_t i = 0; i < block; i += static_cast<int64_t>(hn::Lanes(d)))
      largest = hn::Max(largest, hn::And(load_bytes(d, x + static_cast<size_t>(i) * sizeof(T)), magnitude));
    return fold(d, largest);
  } else {
    // Parts of kBlocks / 2 maxima of the first half of the blocks, side by side with those of the second.
    const D128 d;
    const hn::Repartition<hwy::UnsignedFromSize<sizeof(T) * kBlocks / 2>, D128> parts;
    const std::byte* second = x + kBlocks / 2 * static_cast<size_t>(block) * sizeof(T);
    const auto a = hn::BitCast(parts, maxima<Load, kBlocks / 2>(x, block));
    const auto b = hn::BitCast(parts, maxima<Load, kBlocks / 2>(second, block));
    return hn::Max(hn::BitCast(d, hn::InterleaveLower(parts, a, b)),
                   hn::BitCast(d, hn::InterleaveUpper(parts, a, b)));
  }
}

/// Blocks whose absmax values are found together.
template <class Load>
inline constexpr int64_t kGroup = 16 / Load::kSize;

/// The absmax values of a group of blocks, and their reciprocals.
template <class Load>
HWY_INLINE void scales(const std::byte* x, int64_t block, float* absmax, float* inverse) {
  const hn::FixedTag<float, 4> d;
  const MagnitudeTag<Load> magnitudes;
  HWY_ALIGN hn::TFromD<MagnitudeTag<Load> > largest[kGroup<Load>];
  hn::Store(maxima<Load, kGroup<Load> >(x, block), magnitudes, largest);
  for (size_t i = 0; i < kGroup<Load>; i += 4) {
    const auto v = Load::load(d, reinterpret_cast<const std::byte*>(largest + i));
    hn::StoreU(v, d, absmax + i);
    hn::StoreU(hn::Div(hn::Set(d, 1.0f), v), d, inverse + i);
  }
}

/// Stores the low bytes of a, then those of b.
HWY_INLINE void store_bytes(VI a, VI b, uint8_t* to) {
#if HWY_HAVE_SCALABLE
  const hn::Rebind<uint8_t, DI> d8;
  hn::StoreU(hn::DemoteTo(d8, a), d8, to);
  hn::StoreU(hn::DemoteTo(d8, b), d8, to + hn::Lanes(d8));
#else
  const hn::Repartition<int16_t, DI> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const hn::Repartition<uint32_t, decltype(d8)> d32;
  // Four bytes of a and four of b by turns, unless a vector has four lanes.
  const auto mixed = hn::BitCast(d32, hn::DemoteTo(d8, hn::ReorderDemote2To(d16, a, b)));
  if constexpr (hn::MaxLanes(DI()) == 4) {
    hn::StoreU(hn::BitCast(d8, mixed), d8, to);
  } else {
    constexpr bool kWide = hn::MaxLanes(DI()) == 16;
    HWY_ALIGN static constexpr uint32_t kOrder[8] = {0, 2, kWide ? 4 : 1, kWide ? 6 : 3, 1, 3, 5, 7};
    const auto in_order = hn::TableLookupLanes(mixed, hn::SetTableIndices(d32, kOrder));
    hn::StoreU(hn::BitCast(d8, in_order), d8, to);
  }
#endif
}

constexpr size_t kAhead = 4096;  // bytes

template <class Load, class Codes>
void encode(const std::byte* weight, Format format, int64_t block, int64_t blocks, uint8_t* codes,
            float* absmax) {
  const DF df;
  const auto lanes = static_cast<int64_t>(hn::Lanes(df));
  const Codes coder;
  HWY_ALIGN float inverse[kGroup<Load>];
  for (int64_t b = 0; b < blocks; ++b, codes += block / 2) {
    const std::byte* x = weight + static_cast<size_t>(b * block) * Load::kSize;
    const int64_t in_group = b % kGroup<Load>;
    // The hardware does not see far enough ahead across the two passes over a group.
    for (size_t line = 0; line < static_cast<size_t>(block) * Load::kSize; line += 64)
      hwy::Prefetch(x + kAhead + line);
    const bool whole = b - in_group + kGroup<Load> <= blocks && block >= 4 * lanes;
    if (whole && in_group == 0) scales<Load>(x, block, absmax + b, inverse);
    if (whole && absmax[b] == 0) {
      for (int64_t i = 0; i < block / 2; ++i) codes[i] = 0;
      continue;
    }
    // Outside of these the reciprocal or an element is infinite or NaN.
    constexpr float kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
    if (!whole || !(absmax[b] >= kLeast && absmax[b] <= kMost)) {
      absmax[b] = encode_plain_block(x, Load::kType, format, block, codes);
      continue;
    }
    const VF scale = hn::Set(df, inverse[in_group]);
    const auto pack = [&](int64_t at) HWY_ATTR {
      VF even, odd;
      load_pairs<Load>(x + static_cast<size_t>(at) * Load::kSize, even, odd);
      return coder.pack(hn::Mul(even, scale), hn::Mul(odd, scale));
    };
    for (int64_t i = 0; i < block; i += 4 * lanes) store_bytes(pack(i), pack(i + 2 * lanes), codes + i / 2);
  }
}

template <class Load>
void encode(const std::byte* weight, Format format, int64_t block, int64_t blocks, uint8_t* codes,
            float* absmax) {
  if (format == Format::nf4)
    encode<Load, Nf4Codes>(weight, format, block, blocks, codes, absmax);
  else
    encode<Load, Fp4Codes>(weight, format, block, blocks, codes, absmax);
}

void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax) {
  with_loader(dtype,
              [&](auto loader) { encode<decltype(loader)>(weight, format, block, blocks, codes, absmax); });
}

#endif  // HWY_SCALAR

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quant::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::quant::simd {

HWY_EXPORT(encode_blocks);
HWY_EXPORT(target_name);

float encode_plain_block(const std::byte* x, DType dtype, Format format, int64_t block, uint8_t* codes) {
  const TensorView view{dtype, {block}, x};
  std::vector<float> values;
  for (int64_t i = 0; i < block; ++i) values.push_back(ref::element(view, i));
  return ref::encode_block(values, format, codes);
}

void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16, "4-bit formats of {}",
               dtype_name(dtype));
  HWY_DYNAMIC_DISPATCH(encode_blocks)(weight, dtype, format, block, blocks, codes, absmax);
}

const char* target_name() {
  return HWY_DYNAMIC_DISPATCH(target_name)();
}

}  // namespace nibble::quant::simd
#endif
