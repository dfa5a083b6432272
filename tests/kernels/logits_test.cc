#include <limits>

#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"

namespace nibble::kernels {
namespace {

TEST(LogitsTest, ArgmaxTakesTheFirstOfEquals) {
  EXPECT_EQ(argmax(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_EQ(argmax(std::vector<float>{-5}), 0);
  const std::vector<float> many = random_values(5001, 1);
  EXPECT_EQ(argmax(many), ref::argmax(many));
  EXPECT_THROW(argmax({}), InternalError);
}

TEST(LogitsTest, LogProbabilityOfKnownDistributions) {
  const std::vector<float> uniform(1000, 7.5f);
  EXPECT_NEAR(log_probability(uniform, 999), -std::log(1000.0), 1e-13);
  const std::vector<float> far = {1000, -1000, 999};
  EXPECT_NEAR(log_probability(far, 0), -std::log1p(std::exp(-1.0)), 1e-13);
  EXPECT_NEAR(log_probability(far, 1), -2000 - std::log1p(std::exp(-1.0)), 1e-11);
  EXPECT_THROW(log_probability(far, 3), InternalError);
  EXPECT_THROW(log_probability(far, -1), InternalError);
}

TEST(LogitsTest, LogProbabilityIsTheReference) {
  const std::vector<float> logits = random_values(32003, 2);
  // fp64 sums of 32003 terms: the relative error is far below 1e-11.
  for (const int64_t id : {0, 17, 32002}) {
    EXPECT_NEAR(log_probability(logits, id), ref::log_probability(logits, id), 1e-11);
  }
}

TEST(LogitsTest, DivergenceIsTheReferenceAndNeverNegative) {
  const std::vector<float> p = random_values(32003, 3), q = random_values(32003, 4);
  EXPECT_NEAR(kl_divergence(p, q), ref::kl_divergence(p, q), 1e-11);
  EXPECT_GT(kl_divergence(p, q), 0.5);
  EXPECT_EQ(kl_divergence(p, p), 0);
  std::vector<float> shifted = p;  // the same distribution up to the rounding of the logits
  for (float& v : shifted) v += 100;
  EXPECT_GE(kl_divergence(p, shifted), 0);
  EXPECT_LT(kl_divergence(p, shifted), 1e-10);
  // Two outcomes: p = (1/2, 1/2), q = (1/4, 3/4).
  const std::vector<float> half = {0, 0}, quarter = {0, std::log(3.0f)};
  EXPECT_NEAR(kl_divergence(half, quarter), 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3), 1e-8);
  EXPECT_THROW(kl_divergence(half, p), InternalError);
}

// -infinity is a probability of 0: it adds nothing where p has it, and makes q impossible where only q has
// it.
TEST(LogitsTest, DivergenceOfImpossibleTokens) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> p = {0, never, 0}, q = {0, 0, 0};
  EXPECT_NEAR(kl_divergence(p, q), std::log(1.5), 1e-15);
  EXPECT_EQ(kl_divergence(p, p), 0);
  EXPECT_EQ(kl_divergence(q, p), std::numeric_limits<double>::infinity());
  EXPECT_NEAR(ref::kl_divergence(p, q), std::log(1.5), 1e-15);
}

}  // namespace
}  // namespace nibble::kernels
