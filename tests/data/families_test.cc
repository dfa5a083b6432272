// Every family against transformers: goldens/families (make_family_goldens.py), tiny random models with
// prompts from text and picture files to the answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "data/prompts.h"
#include "io/safetensors.h"
#include "run/forward.h"
#include "support/temp_folder.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;

const fs::path kFamilies = NIBBLE_ROOT "/tests/data/goldens/families";

/// fp32 sums in another order than the reference's differ by about 1e-6 of the largest value; a wrong
/// operation or weight by more than a hundredth of it.
constexpr double kLogits = 1e-4;

struct Case {
  std::string prompt;
  std::vector<fs::path> images;
  size_t number = 0;
};

std::vector<Case> cases_of(const fs::path& family) {
  std::vector<Case> out;
  const io::Json list = io::read_json(family / "prompts.json");
  for (const io::Json& json : list) {
    Case c{.prompt = json.at("prompt").get<std::string>(), .images = {}, .number = out.size()};
    for (const io::Json& image : json.at("images"))
      c.images.push_back(fs::path(NIBBLE_ROOT) / image.get<std::string>());
    out.push_back(std::move(c));
  }
  return out;
}

class FamilyGoldens : public testing::TestWithParam<const char*> {
 protected:
  fs::path folder() const { return kFamilies / GetParam(); }

  std::vector<int64_t> ids(const std::string& name) const {
    const TensorView view = goldens_.tensor(name);
    std::vector<int64_t> out(static_cast<size_t>(view.count()));
    std::memcpy(out.data(), view.data, out.size() * sizeof(int64_t));
    return out;
  }

  io::SafetensorsFile goldens_{folder() / "prompts.safetensors"};
};

TEST_P(FamilyGoldens, IdsPixelsLogitsAndGreedyTextAreThoseOfTransformers) {
  const model::Binding binding(folder());
  const PromptMaker maker(binding);
  run::Weights weights(binding, kernels::Compute::f32);
  run::Runner runner(weights);
  for (const Case& c : cases_of(folder())) {
    SCOPED_TRACE(c.prompt);
    const std::string number = std::to_string(c.number) + ".";
    const run::Prompt prompt = maker.raw(c.prompt, c.images);
    EXPECT_EQ(prompt.ids, ids(number + "ids"));
    const auto inputs = maker.reference_tensors(prompt);
    EXPECT_EQ(inputs.empty(), c.images.empty());
    for (const NamedTensor& input : inputs) {
      const TensorView golden = goldens_.tensor(number + input.name);
      ASSERT_EQ(input.tensor.shape(), golden.shape) << input.name;
      EXPECT_EQ(std::memcmp(input.tensor.view().data, golden.data, static_cast<size_t>(golden.bytes())), 0)
          << input.name;
    }
    const run::Prompt* pointer = &prompt;
    std::vector<run::Sequence> sequences = runner.start({&pointer, 1});
    run::Sequence* sequence = &sequences[0];
    const auto tokens = std::ssize(prompt.ids);
    const Matrix logits = runner.feed({&sequence, 1}, {&tokens, 1}, false);
    const TensorView golden = goldens_.tensor(number + "logits");
    ASSERT_EQ((Shape{logits.rows(), logits.cols()}), golden.shape);
    double difference = 0, largest = 0;
    for (int64_t i = 0; i < golden.count(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(golden.as<float>()[i])));
      difference =
          std::max(difference, std::abs(static_cast<double>(golden.as<float>()[i]) - logits.data()[i]));
    }
    EXPECT_LE(difference, kLogits * largest);
    const std::vector<int64_t> greedy = ids(number + "greedy");
    EXPECT_EQ(runner.generate({&pointer, 1}, 12)[0], greedy);
  }
}

TEST_P(FamilyGoldens, PromptsSideBySideAnswerAsAlone) {
  const model::Binding binding(folder());
  const PromptMaker maker(binding);
  run::Weights weights(binding, kernels::Compute::f32);
  run::Runner runner(weights);
  std::vector<run::Prompt> prompts;
  for (const Case& c : cases_of(folder())) prompts.push_back(maker.raw(c.prompt, c.images));
  std::vector<const run::Prompt*> pointers;
  for (const run::Prompt& prompt : prompts) pointers.push_back(&prompt);
  const auto together = runner.generate(pointers, 12);
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(together[i], ids(std::to_string(i) + ".greedy")) << i;
}

TEST_P(FamilyGoldens, ConfigOfTransformers5IsTheSameModel) {
  const test::TempFolder temp;
  const fs::path& copy = temp.path();
  for (const auto& entry : fs::directory_iterator(folder()))
    if (entry.path().filename() != "config.json" && entry.path().filename() != "config.v5.json")
      fs::copy_file(entry.path(), copy / entry.path().filename());
  fs::copy_file(folder() / "config.v5.json", copy / "config.json");
  const model::Binding published(folder()), v5(copy);
  const auto logits = [&](const model::Binding& binding, const Case& c) {
    const PromptMaker maker(binding);
    run::Weights weights(binding, kernels::Compute::f32);
    run::Runner runner(weights);
    const run::Prompt prompt = maker.raw(c.prompt, c.images);
    const run::Prompt* pointer = &prompt;
    std::vector<run::Sequence> sequences = runner.start({&pointer, 1});
    run::Sequence* sequence = &sequences[0];
    const auto tokens = std::ssize(prompt.ids);
    return runner.feed({&sequence, 1}, {&tokens, 1}, false);
  };
  for (const Case& c : cases_of(folder())) {
    const Matrix a = logits(published, c), b = logits(v5, c);
    ASSERT_EQ(a.rows(), b.rows());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.tensor().bytes())), 0) << c.prompt;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyGoldens,
                         testing::Values("llama", "phi3", "phi3_longrope", "llava", "mllama"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace nibble::data
