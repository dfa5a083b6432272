#include <cmath>

#include "quant/helpers.h"

namespace nibble::quant {
namespace {

TEST(Nonfinite, FoundAtEveryPlaceInEveryType) {
  for (const int64_t target : targets()) {
    const ForcedTarget forced(target);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
      for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()})
        for (const int64_t at : {0, 1, 31, 63, 64, 97, 130}) {
          Tensor t = from_values(std::vector<float>(131, -60000.0f), dtype);
          EXPECT_EQ(find_nonfinite(t.view()), std::nullopt);
          from_float({&bad, 1}, dtype, t.as<std::byte>() + at * dtype_size(dtype));
          EXPECT_EQ(find_nonfinite(t.view()), at) << dtype_name(dtype) << instruction_set();
        }
  }
}

TEST(Nonfinite, TheFirstOfMany) {
  Tensor t = samples(1 << 20, DType::bf16, 41);
  for (const int64_t at : {900000, 70000, 69999, 1000000}) t.as<uint16_t>()[at] = 0x7fc0;
  EXPECT_EQ(find_nonfinite(t.view()), 69999);
  EXPECT_EQ(ref::find_nonfinite(t.view()), 69999);
}

TEST(Nonfinite, LikeTheReferenceOnRandomPatterns) {
  for (const DType dtype : kDtypes)
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const Tensor t = random_patterns(1 + static_cast<int64_t>(seed) * 3, dtype, 100 + seed);
      EXPECT_EQ(find_nonfinite(t.view()), ref::find_nonfinite(t.view()));
    }
  EXPECT_EQ(find_nonfinite(random_patterns(64, DType::i32, 1).view()), std::nullopt);
  EXPECT_EQ(find_nonfinite({DType::bf16, {0}, nullptr}), std::nullopt);
}

TEST(WeightError, LikeTheReferenceToTheLastBit) {
  for (const DType wt : kDtypes)
    for (const DType qt : kDtypes)
      for (const int64_t count : {1, 7, 8, 64, 65, 1000, 150003})
        for (const int64_t block : {1, 5, 64, 100, 4096, 1000000}) {
          if (count > 1000 && block < 64) continue;
          const Tensor w = samples(count, wt, 42);
          const Tensor q = decode4(encode4(w.view(), Format::nf4, false), qt);
          const WeightError expected = ref::weight_error(w.view(), q.view(), block);
          for (const int64_t target : targets()) {
            const ForcedTarget forced(target);
            const WeightError e = weight_error(w.view(), q.view(), block);
            EXPECT_EQ(e.relative, expected.relative) << count << " " << block << " " << instruction_set();
            EXPECT_EQ(e.largest_block, expected.largest_block)
                << count << " " << block << " " << instruction_set();
          }
        }
}

TEST(WeightError, ClosedForms) {
  std::vector<float> w(192, 1.0f), q(192, 1.0f);
  const auto error = [&](int64_t block) {
    return weight_error(from_values(w, DType::f32).view(), from_values(q, DType::f32).view(), block);
  };
  EXPECT_EQ(error(64).relative, 0);
  EXPECT_EQ(error(64).largest_block, 0);
  for (size_t i = 64; i < 128; ++i) q[i] = 1.5f;  // one block of three, half its norm
  EXPECT_DOUBLE_EQ(error(64).relative, std::sqrt(16.0 / 192.0));
  EXPECT_DOUBLE_EQ(error(64).largest_block, 0.5);
  EXPECT_DOUBLE_EQ(error(192).largest_block, std::sqrt(16.0 / 192.0));
  std::fill(w.begin(), w.begin() + 64, 0.0f);
  std::fill(q.begin(), q.begin() + 64, 0.0f);
  EXPECT_DOUBLE_EQ(error(64).largest_block, 0.5);  // a zero block decoded to zero has no error
  q[0] = 1;
  EXPECT_EQ(error(64).largest_block, std::numeric_limits<double>::infinity());
}

TEST(WeightError, FarScalesNeitherOverflowNorVanish) {
  for (const float scale : {2.5e33f, 1e-40f}) {
    const Tensor w = samples(6400, DType::f32, 43, scale);
    const Tensor zero = from_values(std::vector<float>(6400, 0.0f), DType::bf16);
    EXPECT_DOUBLE_EQ(weight_error(w.view(), zero.view()).relative, 1);
    EXPECT_DOUBLE_EQ(weight_error(w.view(), zero.view()).largest_block, 1);
  }
}

TEST(WeightError, AnyNumberOfThreadsGivesTheSameBits) {
  const Tensor w = samples(1 << 20, DType::bf16, 44);
  const Tensor q = decode4(encode4(w.view(), Format::nf4, true));
  const int before = num_threads();
  set_num_threads(1);
  const WeightError expected = weight_error(w.view(), q.view());
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    EXPECT_EQ(weight_error(w.view(), q.view()).relative, expected.relative);
    EXPECT_EQ(weight_error(w.view(), q.view()).largest_block, expected.largest_block);
  }
  set_num_threads(before);
}

struct Quality {
  Format format;
  int64_t block;
  double absolute, relative;  // bitsandbytes' acceptance table, normal numbers of 1024 x 1024
};

class Acceptance : public testing::TestWithParam<Quality> {};

TEST_P(Acceptance, MeanErrorsOfNormalNumbers) {
  const Quality& expected = GetParam();
  std::vector<float> x;
  for (uint64_t i = 0; i < 1024 * 1024; ++i) x.push_back(static_cast<float>(gaussian(45, i)));
  const Tensor w = from_values(x, DType::f32);
  const Tensor q = decode4(encode4(w.view(), expected.format, false, expected.block));
  double absolute = 0, relative = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = std::fabs(double{x[i]} - q.as<float>()[i]);
    absolute += error;
    relative += error / (std::fabs(double{x[i]}) + 1e-8);
  }
  // Other normal numbers than the table's: over ten draws the means vary by .2 % (blocks of 64) to .5 % (of
  // 4096, of which there are only 256), so one percent.
  EXPECT_NEAR(absolute / static_cast<double>(x.size()), expected.absolute, 0.01 * expected.absolute);
  EXPECT_NEAR(relative / static_cast<double>(x.size()), expected.relative, 0.01 * expected.relative);
}

INSTANTIATE_TEST_SUITE_P(Table, Acceptance,
                         testing::Values(Quality{Format::nf4, 64, .072798, .203339},
                                         Quality{Format::fp4, 64, .096543, .260125},
                                         Quality{Format::nf4, 128, .076831, .215237},
                                         Quality{Format::fp4, 128, .102969, .275817},
                                         Quality{Format::nf4, 4096, .092547, .262473},
                                         Quality{Format::fp4, 4096, .129536, .337169}));

}  // namespace
}  // namespace nibble::quant
