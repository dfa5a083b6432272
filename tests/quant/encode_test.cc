#include <cmath>

#include "base/error.h"
#include "quant/helpers.h"
#include "quant/tables.h"

namespace nibble::quant {
namespace {

TEST(Targets, TheForcedOneRuns) {
  ASSERT_FALSE(targets().empty());
  for (const int64_t target : targets()) {
    const ForcedTarget forced(target);
    EXPECT_STREQ(instruction_set(), hwy::TargetName(target));
  }
}

TEST(Codes, Nf4IsTheNearestValue) {
  // Every bf16 value of [-1, 1]: the thresholds are the midpoints to within an ulp or two of fp32, and no
  // bf16 value comes that near to one.
  const auto& codes = code_values(Format::nf4);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float y = bf16_to_float(static_cast<uint16_t>(bits));
    if (!(std::fabs(y) <= 1)) continue;
    size_t nearest = 0;
    for (size_t c = 1; c < 16; ++c)
      if (std::fabs(double{y} - codes[c]) < std::fabs(double{y} - codes[nearest])) nearest = c;
    EXPECT_EQ(ref::code_of(y, Format::nf4), nearest) << y;
  }
}

TEST(Codes, Fp4IsTheNearestMagnitudeWithTheSign) {
  const auto& codes = code_values(Format::fp4);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float y = bf16_to_float(static_cast<uint16_t>(bits));
    if (!(std::fabs(y) <= 1) || std::fabs(y) == 0.0859375f) continue;  // a tie, checked below
    double best = 2;
    for (const float c : codes) best = std::min(best, std::fabs(double{y} - c));
    const uint8_t code = ref::code_of(y, Format::fp4);
    // One threshold, .583333, is 3e-7 below its midpoint; no bf16 value lies between.
    EXPECT_EQ(std::fabs(double{y} - codes[code]), best) << y;
    EXPECT_EQ(code >= 8, y < 0) << y;
  }
}

TEST(Codes, AThresholdItselfGoesToTheLowerCode) {
  const float up = std::numeric_limits<float>::infinity();
  for (size_t k = 0; k < kNf4Thresholds.size(); ++k) {
    EXPECT_EQ(ref::code_of(kNf4Thresholds[k], Format::nf4), k);
    EXPECT_EQ(ref::code_of(std::nextafter(kNf4Thresholds[k], up), Format::nf4), k + 1);
  }
  for (size_t k = 0; k < kFp4Thresholds.size(); ++k) {
    const float t = kFp4Thresholds[k], above = std::nextafter(t, up);
    EXPECT_EQ(ref::code_of(t, Format::fp4), kFp4Ranks[k]);
    EXPECT_EQ(ref::code_of(above, Format::fp4), kFp4Ranks[k + 1]);
    EXPECT_EQ(ref::code_of(-t, Format::fp4), kFp4Ranks[k] + 8);
    EXPECT_EQ(ref::code_of(-above, Format::fp4), kFp4Ranks[k + 1] + 8);
  }
}

TEST(Encode, EveryValueOfItsOwnFormatComesBack) {
  for (const Format format : kFormats)
    for (const float scale : {1.0f, 0.25f, 0x1p100f, 0x1p-100f}) {
      std::vector<float> x;
      for (int i = 0; i < 640; ++i) x.push_back(code_values(format)[static_cast<size_t>(i % 16)] * scale);
      const Tensor weight = from_values(x, DType::f32);
      const Tensor back = decode4(encode4(weight.view(), format, false));
      for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back.as<float>()[i], x[i]) << i;
    }
}

TEST(Encode, ZeroBlocksAreZeroBytes) {
  for (const Format format : kFormats)
    for (const DType dtype : kDtypes) {
      std::vector<float> x(130, 0.0f);
      x[70] = 2;
      x[3] = -0.0f;
      const Packed4 p = encode4(from_values(x, dtype).view(), format, false);
      EXPECT_EQ(p.absmax, (std::vector<float>{0, 2, 0}));
      for (size_t i = 0; i < 32; ++i) EXPECT_EQ(p.codes[i], 0) << i;
      const int zero = zero_code(format), top = format == Format::nf4 ? 15 : 3;
      for (size_t i = 32; i < 64; ++i) EXPECT_EQ(p.codes[i], (i == 35 ? top : zero) << 4 | zero) << i;
      EXPECT_EQ(p.codes[64], 0);
    }
}

TEST(Encode, AnOddCountPadsWithTheCodeOfZero) {
  EXPECT_EQ(encode4(from_values({3}, DType::bf16).view(), Format::nf4, false).codes,
            std::vector<uint8_t>{0xf7});
  EXPECT_EQ(encode4(from_values({-3}, DType::bf16).view(), Format::fp4, false).codes,
            std::vector<uint8_t>{0xb0});
  EXPECT_EQ(encode4(from_values({0}, DType::bf16).view(), Format::nf4, false).codes,
            std::vector<uint8_t>{0x07});
}

TEST(Encode, AnInfiniteReciprocalGivesTheOutermostCodes) {
  std::vector<float> x(64, 0.0f);
  x[0] = 0x1p-130f;
  x[1] = -0x1p-133f;
  const Packed4 nf4 = encode4(from_values(x, DType::bf16).view(), Format::nf4, false);
  EXPECT_EQ(nf4.absmax[0], 0x1p-130f);
  EXPECT_EQ(nf4.codes[0], 0xf0);
  EXPECT_EQ(nf4.codes[1], 0x00);
  const Packed4 fp4 = encode4(from_values(x, DType::bf16).view(), Format::fp4, false);
  EXPECT_EQ(fp4.codes[0], 0x3b);
  EXPECT_EQ(fp4.codes[1], 0x00);
  // 2^-127 still has a finite one.
  x[0] = 0x1p-127f;
  EXPECT_EQ(encode4(from_values(x, DType::bf16).view(), Format::nf4, false).codes[0], 0xf7);
}

TEST(Encode, NanTakesCodeZeroAndNoPartInTheAbsmax) {
  std::vector<float> x(64, 1.0f);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  x[6] = -2;
  for (const DType dtype : kDtypes) {
    const Packed4 p = encode4(from_values(x, dtype).view(), Format::nf4, false);
    EXPECT_EQ(p.absmax[0], 2);
    EXPECT_EQ(p.codes[2] & 15, 0);
    EXPECT_EQ(p.codes[3] >> 4, 0);
    EXPECT_EQ(p.codes[3] & 15, 12);  // 0.5: nearest is 0.4407
  }
}

/// All bf16 values up to `absmax`, in blocks that begin with it.
std::vector<float> all_bf16(float absmax) {
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float v = bf16_to_float(static_cast<uint16_t>(bits));
    if (!(std::fabs(v) <= absmax)) continue;
    if (x.size() % 64 == 0) x.push_back(absmax);
    x.push_back(v);
  }
  return x;
}

TEST(EncodeTargets, EveryBf16ValueUnderManyAbsmax) {
  for (const float absmax : {1.0f, 0.0546875f, 1.9921875f, 3.3e38f, 0x1.5p126f, 0x1.88p-60f, 0x1p-126f,
                             0x1.02p-126f, 0x1p-127f, 0x1.8p-128f, 0x1p-130f, 0x1p-133f})
    for (const Format format : kFormats) {
      const Tensor weight = from_values(all_bf16(bf16_to_float(float_to_bf16(absmax))), DType::bf16);
      const Packed4 expected = ref::encode4(weight.view(), format, false);
      for (const int64_t target : targets()) {
        const ForcedTarget forced(target);
        expect_same(encode4(weight.view(), format, false), expected,
                    label(format, DType::bf16, 64, weight.count()));
      }
    }
}

TEST(EncodeTargets, Bf16MantissasUnderEveryAbsmaxMantissa) {
  // Codes depend on the mantissas and the exponents' difference: all 128 x 128 pairs, twelve binades, both
  // signs.
  std::vector<float> x;
  for (int m = 0; m < 128; ++m) {
    const float absmax = 1 + static_cast<float>(m) / 128;
    for (int i = 0; i < 2 * 12 * 128; ++i) {
      const float v =
          std::ldexp(1 + static_cast<float>(i % 128) / 128, -(i / 128 % 12)) * (i % 2 == 0 ? 1.0f : -1.0f);
      if (std::fabs(v) > absmax) continue;
      if (x.size() % 64 == 0) x.push_back(absmax);
      x.push_back(v);
      if (x.size() % 64 != 0) x.push_back(-v);
    }
    while (x.size() % 64 != 0) x.push_back(0);
  }
  const Tensor weight = from_values(x, DType::bf16);
  for (const Format format : kFormats) {
    const Packed4 expected = ref::encode4(weight.view(), format, false);
    for (const int64_t target : targets()) {
      const ForcedTarget forced(target);
      expect_same(encode4(weight.view(), format, false), expected,
                  label(format, DType::bf16, 64, weight.count()));
    }
  }
}

TEST(EncodeTargets, AroundEveryThresholdAndAcrossTheRange) {
  // Blocks that begin with 1, so that y is x: the neighbours of every threshold, and numbers all over [-1,
  // 1].
  std::vector<float> y;
  for (const float t : kNf4Thresholds)
    for (int step = -40; step <= 40; ++step)
      y.push_back(std::bit_cast<float>(std::bit_cast<int32_t>(t) + step));
  for (const float t : kFp4Thresholds)
    for (int step = -40; step <= 40; ++step)
      for (const float sign : {1.0f, -1.0f})
        y.push_back(sign * std::bit_cast<float>(std::bit_cast<int32_t>(t) + step));
  for (int i = -200000; i <= 200000; ++i) y.push_back(static_cast<float>(i) / 200000);
  for (uint32_t bits = 0; bits < 0x3f800000u; bits += 9973)
    for (const uint32_t sign : {0u, 0x80000000u}) y.push_back(std::bit_cast<float>(bits | sign));
  std::vector<float> x;
  for (const float v : y) {
    if (x.size() % 64 == 0) x.push_back(1);
    x.push_back(v);
  }
  x.resize(x.size() + 512 - x.size() % 512, 1.0f);
  const Tensor weight = from_values(x, DType::f32);
  for (const Format format : kFormats) {
    const Packed4 expected = ref::encode4(weight.view(), format, false);
    for (const int64_t target : targets()) {
      const ForcedTarget forced(target);
      expect_same(encode4(weight.view(), format, false), expected,
                  label(format, DType::f32, 64, weight.count()));
    }
  }
}

TEST(EncodeTargets, SomeBlocksOfAGroupAreStrange) {
  // Eight blocks share one search for their absmax values: every set of zero, tiny and infinite blocks among
  // them.
  for (const DType dtype : kDtypes)
    for (uint32_t set = 0; set < 256; ++set) {
      std::vector<float> x = to_float(samples(8 * 64, dtype, set).view());
      for (size_t b = 0; b < 8; ++b) {
        if ((set >> b & 1) == 0) continue;
        if ((set + b) % 3 == 0) std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(b * 64), 64, 0.0f);
        if ((set + b) % 3 == 1) x[b * 64 + set % 64] = std::numeric_limits<float>::infinity();
        if ((set + b) % 3 == 2)
          for (size_t i = 0; i < 64; ++i) x[b * 64 + i] *= 1e-37f;
      }
      const Tensor weight = from_values(x, dtype);
      const Packed4 expected = ref::encode4(weight.view(), Format::nf4, false);
      for (const int64_t target : targets()) {
        const ForcedTarget forced(target);
        expect_same(encode4(weight.view(), Format::nf4, false), expected, label(Format::nf4, dtype, 64, set));
      }
    }
}

TEST(EncodeTargets, RandomBitPatterns) {
  for (const DType dtype : kDtypes) {
    const Tensor weight = random_patterns(150001, dtype, 11);
    const Tensor calm = samples(150001, dtype, 12);
    for (const Format format : kFormats)
      for (const int64_t block : kBlocks) {
        const Packed4 wild_expected = ref::encode4(weight.view(), format, false, block);
        const Packed4 calm_expected = ref::encode4(calm.view(), format, true, block);
        for (const int64_t target : targets()) {
          const ForcedTarget forced(target);
          const std::string what = label(format, dtype, block, weight.count());
          expect_same(encode4(weight.view(), format, false, block), wild_expected, what);
          expect_same(encode4(calm.view(), format, true, block), calm_expected, what);
        }
      }
  }
}

TEST(EncodeTargets, EveryCountAndAlignment) {
  for (const DType dtype : kDtypes) {
    const Tensor all = samples(400, dtype, 13);
    std::vector<std::byte> shifted(static_cast<size_t>(all.bytes()) + 1);
    std::memcpy(shifted.data() + 1, all.as<std::byte>(), static_cast<size_t>(all.bytes()));
    for (const int64_t target : targets()) {
      const ForcedTarget forced(target);
      for (int64_t count = 0; count <= 400; count += count < 140 ? 1 : 13) {
        const TensorView plain{dtype, {count}, all.as<std::byte>()}, odd{dtype, {count}, shifted.data() + 1};
        const Packed4 expected = ref::encode4(plain, Format::nf4, false);
        expect_same(encode4(plain, Format::nf4, false), expected, label(Format::nf4, dtype, 64, count));
        expect_same(encode4(odd, Format::nf4, false), expected, label(Format::nf4, dtype, 64, count));
      }
    }
  }
}

TEST(Encode, AnyNumberOfThreadsGivesTheSameBytes) {
  const Tensor weight = samples(1 << 20, DType::bf16, 14);
  const int before = num_threads();
  set_num_threads(1);
  const Packed4 expected = encode4(weight.view(), Format::nf4, true);
  for (const int threads : {2, 3, 7}) {
    set_num_threads(threads);
    expect_same(encode4(weight.view(), Format::nf4, true), expected, fmt::format("{} threads", threads));
  }
  set_num_threads(before);
}

TEST(Encode, ReusedBuffersHoldNothingOfBefore) {
  const Tensor large = samples(5000, DType::bf16, 15), small = samples(301, DType::f16, 16);
  Packed4 packed = encode4(large.view(), Format::fp4, true);
  encode4_into(small.view(), Format::nf4, false, 128, packed);
  expect_same(packed, ref::encode4(small.view(), Format::nf4, false, 128), "second");
}

TEST(Encode, BrokenPromisesAreInternalErrors) {
  const Tensor weight = samples(64, DType::bf16, 17);
  for (const int64_t block : {-64, 0, 1, 16, 63, 96, 8192})
    EXPECT_THROW(encode4(weight.view(), Format::nf4, false, block), InternalError) << block;
  EXPECT_THROW(encode4(weight.view(), Format::bf16, false), InternalError);
  EXPECT_THROW(encode4({DType::i8, {64}, weight.view().data}, Format::nf4, false), InternalError);
}

TEST(Formats, NamesReadBack) {
  for (const Format f : {Format::bf16, Format::nf4, Format::fp4}) EXPECT_EQ(parse_format(format_name(f)), f);
  EXPECT_EQ(parse_format("NF4"), std::nullopt);
  EXPECT_EQ(parse_format(""), std::nullopt);
}

}  // namespace
}  // namespace nibble::quant
