// Scans over whole tensors: the largest magnitude, and the sums of the weight error.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/scan_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/load-inl.h"
#include "quant/simd.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// T: int16_t or int32_t; values without their sign bit are never negative, so signed maxima are enough.
template <class T>
uint32_t largest(const std::byte* data, int64_t n) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr T kMagnitude = static_cast<T>(sizeof(T) == 2 ? 0x7fff : 0x7fffffff);
  const auto magnitude = hn::Set(d, kMagnitude);
  auto even = hn::Zero(d), odd = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    even = hn::Max(even, hn::And(load_bytes(d, data + static_cast<size_t>(i) * sizeof(T)), magnitude));
    odd = hn::Max(odd, hn::And(load_bytes(d, data + static_cast<size_t>(i + lanes) * sizeof(T)), magnitude));
  }
  T result = hn::GetLane(hn::MaxOfLanes(d, hn::Max(even, odd)));
  for (; i < n; ++i) {
    T value;
    std::memcpy(&value, data + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    value = static_cast<T>(value & kMagnitude);
    result = value > result ? value : result;
  }
  return static_cast<uint32_t>(result);
}

uint32_t largest_magnitude(const std::byte* data, DType dtype, int64_t n) {
  return dtype == DType::f32 ? largest<int32_t>(data, n) : largest<int16_t>(data, n);
}

/// Term i goes to running sum i mod 8, on every instruction set; the total adds the eight in pairs.
template <class LoadW, class LoadQ>
HWY_INLINE Norms norms(const std::byte* w, const std::byte* q, int64_t n) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  const hn::CappedTag<float, 1> d1;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t whole = n / 8 * 8;
  HWY_ALIGN double error[8], original[8];
  for (int64_t lane = 0; lane < 8; lane += lanes) {
    auto e = hn::Zero(d), o = hn::Zero(d);
    for (int64_t i = lane; i < whole; i += 8) {
      const auto at = static_cast<size_t>(i);
      const auto wi = hn::PromoteTo(d, LoadW::load(df, w + at * LoadW::kSize));
      const auto diff = hn::Sub(wi, hn::PromoteTo(d, LoadQ::load(df, q + at * LoadQ::kSize)));
      e = hn::Add(e, hn::Mul(diff, diff));
      o = hn::Add(o, hn::Mul(wi, wi));
    }
    hn::StoreU(e, d, error + lane);
    hn::StoreU(o, d, original + lane);
  }
  for (int64_t i = whole; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    const double wi = hn::GetLane(LoadW::load(d1, w + at * LoadW::kSize));
    const double diff = wi - static_cast<double>(hn::GetLane(LoadQ::load(d1, q + at * LoadQ::kSize)));
    error[i - whole] += diff * diff;
    original[i - whole] += wi * wi;
  }
  const auto total = [](const double* s) {
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  };
  return {total(error), total(original), 0};
}

template <class LoadW, class LoadQ>
Norms range_norms(const std::byte* w, const std::byte* q, int64_t block, int64_t n) {
  Norms sum;
  for (int64_t begin = 0; begin < n; begin += block) {
    const auto at = static_cast<size_t>(begin);
    const Norms one = norms<LoadW, LoadQ>(w + at * LoadW::kSize, q + at * LoadQ::kSize,
                                          n - begin < block ? n - begin : block);
    sum.error += one.error;
    sum.original += one.original;
    const double ratio = one.error == 0 ? 0 : std::sqrt(one.error / one.original);
    if (ratio > sum.largest_block) sum.largest_block = ratio;
  }
  return sum;
}

Norms block_norms(const std::byte* original, DType original_type, const std::byte* decoded,
                  DType decoded_type, int64_t block, int64_t n) {
  return with_loader(original_type, [&](auto w) {
    return with_loader(decoded_type, [&](auto q) {
      return range_norms<decltype(w), decltype(q)>(original, decoded, block, n);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quant::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::quant::simd {

HWY_EXPORT(largest_magnitude);
HWY_EXPORT(block_norms);

namespace {

void check_type(DType dtype) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16, "weights of {}",
               dtype_name(dtype));
}

}  // namespace

uint32_t largest_magnitude(const std::byte* data, DType dtype, int64_t n) {
  check_type(dtype);
  return HWY_DYNAMIC_DISPATCH(largest_magnitude)(data, dtype, n);
}

Norms block_norms(const std::byte* original, DType original_type, const std::byte* decoded,
                  DType decoded_type, int64_t block, int64_t n) {
  check_type(original_type);
  check_type(decoded_type);
  return HWY_DYNAMIC_DISPATCH(block_norms)(original, original_type, decoded, decoded_type, block, n);
}

}  // namespace nibble::quant::simd
#endif
