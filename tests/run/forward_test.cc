// The forward pass of models/qwen2-vl-tiny against transformers, and against itself in other cuts.
#include "run/forward.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/threads.h"
#include "run/goldens.h"
#include "run/trace.h"

namespace nibble::run {
namespace {

using ::testing::HasSubstr;

constexpr std::array kPrompts = {"one", "two", "text"};
constexpr int64_t kLast = 2, kLimit = 24;  // as in make_goldens.py

/// Greedy tokens of prompts that are run side by side.
std::vector<std::vector<int64_t>> greedy(Runner& runner, const std::vector<Prompt>& prompts) {
  std::vector<const Prompt*> pointers;
  for (const Prompt& p : prompts) pointers.push_back(&p);
  return runner.generate(pointers, kLimit);
}

TEST(Forward, ModuleOutputsAreTheReferences) {
  Model model;
  TraceObserver observer;
  model.runner.observe(&observer);
  last_logits(model.runner, {model.prompt("one")}, golden_ids("one.ids").size());
  const std::map<std::string, Matrix> outputs = observer.take();
  int compared = 0;
  for (const auto& [name, info] : goldens().tensors()) {
    if (!name.ends_with(".output")) continue;
    const auto found = outputs.find(name.substr(0, name.size() - 7));
    ASSERT_NE(found, outputs.end()) << name;
    expect_golden(found->second.view(), name);
    ++compared;
  }
  EXPECT_GE(compared, 12);
}

TEST(Forward, EveryModuleWithAWeightIsTraced) {
  Model model;
  TraceObserver observer;
  model.runner.observe(&observer);
  last_logits(model.runner, {model.prompt("one")}, 1);
  const std::map<std::string, Matrix> outputs = observer.take();
  for (const model::TensorSpec& tensor : model::tensor_table(model.binding.spec())) {
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    EXPECT_TRUE(outputs.contains(module)) << module;
  }
  EXPECT_TRUE(outputs.contains("lm_head"));
}

TEST(Forward, LogitsAreTheReferences) {
  Model model;
  for (const std::string name : kPrompts)
    expect_golden(last_logits(model.runner, {model.prompt(name)}, kLast).view(), name + ".logits");
}

TEST(Forward, GreedyTokensAreTheReferences) {
  Model model;
  for (const std::string name : kPrompts)
    EXPECT_EQ(greedy(model.runner, {model.prompt(name)})[0], golden_ids(name + ".greedy")) << name;
}

TEST(Forward, SequencesSideBySideAreThoseAlone) {
  Model model;
  const std::vector<Prompt> prompts = {model.prompt("two"), model.prompt("text"), model.prompt("one"),
                                       model.prompt("one"), model.prompt("text")};
  const Matrix together = last_logits(model.runner, prompts, kLast);
  ASSERT_EQ(together.rows(), kLast * static_cast<int64_t>(prompts.size()));
  const auto texts = greedy(model.runner, prompts);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Matrix alone = last_logits(model.runner, {prompts[i]}, kLast);
    // A product of other height may sum in another order.
    EXPECT_LT(difference(together.row(static_cast<int64_t>(i) * kLast), alone.data(), kLast * alone.cols()),
              kTolerance)
        << i;
    EXPECT_EQ(texts[i], greedy(model.runner, {prompts[i]})[0]) << i;
  }
}

TEST(Forward, CachedStepsAreTheWholePass) {
  Model model;
  for (const std::string name : kPrompts) {
    const Prompt prompt = model.prompt(name);
    const std::vector<int64_t> continuation = golden_ids(name + ".greedy");
    const Prompt* pointer = &prompt;
    std::vector<Sequence> sequences = model.runner.start({&pointer, 1});
    Sequence* sequence = &sequences[0];
    const int64_t one = 1;
    model.runner.feed({&sequence, 1}, {&one, 1}, true);
    // Then one token, two, three, ... at a time, with the keys and values of those before.
    Prompt whole = prompt;
    for (size_t at = 0, step = 1; at + step <= continuation.size(); at += step, ++step) {
      for (size_t i = at; i < at + step; ++i) {
        whole.ids.push_back(continuation[i]);
        sequence->append(continuation[i]);
      }
      const auto last = static_cast<int64_t>(step);
      const Matrix cached = model.runner.feed({&sequence, 1}, {&last, 1}, true);
      const Matrix anew = last_logits(model.runner, {whole}, last);
      EXPECT_LT(difference(cached.data(), anew.data(), cached.rows() * cached.cols()), kTolerance)
          << name << " " << at;
    }
  }
}

TEST(Forward, BitsAreTheSameForAnyNumberOfThreads) {
  const int before = num_threads();
  for (const kernels::Compute compute : {kernels::Compute::f32, kernels::Compute::bf16}) {
    Matrix first;
    std::vector<std::vector<int64_t>> tokens;
    for (const int threads : {1, 3, 8}) {
      set_num_threads(threads);
      Model model(compute);
      const std::vector<Prompt> prompts = {model.prompt("two"), model.prompt("one"), model.prompt("text")};
      Matrix logits = last_logits(model.runner, prompts, kLast);
      if (threads == 1) {
        tokens = greedy(model.runner, prompts);
        first = std::move(logits);
        continue;
      }
      EXPECT_TRUE(same_bits(first, logits)) << threads << " threads";
      EXPECT_EQ(greedy(model.runner, prompts), tokens) << threads << " threads";
    }
  }
  set_num_threads(before);
}

TEST(Forward, Bf16IsCloseToF32) {
  Model exact, rounded(kernels::Compute::bf16);
  double largest = 0;
  for (const std::string name : kPrompts) {
    const Matrix expected = last_logits(exact.runner, {exact.prompt(name)}, kLast);
    const Matrix actual = last_logits(rounded.runner, {rounded.prompt(name)}, kLast);
    const double apart = difference(actual.data(), expected.data(), expected.rows() * expected.cols());
    // About 60 products in a row round their factors to 8 bits (2^-9 each); such errors add up like a random
    // walk, to 2^-9 * sqrt(60) of the largest value.
    EXPECT_LT(apart, 0.015) << name;
    largest = std::max(largest, apart);
  }
  EXPECT_GT(largest, 1e-5) << "products were not rounded to bf16 at all";
}

TEST(Forward, GenerateStopsAtTheLimit) {
  Model model;
  const Prompt prompt = model.prompt("one");
  const std::vector<int64_t> whole = golden_ids("one.greedy");
  const Prompt* pointer = &prompt;
  EXPECT_TRUE(model.runner.generate({&pointer, 1}, 0)[0].empty());
  EXPECT_EQ(model.runner.generate({&pointer, 1}, 3)[0],
            std::vector<int64_t>(whole.begin(), whole.begin() + 3));
}

TEST(Forward, AContinuationIsTextWhateverItsIds) {
  Model model;
  Prompt prompt = model.prompt("one"), longer = prompt;
  prompt.continuation = {17, 18};
  longer.ids.insert(longer.ids.end(), {17, 18});
  EXPECT_TRUE(same_bits(last_logits(model.runner, {prompt}, 2), last_logits(model.runner, {longer}, 2)));
  prompt.continuation = {model.binding.spec().tokens.image, 18};  // as an answer may say it
  EXPECT_NO_THROW(last_logits(model.runner, {prompt}, 2));
}

Prompt prompt_of(std::vector<int64_t> ids) {
  Prompt prompt;
  prompt.ids = std::move(ids);
  return prompt;
}

std::string start_error(const Prompt& prompt) {
  Model model;
  const Prompt* pointer = &prompt;
  try {
    model.runner.start({&pointer, 1});
  } catch (const Error& error) {
    return error.what();
  }
  return "no Error";
}

TEST(Forward, BadPromptsAreErrors) {
  EXPECT_THAT(start_error({}), HasSubstr("the prompt is empty"));
  EXPECT_THAT(start_error(prompt_of({1, 2048})), HasSubstr("token id 2048 is outside"));
  EXPECT_THAT(start_error(prompt_of({-1})), HasSubstr("token id -1 is outside"));
  EXPECT_THAT(start_error(prompt_of({1, 2046})), HasSubstr("more image tokens"));
}

}  // namespace
}  // namespace nibble::run
