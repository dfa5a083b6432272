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
  EXPECT_THAT(measurements_text({}, 5), HasSubstr("0 linears"));
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
  EXPECT_THAT(evaluation_text({}), HasSubstr("0 (0 positions)"));
}

TEST(Views, EvaluationInTheWordsOfTheTotals) {
  records::Evaluation evaluation;
  evaluation.samples.resize(96);
  for (int i = 0; i < 89; ++i) evaluation.samples[i].exact = true;
  evaluation.exact = {89.0 / 96, 0.856, 0.964};
  EXPECT_THAT(evaluation_text(evaluation), HasSubstr("89 of 96 (92.7 %, 85.6 to 96.4)"));
}

TEST(Views, EvaluationOfTextsThatWereOnlyRead) {
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

TEST(Views, Comparison) {
  const std::array rows = {
      ComparisonRow{"16 bit",
                    41'234'567,
                    "A red circle above two blue squares on a | white ground.",
                    0.96875,
                    "",
                    {},
                    {}},
      ComparisonRow{"all 4 bit", 11'234'567, "A red square.", 0.5, "50 of 96",
                    records::Interval{0.51, 0.4, 0.625}, 0.71},
      ComparisonRow{"dynamic, 10 %", 12'234'567, "A red circle above two blue squares on a | white ground.",
                    0.9375, "93 of 96", records::Interval{0.0123, 0.01, 0.0151}, 0.991}};
  expect_snapshot("report/goldens/comparison.txt", comparison_table(rows));
  expect_snapshot("report/goldens/comparison.md", comparison(rows).to_markdown());
  EXPECT_EQ(comparison_table(std::span(rows).first(1)).find("KL"), std::string::npos);
  EXPECT_EQ(comparison_table(std::span(rows).first(1)).find("Unchanged"), std::string::npos);
  EXPECT_EQ(comparison_table({}), "Description  Size  Result  Exact\n-----------  ----  ------  -----\n");
}

}  // namespace
}  // namespace nibble::report
