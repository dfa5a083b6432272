#include <tuple>

#include "kernels/cpu/amx.h"
#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"

namespace nibble::kernels {
namespace {

struct Shape3 {
  int64_t rows, in, out;
};

std::ostream& operator<<(std::ostream& os, const Shape3& s) {
  return os << s.rows << "x" << s.in << "x" << s.out;
}

double norm(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return std::sqrt(sum);
}

/// A weight (out, in) in the dtype, and the same values as fp32.
struct Source {
  Tensor tensor;
  std::vector<float> values;

  Source(DType dtype, int64_t out, int64_t in, unsigned seed)
      : tensor(dtype, {out, in}), values(random_values(out * in, seed)) {
    from_float(values, dtype, tensor.as<std::byte>());
    values = to_float(tensor.view());
  }
  ConstMatrix matrix() const {
    return {values.data(), tensor.shape()[0], tensor.shape()[1], tensor.shape()[1]};
  }
};

// The last parameter keeps linear from instructions that other machines do not have.
class Linear : public testing::TestWithParam<std::tuple<Shape3, DType, Compute, Bf16Units>> {
 protected:
  void SetUp() override { allow_for_test(std::get<3>(GetParam())); }
  void TearDown() override { allow_for_test(Bf16Units::all); }
};

// Rounding errors of an fp32 sum of n random terms grow like the partial sums, |x| |w| / sqrt(n) each, over n
// additions: about |x| |w| 2^-24 in all. Four times that leaves room for the largest of many sums.
void expect_product(ConstMatrix y, ConstMatrix expected, ConstMatrix x, ConstMatrix w) {
  expect_near(y, expected, [&](int64_t r, int64_t o) {
    return 4 * std::exp2(-24) *
           (norm(x.row(r), x.cols) * norm(w.row(o), w.cols) + std::abs(expected.row(r)[o]));
  });
}

TEST_P(Linear, IsTheReference) {
  const auto [shape, dtype, compute, units] = GetParam();
  ASSERT_TRUE(units == Bf16Units::all || std::string_view(instruction_set()) != "AMX-BF16");
  ASSERT_TRUE(units != Bf16Units::none || std::string_view(instruction_set()) != "AVX512-BF16");
  const Source source(dtype, shape.out, shape.in, 1);
  const Weight weight = Weight::pack(source.tensor.view(), compute);
  EXPECT_EQ(weight.out(), shape.out);
  EXPECT_EQ(weight.in(), shape.in);
  for (const bool with_bias : {false, true}) {
    const Strided x = random_matrix(shape.rows, shape.in, 3, 2);
    const std::vector<float> bias = with_bias ? random_values(shape.out, 3) : std::vector<float>();
    Strided y(shape.rows, shape.out, 5), expected(shape.rows, shape.out);
    linear(x.view(), weight, bias, y.mut());
    ref::linear(x.view(), source.matrix(), bias, compute, expected.mut());
    expect_product(y.view(), expected.view(), x.view(), source.matrix());
    EXPECT_TRUE(y.gaps_untouched());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Linear,
    testing::Combine(testing::Values(Shape3{0, 8, 8}, Shape3{1, 1, 1}, Shape3{1, 193, 257}, Shape3{2, 64, 64},
                                     Shape3{3, 31, 65}, Shape3{4, 160, 7}, Shape3{5, 33, 63},
                                     Shape3{16, 32, 64}, Shape3{17, 100, 130}, Shape3{65, 7, 1},
                                     Shape3{70, 1536, 100}, Shape3{129, 65, 192}, Shape3{600, 40, 70},
                                     Shape3{6, 8960, 3}),
                     testing::Values(DType::f32, DType::bf16, DType::f16),
                     testing::Values(Compute::f32, Compute::bf16),
                     testing::Values(Bf16Units::all, Bf16Units::no_amx, Bf16Units::none)));

TEST(LinearTest, WithoutInputsIsTheBias) {
  const Weight weight = Weight::pack(Tensor(DType::f32, {3, 0}).view(), Compute::f32);
  const std::vector<float> bias = {1, 2, 3};
  for (const int64_t rows : {1, 9}) {
    Strided y(rows, 3);
    linear({nullptr, rows, 0, 0}, weight, bias, y.mut());
    for (int64_t r = 0; r < rows; ++r)
      EXPECT_EQ(std::vector<float>(y.view().row(r), y.view().row(r) + 3), bias);
  }
}

// Small integers: every order of summation gives the same, exact result in either arithmetic.
TEST(LinearTest, IsExactForIntegers) {
  for (const Compute compute : {Compute::f32, Compute::bf16}) {
    for (const int64_t rows : {1, 4, 40}) {
      const int64_t in = 96, out = 80;
      Strided x(rows, in), w(out, in), y(rows, out), expected(rows, out);
      for (int64_t i = 0; i < rows * in; ++i) x.mut().data[i] = static_cast<float>(i * 7 % 23 - 11);
      for (int64_t i = 0; i < out * in; ++i) w.mut().data[i] = static_cast<float>(i * 5 % 19 - 9);
      const TensorView view = {DType::f32, {out, in}, reinterpret_cast<const std::byte*>(w.view().data)};
      linear(x.view(), Weight::pack(view, compute), {}, y.mut());
      ref::linear(x.view(), w.view(), {}, Compute::f32, expected.mut());
      EXPECT_TRUE(same_bits(y.values(), expected.values())) << rows;
    }
  }
}

// 1 + 2^-9 is halfway between two bf16 values: it must go to the even one, 1, in x and in the weight.
TEST(LinearTest, Bf16RoundsBothFactorsToNearestEven) {
  const float half = 1 + 1.0f / 256, up = 1 + 3.0f / 256;
  for (const int64_t rows : {1, 8}) {
    Strided x(rows, 2), y(rows, 2);
    for (int64_t r = 0; r < rows; ++r) x.mut().row(r)[0] = half, x.mut().row(r)[1] = up;
    const std::vector<float> w = {1, 0, up, half};
    const TensorView view = {DType::f32, {2, 2}, reinterpret_cast<const std::byte*>(w.data())};
    linear(x.view(), Weight::pack(view, Compute::bf16), {}, y.mut());
    const float rounded = 1 + 4.0f / 256;
    EXPECT_EQ(y.view().row(rows - 1)[0], 1.0f);
    EXPECT_EQ(y.view().row(rows - 1)[1], rounded + rounded);
  }
}

TEST(LinearTest, RefusesWrongShapes) {
  const Weight weight = Weight::pack(Tensor(DType::f32, {3, 4}).view(), Compute::f32);
  Strided x(2, 4), y(2, 3), narrow(2, 2);
  EXPECT_THROW(linear(x.view(), weight, {}, narrow.mut()), InternalError);
  EXPECT_THROW(linear(narrow.view(), weight, {}, y.mut()), InternalError);
  EXPECT_THROW(linear(x.view(), weight, std::vector<float>(2), y.mut()), InternalError);
  EXPECT_THROW(Weight::pack(Tensor(DType::f32, {3}).view(), Compute::f32), InternalError);
  EXPECT_THROW(Weight::pack(Tensor(DType::i8, {3, 4}).view(), Compute::f32), InternalError);
}

TEST(LinearTest, GivesTheSameBitsForAnyThreads) {
  for (const Compute compute : {Compute::f32, Compute::bf16}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Source source(dtype, 500, 333, 4);
      const Weight weight = Weight::pack(source.tensor.view(), compute);
      for (const int64_t rows : {1, 3, 20, 777}) {
        const Strided x = random_matrix(rows, 333, 0, 5);
        expect_same_bits_for_any_threads([&] {
          Strided y(rows, 500);
          linear(x.view(), weight, {}, y.mut());
          return y.values();
        });
      }
    }
  }
}

// Measuring multiplies many branches of hidden states as one tall matrix: it must not change any of them.
void expect_same_rows_in_any_company(const Shape3& shape, std::initializer_list<int64_t> companies) {
  const Source source(DType::bf16, shape.out, shape.in, 8);
  const Strided x = random_matrix(shape.rows, shape.in, 0, 9);
  for (const Bf16Units units : {Bf16Units::all, Bf16Units::no_amx, Bf16Units::none}) {
    allow_for_test(units);
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
      const Weight weight = Weight::pack(source.tensor.view(), compute);
      Strided together(shape.rows, shape.out);
      linear(x.view(), weight, {}, together.mut());
      for (const int64_t rows : companies) {
        Strided apart(rows, shape.out);
        linear(x.view().row_range(shape.rows - rows, rows), weight, {}, apart.mut());
        EXPECT_EQ(std::memcmp(apart.view().data, together.view().row(shape.rows - rows),
                              static_cast<size_t>(rows * shape.out) * sizeof(float)),
                  0)
            << shape << ", " << rows << " rows";
      }
    }
  }
  allow_for_test(Bf16Units::all);
}

TEST(LinearTest, GivesARowTheSameBitsInAnyCompany) {
  expect_same_rows_in_any_company({150, 1100, 200}, {1, 2, 3, 4, 5, 6, 17, 64});
}

// Enough work for tiles of several panels, which are multiplied by parts of the inputs.
TEST(LinearTest, GivesARowTheSameBitsInTilesOfManyPanels) {
  expect_same_rows_in_any_company({577, 2080, 8190}, {1, 65});
}

TEST(WeightTest, KeepsBf16InTwoBytes) {
  const Source narrow(DType::bf16, 128, 64, 6), wide(DType::f32, 128, 64, 6);
  EXPECT_EQ(Weight::pack(narrow.tensor.view(), Compute::f32).bytes(), 128 * 64 * 2);
  EXPECT_EQ(Weight::pack(wide.tensor.view(), Compute::bf16).bytes(), 128 * 64 * 2);
  EXPECT_EQ(Weight::pack(wide.tensor.view(), Compute::f32).bytes(), 128 * 64 * 4);
}

TEST(WeightTest, IsEmptyUntilPacked) {
  Weight weight;
  EXPECT_FALSE(weight);
  weight = Weight::pack(Tensor(DType::f32, {1, 1}).view(), Compute::f32);
  EXPECT_TRUE(weight);
}

}  // namespace
}  // namespace nibble::kernels
