#include "base/error.h"
#include "quant/helpers.h"

namespace nibble::quant {
namespace {

/// Random codes under absmax values of every kind.
Packed4 random_packed(int64_t count, int64_t block, uint64_t seed) {
  Packed4 p;
  p.shape = {count};
  p.block = block;
  for (size_t c = 0; c < 16; ++c) p.code[c] = sample(seed + 1, c) * 1e-5f;
  for (int64_t i = 0; i < (count + 1) / 2; ++i)
    p.codes.push_back(static_cast<uint8_t>(random_bits(seed, static_cast<uint64_t>(i))));
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> odd = {0,      -0.0f,  inf,     -inf,  std::numeric_limits<float>::quiet_NaN(),
                                  1e-45f, 1e-39f, 3.4e38f, 65520, 6e-8f,
                                  1e-7f,  3e-5f};
  for (int64_t b = 0; b < block_count(count, block); ++b) {
    const uint64_t r = random_bits(seed + 2, static_cast<uint64_t>(b));
    p.absmax.push_back(r % 4 == 0 ? odd[r / 4 % odd.size()]
                                  : std::ldexp(1 + static_cast<float>(r >> 40) * 0x1p-24f,
                                               static_cast<int>(r / 4 % 60) - 30));
  }
  return p;
}

TEST(DecodeTargets, RandomCodesAndScales) {
  for (const int64_t block : kBlocks)
    for (const int64_t count : {int64_t{1}, block - 1, block, block + 1, 5 * block + 7, int64_t{200003}}) {
      const Packed4 p = random_packed(count, block, static_cast<uint64_t>(count));
      for (const DType dtype : kDtypes) {
        const auto expected = bytes_of(ref::decode4(p, dtype));
        for (const int64_t target : targets()) {
          const ForcedTarget forced(target);
          EXPECT_TRUE(bytes_of(decode4(p, dtype)) == expected) << label(p.format, dtype, block, count);
        }
      }
    }
}

TEST(DecodeTargets, EveryRoundingOfBf16AndF16) {
  // Codes times 1 are themselves: 16 fp32 values a block, around the ties and the limits of both types.
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; high += 7)
    for (const uint32_t low : {0u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  for (size_t begin = 0; begin + 16 <= values.size(); begin += 16) {
    Packed4 p;
    p.shape = {64};
    p.absmax = {1};
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(begin), 16, p.code.begin());
    for (int i = 0; i < 32; ++i)
      p.codes.push_back(static_cast<uint8_t>(random_bits(9, static_cast<uint64_t>(i) + begin)));
    for (const DType dtype : {DType::bf16, DType::f16}) {
      const auto expected = bytes_of(ref::decode4(p, dtype));
      for (const int64_t target : targets()) {
        const ForcedTarget forced(target);
        ASSERT_TRUE(bytes_of(decode4(p, dtype)) == expected)
            << begin << " " << label(p.format, dtype, 64, 64);
      }
    }
  }
}

TEST(Decode, HighNibbleFirstAndTwoElementsAByte) {
  Packed4 p;
  p.shape = {3};
  p.dtype = DType::f32;
  p.code = code_values(Format::nf4);
  p.codes = {0xf0, 0x77};
  p.absmax = {2};
  const Tensor t = decode4(p);
  EXPECT_EQ(to_float(t.view()), (std::vector<float>{2, -2, 0}));
}

TEST(Decode, DoubleQuantizationRoundsTwice) {
  Packed4 p = encode4(samples(100000, DType::bf16, 21).view(), Format::nf4, true);
  ASSERT_TRUE(p.nested);
  const auto absmax = decode_absmax(p);
  ASSERT_EQ(absmax.size(), 1563u);
  int differs = 0;
  for (size_t i = 0; i < absmax.size(); ++i) {
    volatile float product = p.nested->map[p.nested->q[i]] * p.nested->absmax[i / 256];
    EXPECT_EQ(absmax[i], product + p.nested->offset);
    differs +=
        absmax[i] != std::fma(p.nested->map[p.nested->q[i]], p.nested->absmax[i / 256], p.nested->offset);
  }
  EXPECT_GT(differs, 0);  // the data tells one rounding from two
  EXPECT_TRUE(bytes_of(absmax) == bytes_of(ref::decode_absmax(p)));
  EXPECT_TRUE(bytes_of(decode4(p)) == bytes_of(ref::decode4(p, DType::bf16)));
}

TEST(Decode, AnyNestedBlock) {
  Packed4 p = encode4(samples(100000, DType::bf16, 22).view(), Format::nf4, true);
  for (const int64_t block : {int64_t{1}, int64_t{100}, int64_t{1563}, int64_t{1} << 31}) {
    p.nested->nested_block = block;
    p.nested->absmax.assign(static_cast<size_t>(block_count(1563, block)), 0.5f);
    for (size_t i = 0; i < p.nested->absmax.size(); ++i) p.nested->absmax[i] += static_cast<float>(i) / 64;
    EXPECT_TRUE(bytes_of(decode_absmax(p)) == bytes_of(ref::decode_absmax(p))) << block;
  }
}

TEST(Decode, AnyNumberOfThreadsGivesTheSameBytes) {
  const Packed4 p = encode4(samples(1 << 20, DType::bf16, 23).view(), Format::fp4, true);
  const int before = num_threads();
  set_num_threads(1);
  const auto expected = bytes_of(decode4(p));
  for (const int threads : {2, 5}) {
    set_num_threads(threads);
    EXPECT_TRUE(bytes_of(decode4(p)) == expected) << threads;
  }
  set_num_threads(before);
}

TEST(Decode, NothingDecodesToNothing) {
  for (const bool nested : {false, true}) {
    const Packed4 p = encode4({DType::bf16, {0, 7}, nullptr}, Format::nf4, nested);
    EXPECT_TRUE(p.codes.empty());
    EXPECT_EQ(decode4(p).count(), 0);
  }
}

TEST(Decode, ContradictingSizesAreInternalErrors) {
  const Packed4 good = encode4(samples(200, DType::bf16, 24).view(), Format::nf4, false);
  Packed4 p = good;
  p.codes.pop_back();
  EXPECT_THROW(decode4(p), InternalError);
  p = good;
  p.absmax.push_back(1);
  EXPECT_THROW(decode4(p), InternalError);
  p = good;
  p.block = 65;
  EXPECT_THROW(decode4(p), InternalError);
  EXPECT_THROW(decode4(good, DType::i8), InternalError);
  p = encode4(samples(200, DType::bf16, 24).view(), Format::nf4, true);
  p.nested->absmax.clear();
  EXPECT_THROW(decode4(p), InternalError);
}

}  // namespace
}  // namespace nibble::quant
