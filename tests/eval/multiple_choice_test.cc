// Multiple choice against transformers (make_goldens.py), and what is shared against what is not.
#include "eval/multiple_choice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/threads.h"
#include "eval/loaded.h"
#include "io/json.h"

namespace nibble::eval {
namespace {

using testing::Loaded;

const std::string kFolder = NIBBLE_ROOT "/tests/eval/mmlu";

records::MultipleChoice answer(Loaded& model, const data::ChoiceOptions& options, bool share = true) {
  return answer_choices(model.runner, model.maker, data::read_mmlu(kFolder, options), options, share);
}

TEST(MultipleChoice, ChoicesAreTheReferences) {
  // As in evaluate_test.cc.
  constexpr double kTolerance = 1e-4;
  Loaded model;
  const io::Json golden = io::read_json(NIBBLE_ROOT "/tests/eval/goldens/text.json");
  const data::ChoiceTokens tokens = data::choice_tokens(model.maker);
  size_t next = 0;
  // The goldens go by subject, and within it by the number of examples.
  for (size_t s = 0; s < 3; ++s)
    for (const int64_t shots : {0, 2, 5}) {
      const data::ChoiceOptions options{.shots = shots};
      const data::ChoiceSubject subject = data::read_mmlu(kFolder, {})[s];
      const auto prompts = data::mmlu_prompts(subject, model.maker, tokens, options);
      const auto result = answer(model, options).subjects[s];
      ASSERT_EQ(result.name, subject.name);
      for (size_t i = 0; i < result.questions.size(); ++i) {
        const io::Json& expected = golden["choices"].at(next++);
        const records::ChoiceResult& got = result.questions[i];
        EXPECT_EQ(expected["subject"], subject.name);
        EXPECT_EQ(expected["shots"], shots);
        EXPECT_EQ(got.shots, expected["examples"].get<int64_t>());
        EXPECT_EQ(data::mmlu_prompt(subject, subject.questions[i], static_cast<size_t>(got.shots)),
                  expected["prompt"].get<std::string>());
        EXPECT_EQ(std::ssize(prompts[i].ids), expected["tokens"].get<int64_t>());
        EXPECT_EQ(std::string(1, "ABCD"[got.answer]), expected["answer"].get<std::string>());
        const auto values = expected["log_probabilities"].get<std::array<double, 4>>();
        for (size_t k = 0; k < 4; ++k)
          EXPECT_NEAR(got.log_probabilities[k], values[k], kTolerance) << subject.name << " " << i;
        EXPECT_EQ(got.choice, std::max_element(values.begin(), values.end()) - values.begin());
      }
    }
  EXPECT_EQ(next, golden["choices"].size());
}

TEST(MultipleChoice, SharingChangesNoBit) {
  Loaded model;
  for (const int64_t shots : {0, 1, 2, 3}) {
    const data::ChoiceOptions options{.shots = shots};
    const auto whole = answer(model, options, false);
    EXPECT_EQ(answer(model, options), whole) << shots;
    // And every question as if it were the only one.
    for (data::ChoiceSubject& subject : data::read_mmlu(kFolder, options)) {
      const auto found = std::find_if(whole.subjects.begin(), whole.subjects.end(),
                                      [&](const auto& other) { return other.name == subject.name; });
      const std::vector<data::ChoiceRow> questions = subject.questions;
      for (size_t i = 0; i < questions.size(); ++i) {
        subject.questions = {questions[i]};
        const auto alone = answer_choices(model.runner, model.maker, {&subject, 1}, options);
        EXPECT_EQ(alone.subjects[0].questions[0], found->questions[i]) << subject.name << " " << i;
      }
    }
  }
}

/// Counts the rows that go through the model.
class Rows : public run::Observer {
 public:
  void output(const std::string& module, ConstMatrix y) override {
    if (module == "model.layers.0") rows += y.rows;
  }
  int64_t rows = 0;
};

TEST(MultipleChoice, WhatASubjectSharesIsRunOnce) {
  Loaded model;
  Rows counter;
  model.runner.observe(&counter);
  answer(model, {}, false);
  const int64_t whole = std::exchange(counter.rows, 0);
  answer(model, {});
  int64_t expected = 0;
  const data::ChoiceTokens tokens = data::choice_tokens(model.maker);
  for (const data::ChoiceSubject& subject : data::read_mmlu(kFolder, {})) {
    const auto prompts = data::mmlu_prompts(subject, model.maker, tokens, {});
    size_t same = prompts[0].ids.size(), tokens_all = 0;
    for (const auto& prompt : prompts) {
      tokens_all += prompt.ids.size();
      size_t n = 0;
      while (n < same && n < prompt.ids.size() && prompt.ids[n] == prompts[0].ids[n]) ++n;
      same = n;
    }
    // Whole tiles of 32 tokens are shared.
    same = prompts.size() < 2 ? 0 : same / 32 * 32;
    expected += static_cast<int64_t>(tokens_all - same * (prompts.size() - (same > 0)));
  }
  EXPECT_EQ(counter.rows, expected);
  EXPECT_LT(counter.rows, whole * 6 / 10);
}

TEST(MultipleChoice, SameResultForAnyNumberOfThreads) {
  Loaded model;
  set_num_threads(1);
  const auto one = answer(model, {});
  set_num_threads(3);
  EXPECT_EQ(answer(model, {}), one);
}

TEST(MultipleChoice, TheRecordSaysHowItWasMade) {
  Loaded model;
  const auto result = answer(model, {.shots = 2, .limit = 2, .special_tokens = false});
  EXPECT_EQ(result.shots, 2);
  EXPECT_FALSE(result.special_tokens);
  EXPECT_EQ(result.compute, "f32");
  EXPECT_EQ(result.tensor_bytes, model.binding.tensor_bytes());
  ASSERT_EQ(result.subjects.size(), 3u);
  EXPECT_EQ(result.subjects[0].category, "");
  EXPECT_EQ(result.subjects[1].category, "social sciences");
  EXPECT_EQ(result.subjects[1].questions.size(), 2u);
  EXPECT_EQ(result.subjects[1].questions[1].line, 2);
  EXPECT_EQ(result.accuracy.total, 5);
}

}  // namespace
}  // namespace nibble::eval
