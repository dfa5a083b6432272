// Whole prompts, from text and picture files to the answer, against transformers (make_goldens.py).
#include "data/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "data/answers.h"
#include "io/safetensors.h"
#include "run/forward.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kRoot = NIBBLE_ROOT, kGoldens = kRoot / "tests" / "data" / "goldens";

/// fp32 sums in another order differ by about 1e-6 of the largest logit, pixels by 1e-6; errors by far more
/// than this.
constexpr double kTolerance = 1e-4;

struct Golden {
  std::string name, prompt, text;
  std::vector<fs::path> images;
};

int64_t golden_limit() {
  return io::read_json(kGoldens / "prompts.json").at("limit").get<int64_t>();
}

std::vector<Golden> goldens() {
  std::vector<Golden> out;
  const io::Json json = io::read_json(kGoldens / "prompts.json");
  for (const io::Json& item : json.at("prompts")) {
    Golden golden{
        .name = item.at("name"), .prompt = item.at("prompt"), .text = item.at("text"), .images = {}};
    for (const io::Json& image : item.at("images")) golden.images.push_back(kRoot / image.get<std::string>());
    out.push_back(std::move(golden));
  }
  return out;
}

std::vector<int64_t> golden_ids(const std::string& name) {
  static const io::SafetensorsFile file(kGoldens / "prompts.safetensors");
  const TensorView view = file.tensor(name);
  std::vector<int64_t> out(static_cast<size_t>(view.count()));
  std::memcpy(out.data(), view.data, out.size() * sizeof(int64_t));
  return out;
}

/// The shipped model with all that belongs to it.
struct Model {
  Model()
      : binding(kRoot / "models" / "qwen2-vl-tiny"),
        maker(binding),
        weights(binding, kernels::Compute::f32),
        runner(weights) {}

  model::Binding binding;
  PromptMaker maker;
  run::Weights weights;
  run::Runner runner;
};

TEST(Prompts, IdsAndGridsAreTheReferences) {
  const Model model;
  for (const Golden& golden : goldens()) {
    const run::Prompt prompt = model.maker.chat(golden.prompt, golden.images);
    EXPECT_EQ(prompt.ids, golden_ids(golden.name + ".ids")) << golden.name;
    std::vector<int64_t> grids;
    for (const run::Picture& p : prompt.pictures) grids.insert(grids.end(), {p.grid_t, p.grid_h, p.grid_w});
    EXPECT_EQ(grids, golden.images.empty() ? std::vector<int64_t>() : golden_ids(golden.name + ".grids"))
        << golden.name;
  }
}

TEST(Prompts, LogitsAreTheReferences) {
  Model model;
  const io::SafetensorsFile file(kGoldens / "prompts.safetensors");
  for (const Golden& golden : goldens()) {
    const run::Prompt prompt = model.maker.chat(golden.prompt, golden.images);
    const run::Prompt* pointer = &prompt;
    std::vector<run::Sequence> sequences = model.runner.start({&pointer, 1});
    run::Sequence* sequence = &sequences[0];
    const int64_t last = 1;
    const Matrix logits = model.runner.feed({&sequence, 1}, {&last, 1}, false);
    const std::vector<float> expected = to_float(file.tensor(golden.name + ".logits"));
    ASSERT_EQ(static_cast<size_t>(logits.cols()), expected.size());
    double largest = 0, apart = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(double{expected[i]}));
      apart = std::max(apart, std::abs(double{expected[i]} - logits.data()[i]));
    }
    EXPECT_LE(apart, kTolerance * largest) << golden.name;
  }
}

TEST(Prompts, GreedyTextIsTheReferencesAloneAndSideBySide) {
  Model model;
  std::vector<run::Prompt> prompts;
  for (const Golden& golden : goldens()) prompts.push_back(model.maker.chat(golden.prompt, golden.images));
  std::vector<const run::Prompt*> pointers;
  for (const run::Prompt& p : prompts) pointers.push_back(&p);
  const auto together = model.runner.generate(pointers, golden_limit());
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Golden golden = goldens()[i];
    EXPECT_EQ(model.maker.decode(together[i]), golden.text) << golden.name;
    EXPECT_EQ(model.runner.generate({&pointers[i], 1}, golden_limit())[0], together[i]) << golden.name;
  }
}

TEST(Prompts, ARawPromptIsTakenAsItIs) {
  const Model model;
  const Golden golden = goldens()[0];
  const run::Prompt chat = model.maker.chat(golden.prompt, golden.images);
  const std::string written =
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
      "<|vision_start|><|image_pad|><|vision_end|>Describe this image.<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(model.maker.raw(written, golden.images).ids, chat.ids);
  EXPECT_EQ(model.maker.raw("one two", {}).ids, model.maker.tokenizer().encode("one two", false));
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no Error";
}

TEST(Prompts, PicturesAndImageTokensMustBeAsMany) {
  const Model model;
  const std::vector<fs::path> images = goldens()[0].images;
  EXPECT_THAT(error_of([&] { model.maker.raw("no place", images); }),
              HasSubstr("0 image token(s) for 1 picture(s)"));
  EXPECT_THAT(error_of([&] { model.maker.raw("<|image_pad|>", {}); }),
              HasSubstr("1 image token(s) for 0 picture(s)"));
  EXPECT_THAT(error_of([&] { model.maker.chat("a <|image_pad|> b", images); }),
              HasSubstr("2 image token(s) for 1"));
  const std::vector<fs::path> missing = {"no/such.png"};
  EXPECT_THAT(error_of([&] { model.maker.chat("What?", missing); }), HasSubstr("no/such.png"));
}

TEST(Prompts, AnAnswerEndsTheTurn) {
  const Model model;
  const std::vector<int64_t> ids = model.maker.answer("A beach.");
  EXPECT_EQ(ids.back(), model.binding.spec().tokens.end.front());
  EXPECT_EQ(model.maker.decode(ids), "A beach.");
}

TEST(Prompts, WindowsHoldAllTokensInOrder) {
  const Model model;
  std::string text;
  for (int i = 0; i < 40; ++i) text += "A text about trains and 4711 colours. ";
  const std::vector<int64_t> whole = model.maker.tokenizer().encode(text, false);
  for (const int64_t window : {2, 7, 64, 100000}) {
    std::vector<int64_t> joined;
    for (const auto& ids : model.maker.windows(text, window)) {
      EXPECT_GE(ids.size(), 2u);
      EXPECT_LE(static_cast<int64_t>(ids.size()), window);
      joined.insert(joined.end(), ids.begin(), ids.end());
    }
    ASSERT_LE(joined.size(), whole.size());
    EXPECT_LE(whole.size() - joined.size(), 1u) << window;  // a last window of one token predicts nothing
    EXPECT_TRUE(std::equal(joined.begin(), joined.end(), whole.begin())) << window;
  }
  EXPECT_TRUE(model.maker.windows("", 8).empty());
}

TEST(Items, WindowsKnowTheBytesThatTheyPredict) {
  const Model model;
  Sample sample;
  sample.id = "text";
  sample.plain = true;
  sample.text =
      "Gr\xc3\xbc\xc3\x9f"
      "e <|im_end|> \xe4\xb8\x96\xe7\x95\x8c \xf0\x9f\x9a\x82 4711";
  const auto items = make_items({&sample, 1}, model.maker, 3);
  const text::Tokenizer& tokenizer = model.maker.tokenizer();
  int64_t bytes = 0;
  for (const Item& item : items) {
    int64_t predicted = 0;
    for (const int64_t id : item.answer) predicted += tokenizer.byte_count(id);
    EXPECT_EQ(item.bytes, predicted);
    bytes += predicted + tokenizer.byte_count(item.prompt.ids[0]);
  }
  const auto ids = tokenizer.encode(sample.text, false);
  if (ids.size() % 3 == 1) bytes += tokenizer.byte_count(ids.back());
  EXPECT_EQ(bytes, std::ssize(sample.text));
  EXPECT_EQ(tokenizer.byte_count(*tokenizer.id_of("<|im_end|>")), 10);
  EXPECT_EQ(tokenizer.byte_count(1 << 30), 0);
}

TEST(Items, AWindowMustFitIntoTheModel) {
  const Model model;
  Sample sample;
  sample.id = "long.jsonl:1";
  sample.plain = true;
  for (int64_t i = 0; i <= model.maker.max_tokens(); ++i) sample.text += " a";
  const auto error = error_of([&] { make_items({&sample, 1}, model.maker, model.maker.max_tokens() + 1); });
  EXPECT_THAT(error, HasSubstr("long.jsonl:1"));
  EXPECT_THAT(error, HasSubstr(fmt::format("--window {}", model.maker.max_tokens())));
}

std::vector<Item> shipped_items(const Model& model, size_t count) {
  const std::vector<std::string> files = {(kRoot / "pictures" / "evaluation").string()};
  std::vector<Sample> samples = read_samples(files);
  samples.resize(count);
  return make_items(samples, model.maker, 64);
}

TEST(Items, OpenAnswersAreTheModelsOwn) {
  Model model;
  std::vector<Item> items = shipped_items(model, 5);
  const std::vector<Item> answered = items;
  for (size_t i : {1, 4}) {
    items[i].answer.clear();
    items[i].answer_text.clear();
  }
  complete_answers(items, model.runner, model.maker);
  for (size_t i = 0; i < items.size(); ++i) {
    const run::Prompt* pointer = &items[i].prompt;
    const std::string own = model.maker.decode(model.runner.generate({&pointer, 1}, kAnswerTokens)[0]);
    const bool open = i == 1 || i == 4;
    EXPECT_EQ(items[i].answer_text, open ? own : answered[i].answer_text) << i;
    EXPECT_EQ(items[i].answer, open ? model.maker.answer(own) : answered[i].answer) << i;
  }
}

TEST(Items, AnOpenAnswerThatIsCutHasNoEnd) {
  Model model;
  std::vector<Item> items = shipped_items(model, 1);
  const std::vector<int64_t> whole = items[0].answer;
  items[0].answer.clear();
  complete_answers(items, model.runner, model.maker, 4);
  EXPECT_EQ(items[0].answer, std::vector<int64_t>(whole.begin(), whole.begin() + 4));
  EXPECT_EQ(items[0].answer_text, model.maker.decode(items[0].answer));
}

TEST(Items, BatchesCoverAllItemsWithinTheLimit) {
  const Model model;
  const std::vector<Item> items = shipped_items(model, 12);
  const auto rows_of = [](const Item& item) {
    auto rows = static_cast<int64_t>(item.prompt.ids.size() + item.answer.size());
    for (const run::Picture& p : item.prompt.pictures) rows += p.patches();
    return rows;
  };
  for (const int64_t limit : {int64_t{1}, int64_t{300}, int64_t{1} << 20}) {
    size_t next = 0;
    for (const auto& [begin, end] : batches(items, limit)) {
      EXPECT_EQ(begin, next);
      ASSERT_LT(begin, end);
      next = end;
      int64_t rows = 0;
      for (size_t i = begin; i < end; ++i) rows += rows_of(items[i]);
      EXPECT_TRUE(rows <= limit || end == begin + 1) << limit;
    }
    EXPECT_EQ(next, items.size());
  }
  EXPECT_TRUE(batches({}, 100).empty());
}

TEST(Items, BatchesApartHavePicturesOrNone) {
  const Model model;
  std::vector<Item> items = shipped_items(model, 4);
  Item text;
  text.prompt.ids = {1, 2, 3};
  items.insert(items.begin() + 1, text);
  items.insert(items.begin() + 3, text);
  using Batches = std::vector<std::vector<size_t>>;
  EXPECT_EQ(batches_apart(items, int64_t{1} << 20), (Batches{{0, 2, 4, 5}, {1, 3}}));
  EXPECT_EQ(batches_apart(items, 1), (Batches{{0}, {2}, {4}, {5}, {1}, {3}}));
  EXPECT_EQ(batches_apart({&text, 1}, 1), (Batches{{0}}));
  EXPECT_TRUE(batches_apart({}, 100).empty());
}

}  // namespace
}  // namespace nibble::data
