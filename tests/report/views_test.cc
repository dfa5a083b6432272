// The texts of the records, as snapshots.
#include "report/views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "records/sample_records.h"
#include "records/snapshot.h"

namespace nibble::report {
namespace {

using testing::expect_snapshot;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Views, Inventory) {
  expect_snapshot("report/goldens/inventory.txt", inventory_text(testing::sample_measurements().inventory));
  EXPECT_THAT(inventory_text({}), HasSubstr("linears"));
}

TEST(Views, Measurements) {
  const auto m = testing::sample_measurements();
  expect_snapshot("report/goldens/measurements.txt", measurements_text(m, 3));
  EXPECT_THAT(measurements_text(m, 0), HasSubstr("visual.merger.mlp.0"));
  EXPECT_EQ(measurements_text(m, 0), measurements_text(m, 1000));
  EXPECT_THAT(measurements_text(records::Measurements(), 5), HasSubstr("0 linears"));
}

TEST(Views, Plan) {
  expect_snapshot("report/goldens/plan.txt", plan_text(testing::sample_plan()));
  EXPECT_THAT(plan_text({}), Not(HasSubstr("over all-4-bit")));
}

TEST(Views, PlanJoinsOnlyNeighboursThatWereDecidedAlike) {
  records::Plan plan;
  plan.decisions = {{"a.q", true, "r", 1},  {"a.k", true, "r", 1}, {"b.q", true, "r", 1},
                    {"b.k", false, "r", 1}, {"b.v", true, "r", 1}, {"b.o", true, "s", 1},
                    {"b.u", true, "s", 2},  {"head", true, "r", 0}};
  const std::string text = plan_text(plan);
  EXPECT_THAT(text.substr(text.find("kept  ")), HasSubstr("kept     reason\n"
                                                          "-------  ------\n"
                                                          "b.u      s\n"
                                                          "a: q, k  r\n"
                                                          "b.q      r\n"
                                                          "b.v      r\n"
                                                          "b.o      s\n"
                                                          "head     r\n"));
}

TEST(Views, Evaluation) {
  const auto evaluation = testing::sample_evaluation();
  expect_snapshot("report/goldens/evaluation.txt", evaluation_text(evaluation));
  auto alone = evaluation;
  alone.against = "";
  EXPECT_THAT(evaluation_text(alone), Not(HasSubstr("KL")));
  EXPECT_THAT(evaluation_text({}), Not(HasSubstr("loss")));
}

TEST(Views, EvaluationInTheWordsOfTheTotals) {
  records::Evaluation evaluation;
  evaluation.samples.resize(96);
  for (int i = 0; i < 89; ++i) evaluation.samples[i].exact = true;
  evaluation.answers = records::AnswerTotals{{89.0 / 96, 0.856, 0.964}, {}, {}, {}};
  EXPECT_THAT(evaluation_text(evaluation), HasSubstr("89 of 96 (92.7 %, 85.6 to 96.4)"));
}

TEST(Views, EvaluationWithoutGeneratedText) {
  auto evaluation = testing::sample_evaluation();
  for (size_t i = 90; i < evaluation.samples.size(); ++i)
    evaluation.samples[i].generated = evaluation.samples[i].exact = false;
  summarize(evaluation);
  EXPECT_THAT(evaluation_text(evaluation), HasSubstr("83 of 90 (92.2 %, "));
  for (auto& sample : evaluation.samples) sample.generated = sample.exact = false;
  summarize(evaluation);
  EXPECT_THAT(evaluation_text(evaluation), Not(HasSubstr("exact")));
  EXPECT_THAT(evaluation_text(evaluation), HasSubstr("loss"));
}

TEST(Views, EvaluationOfAnswersAndTexts) {
  const auto both = testing::sample_text_evaluation();
  expect_snapshot("report/goldens/texts.txt", evaluation_text(both));
  auto texts = both;
  texts.samples.erase(texts.samples.begin(), texts.samples.begin() + 3);
  texts.against = "";
  summarize(texts);
  EXPECT_THAT(evaluation_text(texts), HasSubstr("4 windows (464 tokens predicted, 1934 bytes)"));
  for (const char* other : {"samples", "exact", "KL", "agreement"})
    EXPECT_THAT(evaluation_text(texts), Not(HasSubstr(other)));
}

TEST(Views, MultipleChoice) {
  const auto result = testing::sample_multiple_choice();
  expect_snapshot("report/goldens/multiple_choice.txt", multiple_choice_text(result));
  auto alone = result;
  alone.against = "";
  for (auto& subject : alone.subjects) subject.category = "";
  alone.shots = 4;
  summarize(alone);
  for (const char* other : {"same choice", "category", "fewer"})
    EXPECT_THAT(multiple_choice_text(alone), Not(HasSubstr(other)));
}

TEST(Views, ARowIsOfTheModel) {
  records::ComparedModel model;
  model.description = "projections: 20 of 126 linears in 16 bit";
  model.bytes = 77;
  model.evaluation = testing::sample_text_evaluation();
  model.over_budget = true;
  model.rounding = "feedback";
  const ComparisonRow row = comparison_row(model);
  EXPECT_EQ(row.description, "projections: 20 of 126 linears in 16 bit (over the budget)");
  EXPECT_EQ(row.bytes, 77);
  EXPECT_EQ(row.rounding, "feedback");
  EXPECT_EQ(row.kl[0], model.evaluation->picture_answers->kl);
  EXPECT_EQ(row.kl[1], model.evaluation->prompt_answers->kl);
  EXPECT_EQ(row.kl[2], model.evaluation->texts->kl);
  EXPECT_EQ(row.agreement, model.evaluation->answers->agreement.mean);
  model.evaluation->against = "";
  const ComparisonRow alone = comparison_row(model);
  EXPECT_FALSE(alone.kl[0] || alone.kl[1] || alone.kl[2] || alone.agreement || alone.text_compared);
  EXPECT_TRUE(alone.exact.has_value());
  for (auto& sample : model.evaluation->samples) sample.generated = false;
  EXPECT_FALSE(comparison_row(model).exact.has_value()) << "nothing was asked";
}

TEST(Views, Comparison) {
  ComparisonRow whole, all, dynamic;
  whole.description = "16 bit";
  whole.bytes = 41'234'567;
  whole.result = dynamic.result = "A red circle above two blue squares on a | white ground.";
  whole.exact = 0.96875;
  all.description = "all 4 bit";
  all.bytes = 11'234'567;
  all.result = "A red square.";
  all.exact = 0.5;
  all.unchanged = "50 of 96";
  all.kl[0] = records::Interval{0.51, 0.4, 0.625};
  all.rounding = dynamic.rounding = "plain";
  all.agreement = 0.71;
  dynamic.description = "dynamic, 10 %";
  dynamic.bytes = 12'234'567;
  dynamic.exact = 0.9375;
  dynamic.unchanged = "93 of 96";
  dynamic.kl = {records::Interval{0.0123, 0.01, 0.0151}, records::Interval{1.5e-05, 0, 3e-05}};
  dynamic.spread = records::Spread{4, {records::Spread::Range{0.011, 0.02}}};
  dynamic.agreement = 0.991;
  std::array rows = {whole, all, dynamic};
  expect_snapshot("report/goldens/comparison.txt", comparison_table(rows));
  expect_snapshot("report/goldens/comparison.md", comparison(rows).to_markdown());
  const std::string alone = comparison_table(std::span(rows).first(1));
  for (const char* other : {"KL", "Spread", "Rounding", "Unchanged", "Text", "Perplexity", "Right"})
    EXPECT_THAT(alone, Not(HasSubstr(other)));
  EXPECT_EQ(comparison_table({}), "Description  Size\n-----------  ----\n");

  // Texts and multiple choice alone: nothing was said that could be shown.
  for (ComparisonRow& row : rows) {
    const bool reference = row.description == whole.description;
    ComparisonRow other;
    other.description = row.description;
    other.bytes = row.bytes;
    other.texts = testing::sample_text_evaluation().texts;
    other.text_compared = !reference;
    if (!reference) other.kl[2] = other.texts->kl;
    other.choices = records::wilson(reference ? 462 : 439, 600);
    row = other;
  }
  expect_snapshot("report/goldens/comparison_texts.txt", comparison_table(rows));
}

}  // namespace
}  // namespace nibble::report
