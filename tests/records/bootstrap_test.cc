// The totals of an evaluation and their intervals.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
  EXPECT_EQ(e.answers->exact.mean, 0.5);
  EXPECT_EQ(e.answers->loss.mean, 7.0 / 4);
  EXPECT_EQ(e.answers->kl.mean, 1.75 / 4);
  EXPECT_EQ(e.answers->agreement.mean, 2.5 / 4);
  // Of two samples every fourth resample is twice the first and every fourth twice the second.
  EXPECT_EQ(e.answers->loss.low, 1.0);
  EXPECT_EQ(e.answers->loss.high, 2.0);
  EXPECT_EQ(e.answers->exact.low, 0.0);
  EXPECT_EQ(e.answers->exact.high, 1.0);
}

TEST(Summarize, NothingGivesZeros) {
  Evaluation e;
  e.answers = AnswerTotals{{1, 1, 1}, {}, {}, {}};
  e.texts.emplace();
  summarize(e);
  EXPECT_FALSE(e.answers.has_value());
  EXPECT_FALSE(e.texts.has_value());
  e.samples = {sample(true, 0, 3, 3, 1)};
  summarize(e);
  EXPECT_EQ(e.answers->exact, (Interval{1, 1, 1}));
  EXPECT_EQ(e.answers->loss, Interval{});
  EXPECT_EQ(e.answers->agreement, Interval{});
}

TEST(Summarize, ResamplesWithoutPositionsAreLeftOut) {
  Evaluation e;
  e.samples = {sample(true, 0, 9, 9, 0), sample(true, 4, 0.5, 0.25, 1)};
  summarize(e);
  EXPECT_EQ(e.answers->loss, (Interval{0.5, 0.5, 0.5}));
}

TEST(Summarize, ExactCountsOnlyWhatWasGenerated) {
  Evaluation e;
  e.samples = {sample(true, 1, 1, 0, 1), sample(false, 1, 3, 0, 1), sample(false, 2, 0.5, 0, 1)};
  e.samples[2].generated = false;
  summarize(e);
  EXPECT_EQ(e.answers->exact.mean, 0.5);
  EXPECT_EQ(e.answers->loss.mean, 1.25);
  for (auto& s : e.samples) s.generated = s.exact = false;
  summarize(e);
  EXPECT_EQ(e.answers->exact, Interval{});
}

SampleResult window(int64_t tokens, int64_t bytes, double loss, double kl, double agreement) {
  SampleResult result = sample(false, tokens, loss, kl, agreement);
  result.plain = true;
  result.generated = false;
  result.bytes = bytes;
  return result;
}

TEST(Summarize, TextsAreRatiosOfSums) {
  Evaluation e;
  e.samples = {window(1, 10, 1.0, 0.25, 1.0), window(3, 2, 2.0, 0.5, 0.5)};
  summarize(e);
  EXPECT_FALSE(e.answers.has_value());
  ASSERT_TRUE(e.texts.has_value());
  EXPECT_EQ(e.texts->loss, (Interval{7.0 / 4, 1.0, 2.0}));
  EXPECT_EQ(e.texts->perplexity, (Interval{std::exp(7.0 / 4), std::exp(1.0), std::exp(2.0)}));
  EXPECT_EQ(e.texts->loss_per_byte, (Interval{7.0 / 12, 1.0 / 10, 6.0 / 2}));
  EXPECT_EQ(e.texts->kl.mean, 1.75 / 4);
  EXPECT_EQ(e.texts->agreement.mean, 2.5 / 4);
}

TEST(Summarize, AnswersAndTextsStandApart) {
  Evaluation answers, texts, both;
  for (int i = 0; i < 23; ++i) {
    answers.samples.push_back(sample(i % 3 == 0, 1 + i % 5, 0.01 * i, 0.001 * i, 0.5));
    texts.samples.push_back(window(2 + i % 4, 9 + i % 7, 0.02 * i, 0.003 * i, 0.25));
    both.samples.push_back(texts.samples.back());
    both.samples.push_back(answers.samples.back());
  }
  for (Evaluation* e : {&answers, &texts, &both}) summarize(*e);
  EXPECT_EQ(both.answers, answers.answers);
  EXPECT_EQ(both.texts, texts.texts);
}

TEST(Summarize, AnswersToPicturesAndToPromptsStandApart) {
  Evaluation pictures, prompts, both;
  for (int i = 0; i < 23; ++i) {
    pictures.samples.push_back(sample(i % 3 == 0, 1 + i % 5, 0.01 * i, 0.001 * i, 0.5));
    pictures.samples.back().modality = Modality::vision;
    prompts.samples.push_back(sample(i % 4 == 0, 2 + i % 4, 0.02 * i, 0.003 * i, 0.25));
    both.samples.push_back(prompts.samples.back());
    both.samples.push_back(pictures.samples.back());
    both.samples.push_back(window(2 + i % 4, 9 + i % 7, 0.02 * i, 0.5, 0.25));
  }
  for (Evaluation* e : {&pictures, &prompts, &both}) summarize(*e);
  EXPECT_EQ(both.picture_answers, pictures.answers);
  EXPECT_EQ(both.prompt_answers, prompts.answers);
  EXPECT_EQ(pictures.picture_answers, pictures.answers);
  EXPECT_FALSE(pictures.prompt_answers.has_value());
  EXPECT_FALSE(prompts.picture_answers.has_value());
  EXPECT_LT(both.answers->kl.mean, prompts.answers->kl.mean);
  EXPECT_GT(both.answers->kl.mean, pictures.answers->kl.mean);
}

TEST(Summarize, APerplexityIsFinite) {
  Evaluation e;
  e.samples = {window(1, 1, 1000, 0, 1)};
  summarize(e);
  EXPECT_EQ(e.texts->perplexity.mean, std::numeric_limits<double>::max());
  EXPECT_EQ(e.texts->perplexity.high, std::numeric_limits<double>::max());
}

TEST(Summarize, EqualSamplesHaveNoWidth) {
  Evaluation e;
  e.samples.assign(50, sample(true, 4, 0.5, 0.25, 1));
  summarize(e);
  EXPECT_EQ(e.answers->exact, (Interval{1, 1, 1}));
  EXPECT_EQ(e.answers->loss, (Interval{0.5, 0.5, 0.5}));
}

TEST(Summarize, IntervalOfAShareIsTheBinomialOne) {
  // 300 of 400: the normal interval is 0.75 +- 1.96 * sqrt(0.75 * 0.25 / 400) = 0.0424. The ends of a
  // bootstrap of 2000 resamples have a standard error of about sqrt(0.025 * 0.975 / 2000) / density = 0.06 of
  // a standard deviation, 0.0013; a share moves in steps of 1/400.
  Evaluation e;
  for (int i = 0; i < 400; ++i) e.samples.push_back(sample(i % 4 != 0, 1, 0, 0, 1));
  summarize(e);
  const double half = 1.96 * std::sqrt(0.75 * 0.25 / 400);
  EXPECT_NEAR(e.answers->exact.low, 0.75 - half, 3 * 0.0013 + 1.0 / 400);
  EXPECT_NEAR(e.answers->exact.high, 0.75 + half, 3 * 0.0013 + 1.0 / 400);
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
  EXPECT_NEAR(e.answers->loss.low, sum / weight - 1.96 * deviation, 0.36 * deviation);
  EXPECT_NEAR(e.answers->loss.high, sum / weight + 1.96 * deviation, 0.36 * deviation);
  EXPECT_LT(e.answers->loss.low, e.answers->loss.mean);
  EXPECT_GT(e.answers->loss.high, e.answers->loss.mean);
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
