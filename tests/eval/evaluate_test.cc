#include "eval/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "data/answers.h"
#include "kernels/ref/ref.h"

namespace nibble::eval {
namespace {

struct Loaded {
  model::Binding binding{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  data::PromptMaker maker{binding};
  run::Weights weights{binding, kernels::Compute::f32};
  run::Runner runner{weights};

  std::vector<data::Item> items(size_t n) const {
    const std::vector<std::string> files = {NIBBLE_ROOT "/pictures/evaluation/samples.jsonl"};
    auto samples = data::read_samples(files);
    samples.resize(n);
    return data::make_items(samples, maker, 2048);
  }
};

/// Puts zeros in place of a linear, so that the model is another one.
void damage(Loaded& model, const std::string& name) {
  for (const model::Linear* l : model::linears(model.binding.spec()))
    if (l->name == name)
      model.weights.replace(
          name, kernels::Weight::pack(Matrix::zeros(l->out, l->in).tensor(), kernels::Compute::f32));
}

TEST(Evaluate, AModelAgreesWithItself) {
  Loaded model;
  const auto items = model.items(6);
  const auto result = evaluate(model.runner, &model.runner, items, model.maker, {});
  ASSERT_EQ(result.samples.size(), 6u);
  EXPECT_EQ(result.kl.mean, 0);
  EXPECT_EQ(result.agreement.mean, 1);
  EXPECT_EQ(result.exact.mean, 1) << "the zoo's model knows these six";
  EXPECT_EQ(result.samples[0].output,
            *data::read_samples(std::vector<std::string>{NIBBLE_ROOT "/pictures/evaluation/samples.jsonl"})[0]
                 .answer);
  EXPECT_EQ(result.tensor_bytes, model.binding.tensor_bytes());
}

TEST(Evaluate, LossAndKlAreThoseOfTheLogits) {
  Loaded model, other;
  damage(other, "visual.merger.mlp.2");
  const auto items = model.items(2);
  const auto result =
      evaluate(other.runner, &model.runner, items, model.maker, {.max_new_tokens = 4, .generate = false});
  for (size_t i = 0; i < items.size(); ++i) {
    const run::Prompt prompt = items[i].fed();
    const run::Prompt* pointer = &prompt;
    const auto n = static_cast<int64_t>(items[i].answer.size());
    const auto logits = [&](Loaded& l) {
      auto sequences = l.runner.start({&pointer, 1});
      run::Sequence* s = &sequences[0];
      return l.runner.feed({&s, 1}, {&n, 1}, false);
    };
    const Matrix own = logits(other), reference = logits(model);
    double loss = 0, kl = 0;
    for (int64_t r = 0; r < n; ++r) {
      const std::span<const float> p{reference.row(r), static_cast<size_t>(reference.cols())};
      const std::span<const float> q{own.row(r), static_cast<size_t>(own.cols())};
      loss -= kernels::ref::log_probability(q, items[i].answer[static_cast<size_t>(r)]);
      kl += kernels::ref::kl_divergence(p, q);
    }
    EXPECT_EQ(result.samples[i].positions, n);
    // The batch is a taller matrix than one sample: fp32 sums differ in their last bits.
    EXPECT_NEAR(result.samples[i].loss, loss / static_cast<double>(n), 1e-4);
    EXPECT_NEAR(result.samples[i].kl, kl / static_cast<double>(n), 1e-4);
    EXPECT_GT(result.samples[i].kl, 0.1);
    EXPECT_FALSE(result.samples[i].generated);
  }
}

TEST(Evaluate, PlainTextIsReadButNotContinued) {
  Loaded model;
  data::Sample sample;
  sample.id = "text";
  sample.plain = true;
  sample.text = "Blessed be God, which hath not turned away my prayer, nor his mercy from me.";
  const auto items = data::make_items({&sample, 1}, model.maker, 10);
  const auto result = evaluate(model.runner, nullptr, items, model.maker, {});
  ASSERT_EQ(result.samples.size(), items.size());
  for (const auto& s : result.samples) {
    EXPECT_FALSE(s.generated);
    EXPECT_GT(s.loss, 0);
  }
  EXPECT_EQ(result.samples[0].positions, 9) << "a window of ten tokens predicts nine";
}

TEST(Evaluate, OpenAnswersAreTheModelsOwn) {
  Loaded model;
  auto items = model.items(3);
  const auto known = items;
  for (auto& item : items) {
    item.answer.clear();
    item.answer_text.clear();
  }
  data::complete_answers(items, model.runner, model.maker);
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(items[i].answer_text, known[i].answer_text);
    EXPECT_EQ(items[i].answer, known[i].answer) << "with the end-of-turn token";
  }
}

TEST(Evaluate, SameResultForAnyNumberOfThreads) {
  Loaded model;
  const auto items = model.items(5);
  set_num_threads(1);
  const auto one = evaluate(model.runner, nullptr, items, model.maker, {});
  set_num_threads(3);
  EXPECT_EQ(one, evaluate(model.runner, nullptr, items, model.maker, {}));
}

}  // namespace
}  // namespace nibble::eval
