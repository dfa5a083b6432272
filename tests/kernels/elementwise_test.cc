#include <bit>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"

namespace nibble::kernels {
namespace {

// A unit in the last place of a value near 1, relative.
constexpr double kUlp = 0x1p-23;

/// Runs each test on one of the instruction sets that this machine and the build have.
class OnTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { use(GetParam()); }
  void TearDown() override { use(0); }

  static void use(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, OnTarget, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

TEST_P(OnTarget, ReallyRuns) {
  EXPECT_STREQ(row_target(), hwy::TargetName(GetParam()));
}

TEST_P(OnTarget, LayerNormIsTheReference) {
  for (const int64_t n : {1, 5, 64, 129, 1280}) {
    for (const int64_t rows : {0, 1, 70}) {
      Strided x = random_matrix(rows, n, 3, 1);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < n; ++i) x.mut().row(r)[i] += static_cast<float>(10 * r);
      }
      const std::vector<float> scale = random_values(n, 2), shift = random_values(n, 3);
      Strided y(rows, n, 2), expected(rows, n);
      layer_norm(x.view(), scale, shift, 1e-6f, y.mut());
      ref::layer_norm(x.view(), scale, shift, 1e-6f, expected.mut());
      // Sums are exact to fp64; four roundings to fp32 remain, of terms up to |unit * scale| + |shift| < 16.
      expect_close(y.view(), expected.view(), 4 * kUlp, 16 * kUlp);
      EXPECT_TRUE(y.gaps_untouched());
      layer_norm(x.view(), scale, shift, 1e-6f, x.mut());
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(std::memcmp(x.view().row(r), y.view().row(r), n * 4), 0);
    }
  }
}

TEST_P(OnTarget, RmsNormIsTheReference) {
  for (const int64_t n : {1, 7, 64, 131, 1536}) {
    Strided x = random_matrix(40, n, 1, 4, 30.0f), y(40, n, 2), expected(40, n);
    const std::vector<float> scale = random_values(n, 5);
    rms_norm(x.view(), scale, 1e-5f, y.mut());
    ref::rms_norm(x.view(), scale, 1e-5f, expected.mut());
    expect_close(y.view(), expected.view(), 2 * kUlp, 0);  // three roundings
    EXPECT_TRUE(y.gaps_untouched());
    rms_norm(x.view(), scale, 1e-5f, x.mut());
    for (int64_t r = 0; r < 40; ++r) ASSERT_EQ(std::memcmp(x.view().row(r), y.view().row(r), n * 4), 0);
  }
}

TEST_P(OnTarget, ActivationsAreTheReference) {
  for (const Activation f : {Activation::silu, Activation::gelu, Activation::gelu_tanh,
                             Activation::quick_gelu, Activation::relu}) {
    Strided x(3, 4001, 1), expected(3, 4001);
    for (int64_t r = 0; r < 3; ++r) {
      const double reach = r == 0 ? 1e-3 : r == 1 ? 6 : 150;
      for (int64_t i = 0; i < 4001; ++i) {
        x.mut().row(r)[i] = expected.mut().row(r)[i] = static_cast<float>(reach * (i - 2000) / 2000);
      }
    }
    const Strided input = expected;
    activate(f, x.mut());
    ref::activate(f, expected.mut());
    // A rounding error in the argument u of an exponential, |u| 2^-24 each in up to five roundings, is a
    // relative error of the result; |u| <= 1.6 |x| (1 + |x|^2 / 22). The fit in gelu is good to 3e-7, under 3
    // units. Results below 1e-30 count as zero.
    expect_near(x.view(), expected.view(), [&](int64_t r, int64_t i) {
      const double v = std::abs(input.view().row(r)[i]), u = 1.6 * v * (1 + v * v / 22);
      return std::abs(expected.view().row(r)[i]) * kUlp * (4 + 2.5 * std::min(u, 100.0)) + 1e-30;
    });
    EXPECT_TRUE(x.gaps_untouched());
  }
}

TEST_P(OnTarget, ActivationsOfExtremesAreFinite) {
  const float huge = std::numeric_limits<float>::max();
  for (const Activation f : {Activation::silu, Activation::gelu, Activation::gelu_tanh,
                             Activation::quick_gelu, Activation::relu}) {
    Strided x(1, 4);
    const float values[] = {huge, -huge, 1e19f, -1e19f};
    std::copy_n(values, 4, x.mut().data);
    activate(f, x.mut());
    EXPECT_EQ(x.view().data[0], huge);
    EXPECT_EQ(x.view().data[1], 0.0f);
    EXPECT_EQ(x.view().data[2], 1e19f);
    EXPECT_EQ(x.view().data[3], 0.0f);
  }
}

TEST_P(OnTarget, MultiplyAndAddAreExact) {
  for (const int64_t n : {1, 15, 16, 100}) {
    const Strided a = random_matrix(9, n, 0, 6), b = random_matrix(9, n, 2, 7);
    Strided y(9, n, 1), expected(9, n, 1);
    multiply(a.view(), b.view(), y.mut());
    ref::multiply(a.view(), b.view(), expected.mut());
    EXPECT_TRUE(same_bits(y.values(), expected.values()));
    add(b.view(), y.mut());
    ref::add(b.view(), expected.mut());
    EXPECT_TRUE(same_bits(y.values(), expected.values()));
    Strided in_place = a;
    multiply(in_place.view(), b.view(), in_place.mut());
    Strided other = b;
    multiply(a.view(), other.view(), other.mut());
    for (int64_t r = 0; r < 9; ++r)
      ASSERT_EQ(std::memcmp(in_place.view().row(r), other.view().row(r), n * 4), 0);
  }
}

TEST_P(OnTarget, RopeIsTheReference) {
  struct {
    int64_t heads, head_dim, half;
  } const cases[] = {{1, 2, 1}, {3, 80, 40}, {4, 128, 64}, {2, 50, 11}, {2, 64, 0}};
  for (const auto& c : cases) {
    Strided x = random_matrix(13, c.heads * c.head_dim, 4, 8), expected = x;
    const Strided cosine = random_matrix(13, c.half, 1, 9), sine = random_matrix(13, c.half, 2, 10);
    rope(x.mut(), c.heads, cosine.view(), sine.view());
    ref::rope(expected.mut(), c.heads, cosine.view(), sine.view());
    expect_close(x.view(), expected.view(), kUlp, 16 * kUlp);  // two products and a sum of values below 16
    EXPECT_TRUE(x.gaps_untouched());
  }
}

TEST_P(OnTarget, SoftmaxSumsToItsResult) {
  for (const int64_t n : {1, 3, 16, 1001}) {
    std::vector<float> x = random_values(n, 11), y = x;
    const double sum = softmax_row(20.0f, n, y.data());
    const double peak = 20.0 * *std::max_element(x.begin(), x.end());
    double total = 0;
    for (int64_t i = 0; i < n; ++i) {
      // The argument, up to 160, is rounded twice; its error is a relative one of the exponential.
      const double expected = std::exp(20.0 * x[i] - peak);
      EXPECT_NEAR(y[i], expected, 160 * kUlp * expected + 1e-37);
      total += y[i];
    }
    EXPECT_NEAR(sum, total, 1e-12 * total);
  }
}

TEST_P(OnTarget, LinearIsTheReference) {
  allow_for_test(Bf16Units::none);
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 11}) {
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
      for (const int64_t in : {1, 2, 301, 1025}) {
        const Strided x = random_matrix(rows, in, 0, 12), w = random_matrix(70, in, 0, 13);
        const TensorView view = {DType::f32, {70, in}, reinterpret_cast<const std::byte*>(w.view().data)};
        Strided y(rows, 70), expected(rows, 70);
        linear(x.view(), Weight::pack(view, compute), {}, y.mut());
        ref::linear(x.view(), w.view(), {}, compute, expected.mut());
        // |x| |w| is near `in`, see linear_test.cc.
        expect_close(y.view(), expected.view(), kUlp,
                     4 * std::exp2(-24) * (8 + 1.5 * static_cast<double>(in)));
      }
    }
  }
  allow_for_test(Bf16Units::all);
}

TEST_P(OnTarget, AttentionOfOneQueryIsTheReference) {
  for (const int64_t d : {1, 33, 80, 128}) {
    const Strided q = random_matrix(1, 4 * d, 0, 18), k = random_matrix(90, 2 * d, 1, 19);
    const Strided v = random_matrix(90, 2 * d, 2, 20);
    Strided out(1, 4 * d), expected(1, 4 * d);
    attention(q.view(), k.view(), v.view(), 4, 2, true, 0.2f, out.mut());
    ref::attention(q.view(), k.view(), v.view(), 4, 2, true, 0.2f, expected.mut());
    expect_close(out.view(), expected.view(), 0, 4e-6);  // see attention_test.cc
  }
}

TEST_P(OnTarget, LogitsAreTheReference) {
  for (const int64_t n : {1, 2, 17, 5003}) {
    const std::vector<float> p = random_values(n, 21), q = random_values(n, 22);
    EXPECT_EQ(argmax(p), ref::argmax(p));
    // fp64 sums of n terms leave errors near 1e-14.
    EXPECT_NEAR(log_probability(p, n - 1), ref::log_probability(p, n - 1), 1e-12);
    EXPECT_NEAR(kl_divergence(p, q), ref::kl_divergence(p, q), 1e-12);
  }
}

TEST_P(OnTarget, RoundingToBf16IsThatOfTensors) {
  std::vector<float> x = random_values(77, 23);
  x[0] = std::numeric_limits<float>::quiet_NaN(), x[1] = std::numeric_limits<float>::infinity();
  x[2] = std::numeric_limits<float>::max(), x[3] = std::numeric_limits<float>::denorm_min(),
  x[4] = 1 + 0x1p-8f;
  x[5] = 1 + 0x3p-8f, x[6] = -0.0f, x[7] = std::bit_cast<float>(0x7f800001u), x[8] = -x[2];
  std::vector<float> wide(x.size());
  std::vector<uint16_t> narrow(x.size());
  round_to_bf16(x.data(), std::ssize(x), wide.data());
  round_to_bf16(x.data(), std::ssize(x), narrow.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(narrow[i], float_to_bf16(x[i])) << i;
    EXPECT_EQ(std::bit_cast<uint32_t>(wide[i]), uint32_t{narrow[i]} << 16) << i;
  }
}

TEST(GatherTest, CopiesRowsOfEveryDtype) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Tensor table(dtype, {5, 19});
    from_float(random_values(5 * 19, 14), dtype, table.as<std::byte>());
    const std::vector<int64_t> ids = {4, 0, 4, 2};
    Strided y(4, 19, 1), expected(4, 19, 1);
    gather_rows(table.view(), ids, y.mut());
    ref::gather_rows(table.view(), ids, expected.mut());
    EXPECT_TRUE(same_bits(y.values(), expected.values()));
    EXPECT_THROW(gather_rows(table.view(), std::vector<int64_t>{0, 1, 5, 2}, y.mut()), InternalError);
    EXPECT_THROW(gather_rows(table.view(), std::vector<int64_t>{0, -1, 3, 2}, y.mut()), InternalError);
  }
}

TEST(ElementwiseTest, GivesTheSameBitsForAnyThreads) {
  const int64_t rows = 300, cols = 250;
  const Strided x = random_matrix(rows, cols, 0, 15), cosine = random_matrix(rows, 25, 0, 16);
  const std::vector<float> scale = random_values(cols, 17);
  expect_same_bits_for_any_threads([&] {
    Strided y(rows, cols);
    layer_norm(x.view(), scale, scale, 1e-5f, y.mut());
    activate(Activation::silu, y.mut());
    rope(y.mut(), 5, cosine.view(), cosine.view());
    add(x.view(), y.mut());
    multiply(x.view(), y.view(), y.mut());
    rms_norm(y.view(), scale, 1e-5f, y.mut());
    return y.values();
  });
}

}  // namespace
}  // namespace nibble::kernels
