#include "eval/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "base/threads.h"
#include "data/answers.h"
#include "eval/loaded.h"
#include "io/json.h"
#include "kernels/ref/ref.h"

namespace nibble::eval {
namespace {

using testing::damage;
using testing::Loaded;

std::vector<data::Item> items_of(const Loaded& model, const std::vector<std::string>& files, size_t n,
                                 int64_t window) {
  auto samples = data::read_samples(files);
  samples.resize(std::min(n, samples.size()));
  return data::make_items(samples, model.maker, window);
}

std::vector<data::Item> shipped(const Loaded& model, size_t n) {
  return items_of(model, {NIBBLE_ROOT "/pictures/evaluation/samples.jsonl"}, n, 2048);
}

records::Evaluation judge(Loaded& model, Loaded* reference, const std::vector<data::Item>& items,
                          const Options& options) {
  std::optional<Reading> theirs;
  if (reference) theirs = read(reference->runner, items);
  return evaluate(read(model.runner, items), theirs ? &*theirs : nullptr, items, model.maker, options);
}

TEST(Evaluate, AModelAgreesWithItself) {
  Loaded model;
  const auto items = shipped(model, 6);
  const auto result = judge(model, &model, items, {});
  ASSERT_EQ(result.samples.size(), 6u);
  EXPECT_EQ(result.answers->kl.mean, 0);
  EXPECT_EQ(result.answers->agreement.mean, 1);
  EXPECT_EQ(result.answers->exact.mean, 1) << "the zoo's model knows these six";
  EXPECT_EQ(result.samples[0].output,
            *data::read_samples(std::vector<std::string>{NIBBLE_ROOT "/pictures/evaluation/samples.jsonl"})[0]
                 .answer);
  EXPECT_EQ(result.tensor_bytes, model.binding.tensor_bytes());
}

TEST(Evaluate, LossAndKlAreThoseOfTheLogits) {
  Loaded model, other;
  damage(other, "visual.merger.mlp.2");
  const auto items = shipped(model, 2);
  const auto result = judge(other, &model, items, {.max_new_tokens = 4, .generate = false});
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
  const auto result = judge(model, nullptr, items, {});
  ASSERT_EQ(result.samples.size(), items.size());
  for (const auto& s : result.samples) {
    EXPECT_FALSE(s.generated);
    EXPECT_GT(s.loss, 0);
  }
  EXPECT_EQ(result.samples[0].positions, 9) << "a window of ten tokens predicts nine";
}

/// fp32 sums in another order differ by about 1e-6 of the largest logit, which is about 20; differences of
/// losses that this lets through change no digit that is printed.
constexpr double kTolerance = 1e-4;

TEST(Evaluate, WindowsOfTextAreTheReferences) {
  const io::Json golden = io::read_json(NIBBLE_ROOT "/tests/eval/goldens/text.json");
  Loaded whole, damaged;
  damage(damaged, golden["damaged"].get<std::string>());
  const std::string file = NIBBLE_ROOT "/tests/eval/texts.jsonl";
  const auto items = items_of(whole, {file}, 100, golden["window"].get<int64_t>());
  const auto result = judge(damaged, &whole, items, {});
  const io::Json& windows = golden["windows"];
  ASSERT_EQ(result.samples.size(), windows.size());
  for (size_t i = 0; i < windows.size(); ++i) {
    const records::SampleResult& sample = result.samples[i];
    EXPECT_TRUE(sample.plain);
    EXPECT_EQ(sample.id, file + ":" + windows[i]["id"].get<std::string>());
    EXPECT_EQ(sample.positions, windows[i]["tokens"].get<int64_t>()) << sample.id;
    EXPECT_EQ(sample.bytes, windows[i]["bytes"].get<int64_t>()) << sample.id;
    EXPECT_NEAR(sample.loss, windows[i]["loss"].get<double>(), kTolerance) << sample.id;
    EXPECT_NEAR(sample.kl, windows[i]["kl"].get<double>(), kTolerance) << sample.id;
    EXPECT_EQ(sample.agreement, windows[i]["agreement"].get<double>()) << sample.id;
  }
  EXPECT_FALSE(result.answers.has_value());
  const io::Json& totals = golden["totals"];
  EXPECT_NEAR(result.texts->loss.mean, totals["loss"].get<double>(), kTolerance);
  EXPECT_NEAR(result.texts->perplexity.mean / totals["perplexity"].get<double>(), 1, kTolerance);
  EXPECT_NEAR(result.texts->loss_per_byte.mean, totals["loss_per_byte"].get<double>(), kTolerance);
  EXPECT_NEAR(result.texts->kl.mean, totals["kl"].get<double>(), kTolerance);
  EXPECT_NEAR(result.texts->agreement.mean, totals["agreement"].get<double>(), 1e-12);
}

TEST(Evaluate, OneReadingOfTheReferenceServesAllModels) {
  Loaded whole, damaged;
  damage(damaged, "model.layers.5.mlp.down_proj");
  auto items = shipped(whole, 3);
  const auto texts = items_of(whole, {NIBBLE_ROOT "/tests/eval/texts.jsonl"}, 2, 16);
  items.insert(items.begin() + 1, texts.begin(), texts.end());
  const Reading reference = read(whole.runner, items);
  const auto first = evaluate(read(damaged.runner, items), &reference, items, whole.maker, {});
  EXPECT_EQ(evaluate(reference, &reference, items, whole.maker, {}).texts->kl.mean, 0);
  EXPECT_EQ(evaluate(read(damaged.runner, items), &reference, items, whole.maker, {}), first);
  EXPECT_TRUE(first.answers.has_value());
  EXPECT_GT(first.texts->kl.mean, 0);
}

TEST(Evaluate, OpenAnswersAreTheModelsOwn) {
  Loaded model;
  auto items = shipped(model, 3);
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
  const auto items = shipped(model, 5);
  set_num_threads(1);
  const auto one = judge(model, nullptr, items, {});
  set_num_threads(3);
  EXPECT_EQ(one, judge(model, nullptr, items, {}));
}

}  // namespace
}  // namespace nibble::eval
