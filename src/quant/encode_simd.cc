// Encoding of full blocks: absmax by integer comparison of fp32 bits, codes by a search in the sorted
// thresholds.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/encode_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <type_traits>

#include "quant/load-inl.h"
#include "quant/ref.h"
#include "quant/simd.h"
#include "quant/tables.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// A block the loops do not cover: read as fp32 and left to the reference.
inline float encode_plain(const std::byte* x, DType dtype, Format format, int64_t block, uint8_t* codes) {
  std::array<float, 4096> values;
  const TensorView view{dtype, {block}, x};
  for (int64_t i = 0; i < block; ++i) values[static_cast<size_t>(i)] = ref::element(view, i);
  return ref::encode_block({values.data(), static_cast<size_t>(block)}, format, codes);
}

#if HWY_TARGET == HWY_SCALAR

void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax) {
  for (int64_t b = 0; b < blocks; ++b)
    absmax[b] =
        encode_plain(weight + b * block * dtype_size(dtype), dtype, format, block, codes + b * block / 2);
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
  explicit Ranks(const std::array<float, kThresholds>& thresholds) {
    std::fill_n(table_, 16, std::numeric_limits<float>::infinity());
    std::copy(thresholds.begin(), thresholds.end(), table_);
  }

  /// guess: p(y) in which p(t[k]) lies between k and k + 1 for every threshold, less one half.
  HWY_INLINE VI find(VF y, VF guess) const {
    const DF df;
    const DI di;
    if constexpr (kLookup) {
      // The low bits of guess + 1.5 * 2^23 are the nearest whole number.
      const VF shifted = hn::Add(guess, hn::Set(df, 12582912.0f));
      const VI low = hn::And(hn::BitCast(di, shifted), hn::Set(di, 15));
      return hn::Add(low, above(y, lookup(low)));
    } else {
      VI rank = hn::Zero(di);
      for (size_t k = 0; k < kThresholds; ++k) rank = hn::Add(rank, above(y, hn::Set(df, table_[k])));
      return rank;
    }
  }

 private:
  static constexpr bool kLookup = !HWY_HAVE_SCALABLE && hn::MaxLanes(DF()) >= 8;

  static HWY_INLINE VI above(VF y, VF threshold) {
    const DI di;
    return hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(y, threshold)), hn::Set(di, 1));
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

  Ranks<15> ranks_{kNf4Thresholds};
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
    const VF slope = hn::MulAdd(hn::Set(df, -5.0f), magnitude, hn::Set(df, 11.6f));
    return ranks_.find(magnitude, hn::MulAdd(slope, magnitude, hn::Set(df, 0.42f - 0.5f)));
  }

  static HWY_INLINE VI sign(VF y, int32_t bit) {
    const DI di;
    return hn::IfThenElseZero(hn::RebindMask(di, hn::Lt(y, hn::Zero(DF()))), hn::Set(di, bit));
  }

  Ranks<7> ranks_{kFp4Thresholds};
};

/// The largest magnitude of a block; infinite or NaN when an element is.
template <class Load>
HWY_INLINE float absmax_of(const std::byte* x, int64_t block) {
  using T = std::conditional_t<Load::kSize == 2, int16_t, int32_t>;
  const hn::CappedTag<T, 32> d;  // as many as the smallest block has
  const auto magnitude = hn::Set(d, std::numeric_limits<T>::max());
  auto largest = hn::Zero(d);
  for (int64_t i = 0; i < block; i += static_cast<int64_t>(hn::Lanes(d)))
    largest = hn::Max(largest, hn::And(load_bytes(d, x + static_cast<size_t>(i) * Load::kSize), magnitude));
  const T bits = hn::GetLane(hn::MaxOfLanes(d, largest));
  if constexpr (std::is_same_v<Load, LoadF32>) return std::bit_cast<float>(bits);
  if constexpr (std::is_same_v<Load, LoadBf16>) return bf16_to_float(static_cast<uint16_t>(bits));
  return f16_to_float(static_cast<uint16_t>(bits));
}

template <class Load, class Codes>
void encode(const std::byte* weight, Format format, int64_t block, int64_t blocks, uint8_t* codes,
            float* absmax) {
  const DF df;
  const hn::Rebind<uint8_t, DF> d8;
  const int64_t step = 2 * static_cast<int64_t>(hn::Lanes(df));
  const Codes coder;
  for (int64_t b = 0; b < blocks; ++b, codes += block / 2) {
    const std::byte* x = weight + static_cast<size_t>(b * block) * Load::kSize;
    absmax[b] = absmax_of<Load>(x, block);
    // Outside of these the reciprocal or an element is infinite or NaN.
    if (!(absmax[b] >= std::numeric_limits<float>::min() && absmax[b] <= std::numeric_limits<float>::max())) {
      absmax[b] = encode_plain(x, Load::kType, format, block, codes);
      continue;
    }
    const VF inverse = hn::Set(df, 1.0f / absmax[b]);
    for (int64_t i = 0; i < block; i += step) {
      VF even, odd;
      load_pairs<Load>(x + static_cast<size_t>(i) * Load::kSize, even, odd);
      const VI bytes = coder.pack(hn::Mul(even, inverse), hn::Mul(odd, inverse));
      hn::StoreU(hn::DemoteTo(d8, bytes), d8, codes + i / 2);
    }
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

void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax) {
  HWY_DYNAMIC_DISPATCH(encode_blocks)(weight, dtype, format, block, blocks, codes, absmax);
}

const char* target_name() {
  return HWY_DYNAMIC_DISPATCH(target_name)();
}

}  // namespace nibble::quant::simd
#endif
