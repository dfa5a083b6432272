// Products with 4-bit weights: the bits of those with the decoded weight.
#include <tuple>

#include "kernels/cpu/dot.h"
#include "kernels/cpu/few4.h"
#include "kernels/ops.h"
#include "kernels/support.h"
#include "quant/helpers.h"

namespace nibble::kernels {
namespace {

using quant::ForcedTarget;
using quant::Format;
using quant::Packed4;

/// Weights as a checkpoint has them; values from subnormals of f16 to large ones, blocks of zeros.
Packed4 random_packed(int64_t out, int64_t in, Format format, DType dtype, int64_t block, bool nested) {
  std::vector<float> values(static_cast<size_t>(out * in));
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t scale = static_cast<int64_t>(i) / block % 7;
    values[i] = scale == 3 ? 0.0f : quant::sample(7, i) * std::exp2(static_cast<float>(-17 - 5 * scale));
  }
  return quant::encode4(quant::from_values(values, dtype, {out, in}).view(), format, nested, block);
}

std::vector<float> product(ConstMatrix x, const Weight& weight, std::span<const float> bias) {
  Strided y(x.rows, weight.out(), 3);
  linear(x, weight, bias, y.mut());
  EXPECT_TRUE(y.gaps_untouched());
  return y.values();
}

/// linear with the codes and with what they decode to, for any number of rows.
void expect_decoded_product(const Packed4& packed, Compute compute, std::initializer_list<int64_t> rows) {
  const Weight weight = Weight::pack(packed, compute);
  const Weight decoded = Weight::pack(quant::decode4(packed).view(), compute);
  EXPECT_EQ(weight.out(), packed.shape[0]);
  EXPECT_EQ(weight.in(), packed.shape[1]);
  const std::vector<float> bias = random_values(weight.out(), 3);
  for (const int64_t n : rows) {
    const Strided x = random_matrix(n, weight.in(), 5, 2);
    EXPECT_TRUE(same_bits(product(x.view(), weight, bias), product(x.view(), decoded, bias))) << n << " rows";
    EXPECT_TRUE(same_bits(product(x.view(), weight, {}), product(x.view(), decoded, {}))) << n << " rows";
  }
}

// The last parameter keeps linear from instructions that other machines do not have.
class Linear4 : public testing::TestWithParam<std::tuple<DType, Compute, Bf16Units>> {
 protected:
  void SetUp() override { allow_for_test(std::get<2>(GetParam())); }
  void TearDown() override { allow_for_test(Bf16Units::all); }

  DType dtype() const { return std::get<0>(GetParam()); }
  Compute compute() const { return std::get<1>(GetParam()); }
};

// Inputs that are a multiple of the block, of a chunk only, of 2 only, and odd: outputs begin inside a block
// and between the codes of a byte. One block of 4096 holds several outputs; 1100 and 577 inputs are more than
// a block of sums.
TEST_P(Linear4, IsTheProductWithTheDecodedWeight) {
  struct Case {
    int64_t out, in, block;
  };
  for (const int64_t target : quant::targets()) {
    const ForcedTarget forced(target);
    for (const Case c : {Case{1, 1, 64},
                         {3, 64, 64},
                         {65, 128, 64},
                         {130, 96, 64},
                         {64, 32, 32},
                         {70, 1100, 64},
                         {67, 577, 64},
                         {5, 33, 32},
                         {129, 200, 128},
                         {66, 640, 256},
                         {9, 90, 4096},
                         {72, 4096, 4096},
                         {64, 31, 1024}}) {
      for (const Format format : quant::kFormats) {
        for (const bool nested : {false, true}) {
          SCOPED_TRACE(fmt::format("({}, {}), nested {}: {}", c.out, c.in, nested,
                                   quant::label(format, dtype(), c.block, c.out * c.in)));
          const Packed4 packed = random_packed(c.out, c.in, format, dtype(), c.block, nested);
          expect_decoded_product(packed, compute(), {0, 1, 2, 7, 11});
        }
      }
    }
  }
}

TEST_P(Linear4, IsTheProductWithTheDecodedWeightForManyRows) {
  for (const int64_t in : {1088, 1090})
    expect_decoded_product(random_packed(200, in, Format::nf4, dtype(), 64, true), compute(),
                           {6, 8, 9, 64, 65, 700});
}

TEST_P(Linear4, GivesTheSameBitsForAnyThreads) {
  const Weight weight = Weight::pack(random_packed(500, 320, Format::nf4, dtype(), 64, true), compute());
  for (const int64_t rows : {1, 3, 20, 300}) {
    const Strided x = random_matrix(rows, 320, 0, 5);
    expect_same_bits_for_any_threads([&] { return product(x.view(), weight, {}); });
  }
}

TEST_P(Linear4, GivesARowTheSameBitsInAnyCompany) {
  const int64_t out = 130, in = 1100;
  const Weight weight = Weight::pack(random_packed(out, in, Format::fp4, dtype(), 64, false), compute());
  const Strided x = random_matrix(150, in, 0, 9);
  Strided together(150, out);
  linear(x.view(), weight, {}, together.mut());
  for (const int64_t rows : {1, 2, 3, 8, 9, 17, 64}) {
    Strided apart(rows, out);
    linear(x.view().row_range(150 - rows, rows), weight, {}, apart.mut());
    EXPECT_EQ(std::memcmp(apart.view().data, together.view().row(150 - rows), rows * out * sizeof(float)), 0)
        << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, Linear4,
    testing::Combine(testing::ValuesIn(quant::kDtypes), testing::Values(Compute::f32, Compute::bf16),
                     testing::Values(Bf16Units::all, Bf16Units::no_amx, Bf16Units::none)));

// Values whose rounding is the point: ties of bf16 and f16, f16 subnormals, overflow to infinity.
TEST(Linear4Test, RoundsAsTheReaders) {
  Packed4 packed{.format = Format::nf4,
                 .shape = {64, 64},
                 .block = 64,
                 .code = {},
                 .codes = {},
                 .absmax = {},
                 .nested = {}};
  packed.code = {-1.0f,    1 + 0x1p-8f, 1 + 0x3p-8f,  1 + 0x1p-11f, 1 + 0x3p-11f, 0.0f,
                 -0.0f,    1.0f,        1 + 0x1p-23f, 2 - 0x1p-23f, 0x1p-10f,     0x3p-11f,
                 0x1p-60f, 0x1p60f,     0.5f,         -0x5p-11f};
  for (int64_t i = 0; i < 64 * 32; ++i) packed.codes.push_back(static_cast<uint8_t>(i * 37 + i / 32));
  for (int i = 0; i < 64; ++i) packed.absmax.push_back(std::ldexp(i % 2 == 0 ? 1.0f : 1.25f, 2 * (i - 36)));
  std::vector<float> x(64 * 64, 0.0f);
  for (size_t i = 0; i < 64; ++i) x[i * 64 + i] = 1.0f;  // row i tells the weights of input i
  const ConstMatrix rows{x.data(), 64, 64, 64};
  for (const int64_t target : quant::targets()) {
    const ForcedTarget forced(target);
    for (const DType dtype : quant::kDtypes) {
      packed.dtype = dtype;
      const Tensor decoded = quant::decode4(packed);
      for (const Compute compute : {Compute::f32, Compute::bf16}) {
        const Weight weight = Weight::pack(packed, compute);
        EXPECT_LT(weight.bytes(), 64 * 64);
        const std::vector<float> y = product(rows, weight, {});
        EXPECT_TRUE(same_bits(y, product(rows, Weight::pack(decoded.view(), compute), {})))
            << quant::label(Format::nf4, dtype, 64, 4096);
        for (int64_t r = 0; r < 64; ++r) {
          const ConstMatrix row = rows.row_range(r, 1);
          EXPECT_TRUE(
              same_bits(product(row, weight, {}), product(row, Weight::pack(decoded.view(), compute), {})));
        }
      }
    }
  }
}

TEST(Linear4Test, MultipliesFewRowsInRegistersWhereItCan) {
  const auto usable = [](const Packed4& packed, int64_t rows) {
    return few4_usable(*Weight::pack(packed, Compute::bf16).impl().codes4, rows);
  };
  Packed4 packed = random_packed(70, 192, Format::nf4, DType::bf16, 64, false);
  EXPECT_EQ(usable(packed, 1), has_dots());
  EXPECT_FALSE(usable(packed, 64));
  EXPECT_FALSE(usable(random_packed(70, 90, Format::nf4, DType::bf16, 64, false), 1));
  packed.absmax[3] = 0x1p-125f;  // the dot products' rounding takes subnormals for 0
  EXPECT_FALSE(usable(packed, 1));
}

TEST(Linear4Test, TakesAnAbsmaxThatIsNotFinite) {
  Packed4 packed = random_packed(70, 64, Format::nf4, DType::bf16, 64, false);
  packed.absmax[3] = std::numeric_limits<float>::infinity();
  const Weight weight = Weight::pack(packed, Compute::f32);
  const Strided x = random_matrix(2, 64, 0, 1);
  const std::vector<float> y = product(x.view(), weight, {});
  EXPECT_TRUE(std::isnan(y[3]) || std::isinf(y[3]));
  EXPECT_TRUE(std::isfinite(y[2]));
}

TEST(Linear4Test, WithoutInputsIsTheBias) {
  const Weight weight = Weight::pack(random_packed(3, 0, Format::nf4, DType::bf16, 64, true), Compute::f32);
  const std::vector<float> bias = {1, 2, 3};
  Strided y(2, 3);
  linear({nullptr, 2, 0, 0}, weight, bias, y.mut());
  EXPECT_EQ(std::vector<float>(y.view().row(1), y.view().row(1) + 3), bias);
}

TEST(Linear4Test, HoldsTheCodesAndAnEighthForTheirScales) {
  const Weight weight =
      Weight::pack(random_packed(128, 256, Format::nf4, DType::bf16, 64, true), Compute::bf16);
  EXPECT_EQ(weight.bytes(), 128 * 256 / 2 + 128 * 256 / 64 * 4);
}

TEST(Linear4Test, RefusesSizesThatContradictEachOther) {
  Packed4 packed = random_packed(8, 64, Format::nf4, DType::bf16, 64, false);
  packed.codes.pop_back();
  EXPECT_THROW(Weight::pack(packed, Compute::f32), InternalError);
  packed = random_packed(8, 64, Format::nf4, DType::bf16, 64, false);
  packed.absmax.pop_back();
  EXPECT_THROW(Weight::pack(packed, Compute::f32), InternalError);
  packed = random_packed(8, 64, Format::nf4, DType::bf16, 64, false);
  packed.shape = {512};
  EXPECT_THROW(Weight::pack(packed, Compute::f32), InternalError);
}

TEST(WeightTest, TellsTheRowsThatItIsDoneWith) {
  const Tensor source(DType::bf16, {1000, 70});
  int64_t rows = 0;
  Weight::pack(source.view(), Compute::f32, [&](const TensorView& done) {
    EXPECT_EQ(done.data, source.as<std::byte>() + rows * 70 * 2);
    EXPECT_EQ(done.shape[1], 70);
    rows += done.shape[0];
  });
  EXPECT_EQ(rows, 1000);
}

}  // namespace
}  // namespace nibble::kernels
