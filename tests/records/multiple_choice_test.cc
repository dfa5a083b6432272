// Shares of right answers and their intervals.
#include "records/multiple_choice.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "records/sample_records.h"

namespace nibble::records {
namespace {

TEST(Wilson, KnownIntervals) {
  EXPECT_EQ(wilson(0, 0), Share{});
  // The score interval is where |p - share| = z sqrt(share (1 - share) / n): both ends must solve that.
  constexpr double z = 1.959963984540054;
  for (const auto& [hits, total] : {std::pair{1, 2}, {3, 10}, {462, 600}, {537, 600}, {1, 1000}}) {
    const Share share = wilson(hits, total);
    const double p = share.value();
    EXPECT_EQ(share.hits, hits);
    EXPECT_EQ(share.total, total);
    EXPECT_LT(share.low, p);
    EXPECT_GT(share.high, p);
    // A dozen roundings of doubles below 1.
    for (const double end : {share.low, share.high})
      EXPECT_NEAR((p - end) * (p - end), z * z * end * (1 - end) / total, 1e-14);
  }
  EXPECT_EQ(wilson(0, 7).low, 0);
  EXPECT_NEAR(wilson(0, 7).high, z * z / (7 + z * z), 1e-14);
  EXPECT_EQ(wilson(7, 7).high, 1);
  EXPECT_NEAR(wilson(7, 7).low, 7 / (7 + z * z), 1e-14);
  EXPECT_THROW(wilson(3, 2), InternalError);
}

TEST(MultipleChoice, SharesOfSubjectsCategoriesAndAll) {
  const MultipleChoice m = testing::sample_multiple_choice();
  // Of 7 questions the third (answer C) and the sixth (answer B, by luck) are answered B.
  EXPECT_EQ(m.subjects[0].accuracy, wilson(6, 7));
  EXPECT_EQ(m.subjects[1].accuracy, wilson(2, 3));
  EXPECT_EQ(m.subjects[2].accuracy, wilson(3, 4));
  EXPECT_EQ(m.subjects[3].accuracy, wilson(2, 2));
  ASSERT_EQ(m.categories.size(), 2u) << "addition is in none";
  EXPECT_EQ(m.categories[0], (CategoryResult{"STEM", wilson(9, 11)}));
  EXPECT_EQ(m.categories[1], (CategoryResult{"other (business, health, misc.)", wilson(2, 2)}));
  EXPECT_EQ(m.accuracy, wilson(13, 16));
  EXPECT_EQ(m.agreement, wilson(13, 16)) << "the sample's reference is always right";
}

TEST(MultipleChoice, AReferenceOfTheSameQuestions) {
  MultipleChoice alone = testing::sample_multiple_choice(), reference = alone;
  alone.against = reference.against = "";
  for (MultipleChoice* m : {&alone, &reference}) {
    for (SubjectResult& subject : m->subjects)
      for (ChoiceResult& question : subject.questions) question.reference.reset();
    summarize(*m);
    EXPECT_FALSE(m->agreement.has_value());
  }
  reference.model = "the other";
  reference.subjects[1].questions[0].choice = 3;
  set_reference(alone, reference);
  EXPECT_EQ(alone.against, "the other");
  EXPECT_EQ(alone.agreement, wilson(15, 16));
  EXPECT_EQ(alone.subjects[1].questions[0].reference, 3);
  reference.subjects[1].questions.pop_back();
  EXPECT_THROW(set_reference(alone, reference), InternalError);
}

}  // namespace
}  // namespace nibble::records
