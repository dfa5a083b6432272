// The totals of an evaluation and their intervals.
#include <gtest/gtest.h>

#include <cmath>

#include "records/evaluation.h"

namespace nibble::records {
namespace {

SampleResult sample(bool exact, int64_t positions, double loss, double kl, double agreement) {
  SampleResult result;
  result.exact = exact;
  result.positions = positions;
  result.loss = loss;
  result.kl = kl;
  result.agreement = agreement;
  return result;
}

TEST(Summarize, MeansWeighSamplesByPositions) {
  Evaluation e;
  e.samples = {sample(true, 1, 1.0, 0.25, 1.0), sample(false, 3, 2.0, 0.5, 0.5)};
  summarize(e);
  EXPECT_EQ(e.exact.mean, 0.5);
  EXPECT_EQ(e.loss.mean, 7.0 / 4);
  EXPECT_EQ(e.kl.mean, 1.75 / 4);
  EXPECT_EQ(e.agreement.mean, 2.5 / 4);
  // Of two samples every fourth resample is twice the first and every fourth twice the second.
  EXPECT_EQ(e.loss.low, 1.0);
  EXPECT_EQ(e.loss.high, 2.0);
  EXPECT_EQ(e.exact.low, 0.0);
  EXPECT_EQ(e.exact.high, 1.0);
}

TEST(Summarize, NothingGivesZeros) {
  Evaluation e;
  e.exact = {1, 1, 1};
  summarize(e);
  EXPECT_EQ(e.exact, Interval{});
  EXPECT_EQ(e.loss, Interval{});
  e.samples = {sample(true, 0, 3, 3, 1)};
  summarize(e);
  EXPECT_EQ(e.exact, (Interval{1, 1, 1}));
  EXPECT_EQ(e.loss, Interval{});
  EXPECT_EQ(e.agreement, Interval{});
}

TEST(Summarize, ResamplesWithoutPositionsAreLeftOut) {
  Evaluation e;
  e.samples = {sample(true, 0, 9, 9, 0), sample(true, 4, 0.5, 0.25, 1)};
  summarize(e);
  EXPECT_EQ(e.loss, (Interval{0.5, 0.5, 0.5}));
}

TEST(Summarize, ExactCountsOnlyWhatWasGenerated) {
  Evaluation e;
  e.samples = {sample(true, 1, 1, 0, 1), sample(false, 1, 3, 0, 1), sample(false, 2, 0.5, 0, 1)};
  e.samples[2].generated = false;
  summarize(e);
  EXPECT_EQ(e.exact.mean, 0.5);
  EXPECT_EQ(e.loss.mean, 1.25);
  for (auto& s : e.samples) s.generated = s.exact = false;
  summarize(e);
  EXPECT_EQ(e.exact, Interval{});
}

TEST(Summarize, EqualSamplesHaveNoWidth) {
  Evaluation e;
  e.samples.assign(50, sample(true, 4, 0.5, 0.25, 1));
  summarize(e);
  EXPECT_EQ(e.exact, (Interval{1, 1, 1}));
  EXPECT_EQ(e.loss, (Interval{0.5, 0.5, 0.5}));
}

TEST(Summarize, IntervalOfAShareIsTheBinomialOne) {
  // 300 of 400: the normal interval is 0.75 +- 1.96 * sqrt(0.75 * 0.25 / 400) = 0.0424. The ends of a
  // bootstrap of 2000 resamples have a standard error of about sqrt(0.025 * 0.975 / 2000) / density = 0.06 of
  // a standard deviation, 0.0013; a share moves in steps of 1/400.
  Evaluation e;
  for (int i = 0; i < 400; ++i) e.samples.push_back(sample(i % 4 != 0, 1, 0, 0, 1));
  summarize(e);
  const double half = 1.96 * std::sqrt(0.75 * 0.25 / 400);
  EXPECT_NEAR(e.exact.low, 0.75 - half, 3 * 0.0013 + 1.0 / 400);
  EXPECT_NEAR(e.exact.high, 0.75 + half, 3 * 0.0013 + 1.0 / 400);
}

TEST(Summarize, IntervalOfARatioFollowsTheDeltaMethod) {
  // Positions 1 or 9 with losses that differ: var(ratio) = sum((p (v - ratio))^2) / sum(p)^2.
  Evaluation e;
  for (int i = 0; i < 600; ++i) e.samples.push_back(sample(true, i % 2 ? 9 : 1, 1 + 0.1 * (i % 10), 0, 1));
  summarize(e);
  double sum = 0, weight = 0, variance = 0;
  for (const auto& s : e.samples) {
    sum += static_cast<double>(s.positions) * s.loss;
    weight += static_cast<double>(s.positions);
  }
  for (const auto& s : e.samples)
    variance += std::pow(static_cast<double>(s.positions) * (s.loss - sum / weight), 2);
  const double deviation = std::sqrt(variance) / weight;
  // Six standard errors (0.06 of a deviation) of an end of the bootstrap.
  EXPECT_NEAR(e.loss.low, sum / weight - 1.96 * deviation, 0.36 * deviation);
  EXPECT_NEAR(e.loss.high, sum / weight + 1.96 * deviation, 0.36 * deviation);
  EXPECT_LT(e.loss.low, e.loss.mean);
  EXPECT_GT(e.loss.high, e.loss.mean);
}

TEST(Summarize, IsTheSameOnEveryCall) {
  Evaluation a;
  for (int i = 0; i < 37; ++i) a.samples.push_back(sample(i % 3 == 0, 1 + i % 5, 0.01 * i, 0.001 * i, 0.5));
  Evaluation b = a;
  summarize(a);
  summarize(b);
  summarize(b);
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace nibble::records
