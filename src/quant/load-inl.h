// Loads of f32, bf16 and f16 as vectors of fp32, once per instruction set (included again for each).
#if defined(NIBBLE_QUANT_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_QUANT_LOAD_INL_H_
#undef NIBBLE_QUANT_LOAD_INL_H_
#else
#define NIBBLE_QUANT_LOAD_INL_H_
#endif

#include <hwy/highway.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quant::simd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static_assert(std::endian::native == std::endian::little);

/// A vector from p, which need not be aligned even for one element.
template <class D>
HWY_INLINE hn::Vec<D> load_bytes(D d, const std::byte* p) {
#if HWY_TARGET == HWY_SCALAR
  hn::TFromD<D> value;
  std::memcpy(&value, p, sizeof(value));
  return hn::Set(d, value);
#else
  return hn::LoadU(d, reinterpret_cast<const hn::TFromD<D>*>(p));
#endif
}

struct LoadF32 {
  static constexpr DType kType = DType::f32;
  static constexpr size_t kSize = 4;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const std::byte* p) {
    return load_bytes(d, p);
  }
};

struct LoadBf16 {
  static constexpr DType kType = DType::bf16;
  static constexpr size_t kSize = 2;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const std::byte* p) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    const auto bits = load_bytes(d16, p);
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  }
};

struct LoadF16 {
  static constexpr DType kType = DType::f16;
  static constexpr size_t kSize = 2;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const std::byte* p) {
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = load_bytes(d16, p);
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
    // Without F16C; Highway's own replacement knows no infinity and no NaN.
    const hn::Rebind<uint32_t, D> d32;
    const auto half = hn::PromoteTo(d32, bits);
    const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(d32, 0x7fffu)));
    const auto rebased = hn::Add(magnitude, hn::Set(d32, 112u << 23));
    // Subnormals: with the exponent of 2^-14 in place of none, then less 2^-14.
    const auto least = hn::Set(d32, 113u << 23);
    const auto subnormal = hn::Sub(hn::BitCast(d, hn::Add(magnitude, least)), hn::BitCast(d, least));
    auto result =
        hn::IfThenElse(hn::Gt(hn::Set(d32, 1u << 23), magnitude), hn::BitCast(d32, subnormal), rebased);
    const auto infinite = hn::Gt(magnitude, hn::Set(d32, (31u << 23) - 1));
    result = hn::IfThenElse(infinite, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)), result);
    return hn::BitCast(d, hn::Or(result, hn::ShiftLeft<16>(hn::And(half, hn::Set(d32, 0x8000u)))));
#else
    const hn::Rebind<hwy::float16_t, D> d_half;
    return hn::PromoteTo(d, hn::BitCast(d_half, bits));
#endif
  }
};

/// Calls f with the loader of `dtype` (f32, bf16 or f16).
template <class F>
HWY_INLINE auto with_loader(DType dtype, const F& f) {
  if (dtype == DType::bf16) return f(LoadBf16());
  if (dtype == DType::f16) return f(LoadF16());
  return f(LoadF32());
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quant::simd
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
