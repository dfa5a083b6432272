#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

namespace nibble {
namespace {

/// A 16-bit float as IEEE 754 defines it, with powers of two alone: mantissa bits, and the exponent of one
/// ulp of the subnormals.
struct Half {
  int mantissa_bits;
  int exponent_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }

  /// The value of a finite magnitude (sign bit clear). Exact in double.
  double value(uint32_t bits) const {
    const int exponent = static_cast<int>(bits >> mantissa_bits);
    const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias() - mantissa_bits);
    return std::ldexp(mantissa + (1u << mantissa_bits), exponent - bias() - mantissa_bits);
  }

  /// The magnitude that is nearest to a finite non-negative value, by search; a tie goes to the even one. The
  /// infinity stands in the row of values where the next finite one would.
  uint32_t round(double v) const {
    uint32_t low = 0, high = infinity();
    while (high - low > 1) {
      const uint32_t middle = (low + high) / 2;
      (value(middle) <= v ? low : high) = middle;
    }
    const double above = high == infinity() ? std::ldexp(1.0, bias() + 1) : value(high);
    const double down = v - value(low), up = above - v;
    if (down == up) return low % 2 == 0 ? low : high;
    return down < up ? low : high;
  }
};
constexpr Half kF16{10, 5}, kBf16{7, 8};

TEST(F16, ToFloatOfAllBits) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float got = f16_to_float(static_cast<uint16_t>(bits));
    const uint32_t magnitude = bits & 0x7fffu;
    EXPECT_EQ(std::signbit(got), bits >= 0x8000u) << bits;
    if (magnitude > kF16.infinity())
      EXPECT_TRUE(std::isnan(got)) << bits;
    else if (magnitude == kF16.infinity())
      EXPECT_TRUE(std::isinf(got)) << bits;
    else
      EXPECT_EQ(std::fabs(got), kF16.value(magnitude)) << bits;
  }
}

TEST(Bf16, ToFloatOfAllBits) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float got = bf16_to_float(static_cast<uint16_t>(bits));
    const uint32_t magnitude = bits & 0x7fffu;
    EXPECT_EQ(std::signbit(got), bits >= 0x8000u) << bits;
    if (magnitude > kBf16.infinity())
      EXPECT_TRUE(std::isnan(got)) << bits;
    else if (magnitude == kBf16.infinity())
      EXPECT_TRUE(std::isinf(got)) << bits;
    else
      EXPECT_EQ(std::fabs(got), kBf16.value(magnitude)) << bits;
  }
}

TEST(F16, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if ((bits & 0x7fffu) > 0x7c00u)
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(f16_to_float(half)))));
    else
      EXPECT_EQ(float_to_f16(f16_to_float(half)), half);
    const float b = bf16_to_float(half);
    if (std::isnan(b))
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(b))));
    else
      EXPECT_EQ(float_to_bf16(b), half);
  }
}

/// Checks one value, as it is and negated, against the definition.
void check_rounding(float value) {
  if (!std::isfinite(value)) return;
  const double magnitude = std::fabs(static_cast<double>(value));
  const uint32_t f16 = kF16.round(magnitude), bf16 = kBf16.round(magnitude);
  ASSERT_EQ(float_to_f16(std::fabs(value)), f16) << value;
  ASSERT_EQ(float_to_f16(-std::fabs(value)), f16 | 0x8000u) << value;
  ASSERT_EQ(float_to_bf16(std::fabs(value)), bf16) << value;
  ASSERT_EQ(float_to_bf16(-std::fabs(value)), bf16 | 0x8000u) << value;
}

/// Every boundary where the result may change: the fp32 values on, one below and one above each 16-bit value
/// and each midpoint of two neighbours. Rounding is monotonic, so these decide every other input.
TEST(Rounding, AllBoundariesOfBothTypes) {
  for (const Half& type : {kF16, kBf16}) {
    for (uint32_t bits = 0; bits < type.infinity(); ++bits) {
      const double here = type.value(bits);
      const double next =
          bits + 1 == type.infinity() ? std::ldexp(1.0, type.bias() + 1) : type.value(bits + 1);
      for (double point : {here, (here + next) / 2}) {
        // Exact in fp32 except for the midpoints of bf16's subnormals' last place, which lie on fp32's own
        // grid.
        const auto exact = static_cast<float>(point);
        ASSERT_EQ(static_cast<double>(exact), point);
        check_rounding(exact);
        check_rounding(std::nextafter(exact, 0.0f));
        check_rounding(std::nextafter(exact, INFINITY));
      }
    }
  }
}

TEST(Rounding, RandomBits) {
  std::mt19937 rng(1);
  for (int i = 0; i < 300000; ++i) check_rounding(std::bit_cast<float>(static_cast<uint32_t>(rng())));
}

TEST(Rounding, InfinityAndNan) {
  EXPECT_EQ(float_to_f16(INFINITY), 0x7c00);
  EXPECT_EQ(float_to_f16(-INFINITY), 0xfc00);
  EXPECT_EQ(float_to_bf16(INFINITY), 0x7f80);
  EXPECT_EQ(float_to_bf16(-INFINITY), 0xff80);
  // NaNs of every payload that could be lost in rounding: they must neither become infinity nor zero.
  for (uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7f808000u}) {
    const float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(nan)))) << bits;
    EXPECT_EQ(float_to_f16(nan) >> 15, bits >> 31);
    EXPECT_EQ(float_to_bf16(nan) >> 15, bits >> 31);
  }
}

struct Named {
  DType type;
  int64_t size;
  const char *safetensors, *torch;
};
constexpr Named kTypes[] = {{DType::f64, 8, "F64", "float64"},    {DType::f32, 4, "F32", "float32"},
                            {DType::bf16, 2, "BF16", "bfloat16"}, {DType::f16, 2, "F16", "float16"},
                            {DType::i64, 8, "I64", "int64"},      {DType::i32, 4, "I32", "int32"},
                            {DType::i16, 2, "I16", "int16"},      {DType::i8, 1, "I8", "int8"},
                            {DType::u8, 1, "U8", "uint8"},        {DType::boolean, 1, "BOOL", "bool"}};

TEST(DTypeNames, EveryTypeBothWays) {
  for (const auto& t : kTypes) {
    EXPECT_EQ(dtype_size(t.type), t.size);
    EXPECT_EQ(dtype_name(t.type), t.safetensors);
    EXPECT_EQ(torch_name(t.type), t.torch);
    EXPECT_EQ(parse_dtype(t.safetensors), t.type);
    EXPECT_EQ(parse_torch_name(t.torch), t.type);
    EXPECT_EQ(parse_torch_name("torch." + std::string(t.torch)), t.type);
    EXPECT_EQ(is_float(t.type), t.safetensors[0] == 'F' || t.type == DType::bf16);
  }
}

TEST(DTypeNames, OthersAreNothing) {
  for (const char* name :
       {"", "f32", "F8_E4M3", "F8_E5M2", "U16", "U32", "U64", "float32", " F32", "F32 ", "BF"})
    EXPECT_FALSE(parse_dtype(name)) << name;
  for (const char* name : {"", "F32", "half", "torch.", "torch.torch.float32", "float8_e4m3fn"})
    EXPECT_FALSE(parse_torch_name(name)) << name;
}

}  // namespace
}  // namespace nibble
