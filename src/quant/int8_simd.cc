// Rounding of a row to 8 bits: two passes, the first for the absmax, the second for the codes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/int8_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "quant/load-inl.h"
#include "quant/simd.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Rows8Float = hn::CappedTag<float, 16>;
using Rows8Int = hn::RebindToSigned<Rows8Float>;

/// Bits of a magnitude (no sign) rounded to the precision of fp16, to nearest even, still as fp32; 65520 and
/// more give infinity, a NaN stays one.
HWY_INLINE hn::Vec<Rows8Int> round_to_half(hn::Vec<Rows8Int> magnitude) {
  const Rows8Float df;
  const Rows8Int di;
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 1));
  const auto sum = hn::Add(magnitude, hn::Add(hn::Set(di, 0xfff), odd));
  auto result = hn::And(sum, hn::Set(di, ~0x1fff));
  // Below the smallest normal of fp16 a sum with 1/2 has the spacing of its subnormals.
  const auto half = hn::Set(df, 0.5f);
  const auto subnormal = hn::Sub(hn::Add(hn::BitCast(df, magnitude), half), half);
  result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x38800000)), hn::BitCast(di, subnormal), result);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x477fefff)), hn::Set(di, 0x7f800000), result);
  return hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x7f800000)), magnitude, result);
}

/// Calls f(first element, its fp16-rounded magnitudes as fp32 bits, signs, number of elements) over the row;
/// past the end the last vector holds zeros.
template <class Loader, class F>
HWY_INLINE void for_each_vector(const std::byte* x, int64_t n, const F& f) {
  const Rows8Float df;
  const Rows8Int di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(df));
  const auto pass = [&](int64_t i, const std::byte* at, int64_t count) HWY_ATTR {
    const auto bits = hn::BitCast(di, Loader::load(df, at));
    const auto magnitude = hn::And(bits, hn::Set(di, 0x7fffffff));
    f(i, round_to_half(magnitude), hn::AndNot(hn::Set(di, 0x7fffffff), bits), count);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) pass(i, x + i * static_cast<int64_t>(Loader::kSize), lanes);
  if (i == n) return;
  HWY_ALIGN std::byte rest[Loader::kSize * hn::MaxLanes(df)] = {};
  std::memcpy(rest, x + i * static_cast<int64_t>(Loader::kSize), static_cast<size_t>(n - i) * Loader::kSize);
  pass(i, rest, n - i);
}

template <class Loader>
float encode_row(const std::byte* x, int64_t n, float threshold, int8_t* codes, uint8_t* outliers) {
  const Rows8Float df;
  const Rows8Int di;
  const hn::Rebind<int8_t, Rows8Float> d8;
  const auto infinity = hn::Set(di, 0x7f800000);
  const auto reached = hn::Set(di, threshold > 0 ? std::bit_cast<int32_t>(threshold) : 0x7fffffff);
  // Magnitudes order like their bits; a NaN is above infinity and no outlier.
  const auto is_outlier = [&](hn::Vec<Rows8Int> magnitude) HWY_ATTR {
    return hn::AndNot(hn::Gt(magnitude, infinity), hn::Not(hn::Gt(reached, magnitude)));
  };
  auto largest = hn::Zero(di);
  for_each_vector<Loader>(
      x, n, [&](int64_t i, hn::Vec<Rows8Int> magnitude, hn::Vec<Rows8Int>, int64_t count) HWY_ATTR {
        const auto mask = is_outlier(magnitude);
        largest = hn::Max(largest, hn::IfThenZeroElse(mask, magnitude));
        if (threshold > 0 && !hn::AllFalse(di, mask)) {
          HWY_ALIGN int32_t marks[hn::MaxLanes(di)];
          hn::Store(hn::VecFromMask(di, mask), di, marks);
          for (int64_t k = 0; k < count; ++k)
            if (marks[k] != 0) outliers[i + k] = 1;
        }
      });
  const auto absmax = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(di, largest)));
  if (!(absmax > 0 && absmax < std::numeric_limits<float>::infinity())) {
    std::fill_n(codes, n, int8_t{0});
    return absmax;
  }
  const auto scale = hn::Set(df, 1 / absmax * 127);
  const auto lanes = static_cast<int64_t>(hn::Lanes(df));
  for_each_vector<Loader>(
      x, n, [&](int64_t i, hn::Vec<Rows8Int> magnitude, hn::Vec<Rows8Int> sign, int64_t count) HWY_ATTR {
        const auto inlier = hn::IfThenZeroElse(is_outlier(magnitude), magnitude);
        const auto value = hn::BitCast(df, hn::Or(inlier, sign));
        const auto code = hn::DemoteTo(d8, hn::NearestInt(hn::Mul(value, scale)));
        if (count == lanes) return hn::StoreU(code, d8, codes + i);
        HWY_ALIGN int8_t rest[hn::MaxLanes(df)];
        hn::Store(code, d8, rest);
        for (int64_t k = 0; k < count; ++k) codes[i + k] = rest[k];
      });
  return absmax;
}

float encode_row8(const std::byte* x, DType dtype, int64_t n, float threshold, int8_t* codes,
                  uint8_t* outliers) {
  return with_loader(dtype, [&](auto loader) HWY_ATTR {
    return encode_row<decltype(loader)>(x, n, threshold, codes, outliers);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quant::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::quant::simd {

HWY_EXPORT(encode_row8);

float encode_row8(const std::byte* x, DType dtype, int64_t n, float threshold, int8_t* codes,
                  uint8_t* outliers) {
  return HWY_DYNAMIC_DISPATCH(encode_row8)(x, dtype, n, threshold, codes, outliers);
}

}  // namespace nibble::quant::simd
#endif
