// Rounding to NF4: held against the oracle, and against what it promises about the objective.
#include "kernels/rounding.h"

#include <fmt/format.h>

#include <numeric>

#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"
#include "quant/helpers.h"

namespace nibble::kernels {
namespace {

using quant::ForcedTarget;
using quant::from_values;
using quant::Packed4;

constexpr std::array kDTypes = {DType::f32, DType::bf16, DType::f16};

/// Inputs (rows, in) of a few common directions and a little noise, so that columns are strongly correlated;
/// with `outliers`, some columns are scaled by 64 or 1 / 64.
Strided inputs(int64_t rows, int64_t in, unsigned seed, bool outliers = false) {
  const int64_t directions = in / 8 + 1;
  const Strided mix = random_matrix(directions, in, 0, 99);
  const Strided at = random_matrix(rows, directions, 0, seed);
  Strided x = random_matrix(rows, in, 0, seed + 1, 0.2f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < in; ++c) {
      for (int64_t d = 0; d < directions; ++d)
        x.mut().row(r)[c] += at.view().row(r)[d] * mix.view().row(d)[c];
      if (outliers && c % 17 == 3) x.mut().row(r)[c] *= 64;
      if (outliers && c % 23 == 5) x.mut().row(r)[c] /= 64;
    }
  }
  return x;
}

Matrix gram_of(const Strided& x) {
  Matrix gram = Matrix::zeros(x.view().cols, x.view().cols);
  add_gram(x.view(), gram.mut());
  return gram;
}

Matrix correlated_gram(int64_t in, bool outliers = false) {
  return gram_of(inputs(2 * in + 10, in, 1, outliers));
}

Matrix identity(int64_t n) {
  Matrix gram = Matrix::zeros(n, n);
  for (int64_t i = 0; i < n; ++i) gram.row(i)[i] = 1;
  return gram;
}

Tensor random_weight(int64_t out, int64_t in, DType dtype, unsigned seed = 5) {
  std::vector<float> values = random_values(out * in, seed);
  for (float& v : values) v *= 0.02f;
  return from_values(values, dtype, {out, in});
}

/// trace((W - Q) H (W - Q)') in fp64, Q decoded as a reader does.
double objective(const Tensor& weight, const Packed4& packed, ConstMatrix gram, double damping = 0.03) {
  const std::vector<float> w = to_float(weight.view()), q = to_float(quant::decode4(packed).view());
  const std::vector<float> diagonal = damped_diagonal(gram, damping);
  const int64_t in = gram.rows;
  double sum = 0;
  for (size_t row = 0; row < w.size(); row += in) {
    for (int64_t i = 0; i < in; ++i) {
      double g = 0;
      for (int64_t j = 0; j < in; ++j)
        g += (i == j ? diagonal[i] : gram.row(i)[j]) * (double{w[row + j]} - q[row + j]);
      sum += g * (double{w[row + i]} - q[row + i]);
    }
  }
  return sum;
}

double objective_of(const Tensor& weight, ConstMatrix gram, const RoundingOptions& options) {
  return objective(weight, round4(weight.view(), gram, options), gram, options.damping);
}

constexpr RoundingOptions kSearch{Rounding::search};
constexpr RoundingOptions kFeedback{Rounding::feedback};
constexpr RoundingOptions kNoSweeps{Rounding::feedback, 0.03, 0};

std::vector<std::byte> all_bytes(const Packed4& packed) {
  std::vector<std::byte> all;
  for (const quant::StoredTensor& t : quant::to_tensors(packed))
    all.insert(all.end(), t.view.data, t.view.data + t.view.bytes());
  return all;
}

TEST(Rounding, NamesAreReadBack) {
  for (const Rounding r : {Rounding::plain, Rounding::search, Rounding::feedback})
    EXPECT_EQ(parse_rounding(rounding_name(r)), r);
  EXPECT_EQ(rounding_name(Rounding::feedback), "feedback");
  EXPECT_EQ(parse_rounding("gptq"), std::nullopt);
}

TEST(Rounding, PlainIsEncode4) {
  for (const DType dtype : kDTypes) {
    const Tensor weight = random_weight(7, 75, dtype);
    quant::expect_same(round4(weight.view(), {}, {}), quant::encode4(weight.view(), quant::Format::nf4, true),
                       "plain");
  }
}

TEST(Rounding, GridRunsFromTheTargetDownToTheWeight) {
  for (const auto& [target, weight] : {std::pair{1.0f, 1.0f}, {8.0f, 1.0f}, {0.5f, 1.0f}}) {
    const auto grid = scale_grid(target, weight);
    EXPECT_EQ(grid.front(), target * kScaleHigh);
    EXPECT_NEAR(grid.back() / (std::min(target, weight) * kScaleLow), 1, 1e-4);
    EXPECT_TRUE(std::is_sorted(grid.rbegin(), grid.rend()));
  }
  EXPECT_EQ(scale_grid(0, 0), (std::array<float, kScaleSteps>{}));
}

TEST(Rounding, DampingRaisesEachChannelByItsOwnPower) {
  Matrix gram = identity(3);
  gram.row(0)[0] = 1000;
  gram.row(2)[2] = 0;
  const auto d = damped_diagonal(gram.view(), 0.1);
  EXPECT_NEAR(d[0], 1100, 0.01);
  EXPECT_NEAR(d[1], 1.1, 0.01);
  EXPECT_NEAR(d[2], 0.1 * 1e-4 * 1001 / 3, 1e-6);
  EXPECT_EQ(damped_diagonal(Matrix::zeros(2, 2).view(), 0.1), (std::vector<float>{1, 1}));
}

/// Inputs X, and Y, what they become behind linears that are quantized: near to X, in correlated ways. What
/// outputs are added to differs by Y times a matrix.
struct Drifting {
  Strided x, y, missing;       // missing (rows, out): R - S
  Matrix gram, input, stream;  // Y'Y, (X - Y)'Y, (R - S)'Y

  Drifting(int64_t out, int64_t in, bool outliers)
      : x(inputs(3 * in + 10, in, 1, outliers)),
        y(inputs(3 * in + 10, in, 1, outliers)),
        missing(3 * in + 10, out, 0),
        gram(Matrix::zeros(in, in)),
        input(Matrix::zeros(in, in)),
        stream(Matrix::zeros(out, in)) {
    const Strided change = inputs(3 * in + 10, in, 7, outliers);
    Strided difference(3 * in + 10, in, 0);
    for (int64_t r = 0; r < x.view().rows; ++r) {
      for (int64_t c = 0; c < in; ++c) {
        y.mut().row(r)[c] += 0.1f * change.view().row(r)[c] - 0.2f * x.view().row(r)[c];
        difference.mut().row(r)[c] = x.view().row(r)[c] - y.view().row(r)[c];
      }
    }
    add_gram(y.view(), gram.mut());
    add_cross(difference.view(), y.view(), input.mut());
    const Strided lost = random_matrix(out, in, 0, 8, 0.002f);
    ref::linear(y.view(), lost.view(), {}, Compute::f32, missing.mut());
    add_cross(missing.view(), y.view(), stream.mut());
  }
  Drift drift() const { return {input.view(), stream.view()}; }

  /// |R + X W' - S - Y Q'|^2 in fp64.
  double error(const Tensor& weight, const Packed4& packed) const {
    const std::vector<float> w = to_float(weight.view()), q = to_float(quant::decode4(packed).view());
    const int64_t in = x.view().cols;
    double sum = 0;
    for (size_t row = 0; row < w.size(); row += in) {
      for (int64_t r = 0; r < x.view().rows; ++r) {
        double e = missing.view().row(r)[row / static_cast<size_t>(in)];
        for (int64_t i = 0; i < in; ++i)
          e += double{x.view().row(r)[i]} * w[row + i] - double{y.view().row(r)[i]} * q[row + i];
        sum += e * e;
      }
    }
    return sum;
  }
};

struct Case {
  int64_t out, in;
  DType dtype;
  bool outliers;
};

class RoundingOracle : public testing::TestWithParam<Case> {};

// fp32 sums move a target by about 1e-6 of itself; one that lies that near to a threshold takes the other
// code, and all later ones of its row see another error. That is rare, and an objective of thousands of such
// choices, nearly as good as each other, hardly moves.
TEST_P(RoundingOracle, ReachesItsObjectiveOnEveryTarget) {
  const auto [out, in, dtype, outliers] = GetParam();
  const Tensor weight = random_weight(out, in, dtype);
  const Matrix gram = correlated_gram(in, outliers);
  for (const RoundingOptions& options : {kSearch, kNoSweeps, kFeedback}) {
    const double expected = objective(weight, ref::round4(weight.view(), gram.view(), options), gram.view());
    for (const int64_t target : quant::targets()) {
      const ForcedTarget forced(target);
      EXPECT_NEAR(objective_of(weight, gram.view(), options) / expected, 1, 1e-3)
          << rounding_name(options.kind) << ", sweeps " << options.sweeps << ", target " << target;
    }
  }
}

// As above; what the drift adds is solved for in fp32. The error falls, most of which is the drift's.
TEST_P(RoundingOracle, FollowsTheDriftOnEveryTarget) {
  const auto [out, in, dtype, outliers] = GetParam();
  const Tensor weight = random_weight(out, in, dtype);
  const Drifting inputs(out, in, outliers);
  const auto expected = ref::round4(weight.view(), inputs.gram.view(), kFeedback, inputs.drift());
  for (const Drift& part : {Drift(), Drift{inputs.input.view(), {}}, Drift{{}, inputs.stream.view()}})
    EXPECT_LT(inputs.error(weight, expected),
              0.9 * inputs.error(weight, ref::round4(weight.view(), inputs.gram.view(), kFeedback, part)));
  for (const int64_t target : quant::targets()) {
    const ForcedTarget forced(target);
    const auto packed = round4(weight.view(), inputs.gram.view(), kFeedback, inputs.drift());
    EXPECT_NEAR(inputs.error(weight, packed) / inputs.error(weight, expected), 1, 5e-3)
        << "target " << target;
  }
}

TEST(Rounding, WithoutDriftItCountsForNothing) {
  for (const int64_t in : {96, 128}) {
    const Tensor weight = random_weight(20, in, DType::bf16);
    const Matrix gram = correlated_gram(in), none = Matrix::zeros(in, in), nothing = Matrix::zeros(20, in);
    quant::expect_same(round4(weight.view(), gram.view(), kFeedback, {none.view(), nothing.view()}),
                       round4(weight.view(), gram.view(), kFeedback), "no drift");
  }
}

TEST(Rounding, TheOffsetFollowsFromTheWeightAlone) {
  const Tensor weight = random_weight(20, 128, DType::bf16);
  const Drifting inputs(20, 128, false);
  const float offset = round4(weight.view(), identity(128).view(), kSearch).nested->offset;
  EXPECT_EQ(round4(weight.view(), inputs.gram.view(), kFeedback).nested->offset, offset);
  EXPECT_EQ(round4(weight.view(), inputs.gram.view(), kFeedback, inputs.drift()).nested->offset, offset);
  EXPECT_NEAR(offset / round4(weight.view(), {}, {}).nested->offset, 1, 1.0 / 256);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RoundingOracle,
                         testing::Values(Case{33, 64, DType::f32, false}, Case{150, 128, DType::f32, false},
                                         Case{20, 192, DType::bf16, false}, Case{20, 128, DType::f16, true},
                                         Case{21, 96, DType::bf16, true}, Case{70, 20, DType::f32, false},
                                         Case{19, 75, DType::f16, false}, Case{40, 100, DType::bf16, false}));

class RoundingObjective : public testing::TestWithParam<Case> {};

TEST_P(RoundingObjective, FallsFromPlainToSearchToFeedbackToSweeps) {
  const auto [out, in, dtype, outliers] = GetParam();
  const Tensor weight = random_weight(out, in, dtype);
  const Matrix gram = correlated_gram(in, outliers);
  const double plain = objective_of(weight, gram.view(), {});
  const double search = objective_of(weight, gram.view(), kSearch);
  const double feedback = objective_of(weight, gram.view(), kNoSweeps);
  EXPECT_LT(search, 0.95 * plain);
  EXPECT_LT(feedback, 0.5 * search);
  double before = feedback;
  for (int sweeps = 1; sweeps <= 3; ++sweeps) {
    const double now = objective_of(weight, gram.view(), {Rounding::feedback, 0.03, sweeps});
    EXPECT_LT(now, (sweeps == 1 ? 0.97 : 1.0) * before) << sweeps;
    before = now;
  }
  RecordProperty("ratios", fmt::format("{} {} {}", search / plain, feedback / plain, before / plain));
}

INSTANTIATE_TEST_SUITE_P(Shapes, RoundingObjective,
                         testing::Values(Case{64, 256, DType::bf16, false}, Case{64, 256, DType::bf16, true},
                                         Case{64, 192, DType::f32, false}, Case{64, 192, DType::f16, true},
                                         Case{48, 200, DType::bf16, false}, Case{48, 300, DType::f16, true}));

// The gram of other inputs of the same kind: what was gained is no accident of the inputs it was fitted to.
TEST(Rounding, GainsHoldOnOtherInputs) {
  for (const bool outliers : {false, true}) {
    const Tensor weight = random_weight(64, 256, DType::bf16);
    const Matrix gram = gram_of(inputs(600, 256, 1, outliers)),
                 other = gram_of(inputs(600, 256, 31, outliers));
    const auto judge = [&](const RoundingOptions& options) {
      return objective(weight, round4(weight.view(), gram.view(), options), other.view(), 0);
    };
    EXPECT_LT(judge(kSearch), 0.95 * judge({}));
    EXPECT_LT(judge(kFeedback), 0.3 * judge({}));
  }
}

TEST(Rounding, WithoutCorrelationFeedbackIsSearch) {
  for (const int64_t in : {128, 100}) {
    const Tensor weight = random_weight(33, in, DType::bf16);
    Matrix gram = identity(in);
    for (int64_t i = 0; i < in; ++i) gram.row(i)[i] = static_cast<float>(1 + i % 7);
    quant::expect_same(round4(weight.view(), gram.view(), kNoSweeps),
                       round4(weight.view(), gram.view(), kSearch), "diagonal gram");
    const double search = objective_of(weight, gram.view(), kSearch);
    EXPECT_LE(objective_of(weight, gram.view(), kFeedback), search);
    EXPECT_LT(search, objective_of(weight, gram.view(), {}));
  }
}

TEST(Rounding, OfADiagonalAloneIsThatOfAMatrixWithNothingElse) {
  for (const int64_t in : {1, 40, 192}) {
    const Tensor weight = random_weight(70, in, DType::bf16);
    const Matrix whole = correlated_gram(in, true);
    Matrix square = Matrix::zeros(in, in), row = Matrix::zeros(1, in);
    for (int64_t i = 0; i < in; ++i) row.row(0)[i] = square.row(i)[i] = whole.row(i)[i];
    const Packed4 expected = round4(weight.view(), square.view(), kSearch);
    quant::expect_same(round4(weight.view(), row.view(), kSearch), expected, "search");
    quant::expect_same(ref::round4(weight.view(), row.view(), kSearch), expected, "reference");
    if (in > 1) quant::expect_same(round4(weight.view(), row.view(), kFeedback), expected, "feedback");
    EXPECT_EQ(damped_diagonal(row.view(), 0.1), damped_diagonal(square.view(), 0.1));
  }
}

TEST(Rounding, ZeroGramIsTheIdentity) {
  const Tensor weight = random_weight(20, 128, DType::f32);
  for (const RoundingOptions& options : {kSearch, kFeedback}) {
    const Matrix zero = Matrix::zeros(128, 128);
    quant::expect_same(round4(weight.view(), zero.view(), options),
                       round4(weight.view(), identity(128).view(), {options.kind, 0, options.sweeps}),
                       "zero");
  }
}

// A gram of few inputs has no full rank; one with a negative eigenvalue or an empty diagonal is none.
TEST(Rounding, RaisesTheDampingUntilItFactors) {
  const Tensor weight = random_weight(20, 128, DType::bf16);
  const Matrix few = gram_of(inputs(9, 128, 3));
  EXPECT_LT(objective_of(weight, few.view(), {Rounding::feedback, 0, 2}),
            0.2 * objective_of(weight, few.view(), {Rounding::plain, 0, 0}));
  for (const float between : {0.9f, 1e6f}) {
    Matrix wrong = identity(128);
    for (int64_t i = 0; i < 128; ++i)
      for (int64_t j = 0; j < 128; ++j)
        if (i != j) wrong.row(i)[j] = i % 2 == j % 2 ? -between : between;
    for (const RoundingOptions& options : {kSearch, kFeedback}) {
      const Packed4 packed = round4(weight.view(), wrong.view(), options);
      EXPECT_LT(objective(weight, packed, identity(128).view()),
                1.5 * objective_of(weight, identity(128).view(), {}));
    }
  }
  Matrix dead = correlated_gram(128);
  for (int64_t i = 0; i < 128; ++i) dead.row(i)[5] = dead.row(5)[i] = 0;
  EXPECT_LT(objective_of(weight, dead.view(), {Rounding::feedback, 0, 2}),
            0.5 * objective_of(weight, dead.view(), {Rounding::plain, 0, 0}));
}

TEST(Rounding, RefusesWrongGrams) {
  const Tensor weight = random_weight(4, 64, DType::f32);
  Matrix gram = identity(64);
  EXPECT_THROW(round4(weight.view(), identity(63).view(), kSearch), InternalError);
  gram.row(3)[7] = NAN;
  const std::string text =
      quant::error_of("rounding: the Gram matrix", [&] { round4(weight.view(), gram.view(), kFeedback); });
  EXPECT_NE(text.find("[3, 7]"), std::string::npos) << text;
  const Matrix good = identity(64);
  const Matrix small = identity(63);
  EXPECT_THROW(round4(weight.view(), good.view(), kFeedback, {small.view(), {}}), InternalError);
  EXPECT_THROW(round4(weight.view(), good.view(), kFeedback, {{}, good.view()}), InternalError);
  EXPECT_THROW(round4(weight.view(), good.view(), kSearch, {good.view(), {}}), InternalError);
  quant::error_of("rounding: the drift", [&] {
    round4(weight.view(), good.view(), kFeedback, {gram.view(), {}});
  });
}

// Some rows of zeros stay exactly that, and the others are rounded well beside them.
TEST(Rounding, KeepsZeros) {
  for (const int64_t in : {128, 80}) {
    Tensor weight = random_weight(40, in, DType::f32);
    for (int64_t r = 0; r < 40; r += 3) std::fill_n(weight.as<float>() + r * in, in, 0.0f);
    const Matrix gram = correlated_gram(in);
    for (const RoundingOptions& options : {kSearch, kFeedback}) {
      const Packed4 packed = round4(weight.view(), gram.view(), options);
      const Tensor decoded = quant::decode4(packed);
      for (int64_t r = 0; r < 40; r += 3)
        for (int64_t c = 0; c < in; ++c) ASSERT_EQ(decoded.as<float>()[r * in + c], 0.0f) << r << ", " << c;
      EXPECT_LT(objective(weight, packed, gram.view()), 0.95 * objective_of(weight, gram.view(), {}));
    }
  }
  Tensor nothing(DType::bf16, {5, 64});
  std::fill_n(nothing.as<uint16_t>(), 5 * 64, uint16_t{0});
  EXPECT_EQ(objective_of(nothing, correlated_gram(64).view(), kFeedback), 0);
}

TEST(Rounding, TinyShapes) {
  for (const auto& [out, in] :
       {std::pair{1, 1}, {1, 3}, {3, 1}, {200, 1}, {65, 2}, {1, 65}, {2, 127}, {1, 64}}) {
    for (const DType dtype : kDTypes) {
      const Tensor weight = random_weight(out, in, dtype);
      const Matrix gram = correlated_gram(in);
      const double plain = objective_of(weight, gram.view(), {});
      for (const RoundingOptions& options : {kSearch, kFeedback}) {
        const Packed4 packed = round4(weight.view(), gram.view(), options);
        EXPECT_EQ(std::ssize(packed.codes), (out * in + 1) / 2);
        // One block or a few: the grid may miss plain's own absmax by half a step.
        EXPECT_LE(objective(weight, packed, gram.view()), 1.3 * plain + 1e-7) << out << " x " << in;
        if (out * in % 2 == 1) {
          EXPECT_EQ(packed.codes.back() & 15, 7);
        }
      }
    }
  }
  for (const auto& [out, in] : {std::pair{0, 5}, {5, 0}}) {
    const Tensor weight(DType::f32, {out, in});
    EXPECT_TRUE(round4(weight.view(), identity(in).view(), kFeedback).codes.empty());
  }
}

// The largest values of fp16 decode to nothing infinite, although the grid goes above them.
TEST(Rounding, StaysFiniteAtTheEndOfF16) {
  std::vector<float> values = random_values(8 * 128, 3);
  for (size_t i = 0; i < values.size(); i += 9) values[i] = i % 2 == 0 ? 65504.0f : -65504.0f;
  const Tensor weight = from_values(values, DType::f16, {8, 128});
  const Matrix gram = correlated_gram(128);
  for (const RoundingOptions& options : {kSearch, kFeedback}) {
    const Packed4 packed = round4(weight.view(), gram.view(), options);
    EXPECT_EQ(quant::find_nonfinite(quant::decode4(packed).view()), std::nullopt);
  }
}

TEST(Rounding, SurvivesItsFile) {
  const Tensor weight = random_weight(30, 200, DType::bf16);
  const Matrix gram = correlated_gram(200);
  const Packed4 packed = round4(weight.view(), gram.view(), kFeedback);
  const quant::StoredCopies stored(quant::to_tensors(packed));
  EXPECT_EQ(stored.bytes(), std::ssize(all_bytes(round4(weight.view(), gram.view(), {}))) +
                                std::ssize(quant::quant_state_json(packed)) -
                                std::ssize(quant::quant_state_json(round4(weight.view(), gram.view(), {}))));
  const Packed4 read = quant::from_tensors(stored.lookup(), "weight");
  quant::expect_same(read, packed, "read back");
  EXPECT_EQ(objective(weight, read, gram.view()), objective(weight, packed, gram.view()));
}

// A gram whose rows lie apart, and a weight at an odd address.
TEST(Rounding, TakesAnyStrideAndAlignment) {
  const Tensor weight = random_weight(10, 96, DType::bf16);
  const Matrix gram = correlated_gram(96);
  Strided apart(96, 96, 5);
  for (int64_t i = 0; i < 96; ++i) std::copy_n(gram.row(i), 96, apart.mut().row(i));
  std::vector<std::byte> odd(static_cast<size_t>(weight.bytes() + 1));
  std::memcpy(odd.data() + 1, weight.as<std::byte>(), static_cast<size_t>(weight.bytes()));
  quant::expect_same(round4({DType::bf16, {10, 96}, odd.data() + 1}, apart.view(), kFeedback),
                     round4(weight.view(), gram.view(), kFeedback), "odd");
}

TEST(Rounding, GivesTheSameBytesForAnyThreads) {
  const int before = num_threads();
  for (const auto& [out, in] : {std::pair{200, 320}, {300, 100}}) {
    const Tensor weight = random_weight(out, in, DType::bf16);
    const Drifting inputs(out, in, true);
    for (const auto& [options, drift] :
         {std::pair(kSearch, Drift()), {kFeedback, Drift()}, {kFeedback, inputs.drift()}}) {
      set_num_threads(1);
      const auto one = all_bytes(round4(weight.view(), inputs.gram.view(), options, drift));
      for (const int threads : {2, 3}) {
        set_num_threads(threads);
        EXPECT_TRUE(all_bytes(round4(weight.view(), inputs.gram.view(), options, drift)) == one)
            << threads << " threads";
      }
    }
  }
  set_num_threads(before);
}

}  // namespace
}  // namespace nibble::kernels
