#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"

namespace nibble::kernels {
namespace {

class Gram : public testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

TEST_P(Gram, IsTheReferenceAndSymmetric) {
  const auto [rows, n] = GetParam();
  const Strided x = random_matrix(rows, n, 2, 1);
  Strided gram(n, n, 3), expected(n, n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j)
      gram.mut().row(i)[j] = expected.mut().row(i)[j] = static_cast<float>(i == j);
  }
  for (int repeat = 0; repeat < 2; ++repeat) {
    add_gram(x.view(), gram.mut());
    ref::add_gram(x.view(), expected.mut());
  }
  // The diagonal sums up positive terms, a chunk of 512 rows at a time: each addition rounds a sum that grows
  // to the whole, so the errors add up to about sqrt(512) / 2 units of 2^-24 of it.
  expect_near(gram.view(), expected.view(), [&](int64_t i, int64_t j) {
    return 12 * std::exp2(-24) * std::sqrt(double{expected.view().row(i)[i]} * expected.view().row(j)[j]);
  });
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < i; ++j) ASSERT_EQ(gram.view().row(i)[j], gram.view().row(j)[i]);
  }
  EXPECT_TRUE(gram.gaps_untouched());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Gram,
                         testing::Combine(testing::Values<int64_t>(0, 1, 33, 1100),
                                          testing::Values<int64_t>(1, 7, 64, 129, 300)));

TEST_P(Gram, DiagonalIsTheReference) {
  const auto [rows, n] = GetParam();
  const Strided x = random_matrix(rows, n, 2, 1), d = random_matrix(70, n, 4, 3, 0.01f);
  Strided diagonal(1, n, 3), expected(1, n), whole(n, n);
  for (int64_t j = 0; j < n; ++j) diagonal.mut().row(0)[j] = expected.mut().row(0)[j] = 1;
  std::fill_n(whole.mut().data, n * n, 0.0f);
  for (int64_t j = 0; j < n; ++j) whole.mut().row(j)[j] = 1;
  add_gram(x.view(), diagonal.mut());
  ref::add_gram(x.view(), expected.mut());
  ref::add_gram(x.view(), whole.mut());
  EXPECT_EQ(is_diagonal(diagonal.view()), n > 1);
  for (int64_t j = 0; j < n; ++j) EXPECT_EQ(expected.view().row(0)[j], on_diagonal(whole.view(), j));
  // As above: sums of positive terms.
  expect_near(diagonal.view(), expected.view(),
              [&](int64_t, int64_t j) { return 12 * std::exp2(-24) * expected.view().row(0)[j]; });
  EXPECT_TRUE(diagonal.gaps_untouched());
  // Sums of positive terms in fp64 from inputs that were rounded once.
  EXPECT_NEAR(gram_norm(d.view(), diagonal.view()) / ref::gram_norm(d.view(), diagonal.view()), 1, 1e-6);
}

class Cross : public testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

TEST_P(Cross, IsTheReference) {
  const auto [rows, n] = GetParam();
  const Strided a = random_matrix(rows, n, 2, 1), b = random_matrix(rows, n + 60, 0, 2);
  Strided out(n, n + 60, 3), expected(n, n + 60);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n + 60; ++j)
      out.mut().row(i)[j] = expected.mut().row(i)[j] = static_cast<float>(i == j);
  }
  add_cross(a.view(), b.view(), out.mut());
  ref::add_cross(a.view(), b.view(), expected.mut());
  // Sums of `rows` products of standard normal numbers, of which each addition rounds a sum of about
  // sqrt(rows).
  expect_near(out.view(), expected.view(),
              [&](int64_t, int64_t) { return std::exp2(-22) * double(a.view().rows + 1); });
  EXPECT_TRUE(out.gaps_untouched());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Cross,
                         testing::Combine(testing::Values<int64_t>(0, 1, 33, 1100),
                                          testing::Values<int64_t>(1, 64, 129, 300)));

class GramNorm : public testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

TEST_P(GramNorm, IsTheNormOfTheProduct) {
  const auto [out, in] = GetParam();
  const Strided x = random_matrix(50, in, 0, 2), d = random_matrix(out, in, 4, 3, 0.01f);
  Strided gram(in, in), product(50, out);
  std::fill_n(gram.mut().data, in * in, 0.0f);
  add_gram(x.view(), gram.mut());
  // The terms are squares of norms, so no digits cancel in the sum: fp32 products leave 1e-5 of it at most.
  EXPECT_NEAR(gram_norm(d.view(), gram.view()) / ref::gram_norm(d.view(), gram.view()), 1, 1e-5);
  ref::linear(x.view(), d.view(), {}, Compute::f32, product.mut());
  double squares = 0;
  for (int64_t i = 0; i < 50 * out; ++i) squares += std::pow(product.view().data[i], 2);
  EXPECT_NEAR(gram_norm(d.view(), gram.view()) / squares, 1, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GramNorm,
                         testing::Combine(testing::Values<int64_t>(1, 63, 130),
                                          testing::Values<int64_t>(1, 40, 300)));

TEST(GramTest, GivesTheSameBitsForAnyThreads) {
  const Strided x = random_matrix(1500, 400, 0, 4), d = random_matrix(200, 400, 0, 5);
  expect_same_bits_for_any_threads([&] {
    Strided gram(400, 400);
    std::fill_n(gram.mut().data, 400 * 400, 0.0f);
    add_gram(x.view(), gram.mut());
    add_cross(x.view(), x.view(), gram.mut());
    add_gram(x.view(), gram.mut().row_range(0, 1));
    std::vector<float> all = gram.values();
    const double norm = gram_norm(d.view(), gram.view()) + gram_norm(d.view(), gram.view().row_range(0, 1));
    const auto* halves = reinterpret_cast<const float*>(&norm);
    all.insert(all.end(), halves, halves + 2);
    return all;
  });
}

TEST(GramTest, NormOfNothingIsZero) {
  EXPECT_EQ(gram_norm({nullptr, 0, 0, 0}, {nullptr, 0, 0, 0}), 0);
  const Strided gram = random_matrix(4, 4, 0, 6);
  EXPECT_EQ(gram_norm({nullptr, 0, 4, 4}, gram.view()), 0);
}

}  // namespace
}  // namespace nibble::kernels
