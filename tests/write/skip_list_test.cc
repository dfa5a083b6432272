#include "write/skip_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "io/json.h"

namespace nibble::write {
namespace {

using testing::IsEmpty;

class SkipList : public testing::Test {
 protected:
  SkipList()
      : json_(io::read_json(NIBBLE_ROOT "/models/qwen2-vl-tiny/config.json")),
        fields_(json_, "config.json"),
        family_(model::find_family(fields_)),
        spec_(family_.describe(fields_)),
        linears_(model::linears(spec_)) {}

  const model::Linear* named(const std::string& name) const {
    for (const model::Linear* l : linears_)
      if (l->name == name) return l;
    ADD_FAILURE() << name;
    return nullptr;
  }

  io::Json json_;
  io::Fields fields_;
  const model::Family& family_;
  model::Spec spec_;
  std::vector<const model::Linear*> linears_;
};

/// The rule of a reader by the start of its name.
const ReaderRule& rule(std::string_view reader) {
  for (const ReaderRule& r : reader_rules())
    if (r.reader.starts_with(reader)) return r;
  throw std::runtime_error("no such reader");
}

TEST(ReaderRules, Transformers4) {
  const auto skips = rule("transformers 4.52").skips;
  EXPECT_TRUE(skips("lm_head", "lm_head"));
  EXPECT_TRUE(skips("proj", "model.visual.blocks.0.attn.proj")) << "the last part equals the key";
  EXPECT_TRUE(skips("visual.blocks.0.attn", "model.visual.blocks.0.attn.proj")) << "\"key.\" occurs inside";
  EXPECT_FALSE(skips("visual.blocks.0.attn.proj", "model.visual.blocks.0.attn.proj"));
  EXPECT_FALSE(skips("model.layers.1", "model.layers.10.mlp.up_proj"));
}

TEST(ReaderRules, Transformers5) {
  const auto old = rule("transformers 5 before").skips, now = rule("transformers 5.23").skips;
  EXPECT_TRUE(old("model.layers.1", "model.layers.10.mlp.up_proj")) << "not anchored at the end";
  EXPECT_FALSE(now("model.layers.1", "model.layers.10.mlp.up_proj"));
  EXPECT_TRUE(now("model.layers.1", "model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(now("model.layers.2.mlp.up_proj", "model.language_model.layers.2.mlp.up_proj"))
      << "a suffix, no boundary";
  EXPECT_FALSE(now("layers.1.mlp", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(now("visual.blocks.0.mlp", "model.visual.blocks.0.mlp.fc1"));
  EXPECT_TRUE(now("proj", "model.visual.blocks.0.attn.proj"));
}

TEST(ReaderRules, Vllm) {
  const auto skips = rule("vLLM").skips;
  EXPECT_TRUE(skips("lm_head", "language_model.lm_head"));
  EXPECT_TRUE(skips("visual.blocks.0", "visual.blocks.0.mlp.fc1"));
  EXPECT_TRUE(skips("qkv_proj", "language_model.model.layers.3.self_attn.qkv_proj"));
  EXPECT_FALSE(skips("model.layers.3", "language_model.model.layers.3.self_attn.qkv_proj"));
  EXPECT_FALSE(skips("visual.blocks.0", "visual.blocks.01.mlp.fc1"));
}

TEST_F(SkipList, SpellsAKeptGroupForEveryReader) {
  const auto list =
      skip_list(spec_, family_,
                {named("model.layers.3.self_attn.q_proj"), named("model.layers.3.self_attn.k_proj"),
                 named("model.layers.3.self_attn.v_proj"), named("visual.blocks.1.mlp.fc1")});
  EXPECT_THAT(list, testing::ElementsAre(
                        "lm_head", "model.language_model.layers.3.self_attn.q_proj",
                        "model.layers.3.self_attn.q_proj", "language_model.model.layers.3.self_attn.qkv_proj",
                        "model.language_model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.k_proj",
                        "model.language_model.layers.3.self_attn.v_proj", "model.layers.3.self_attn.v_proj",
                        "model.visual.blocks.1.mlp.fc1", "visual.blocks.1.mlp.fc1"));
}

TEST_F(SkipList, EveryReaderSkipsExactlyTheKeptLinears) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<const model::Linear*> kept;
    for (const model::Linear* l : linears_)
      if (random() % 100 < static_cast<unsigned>(round % 101)) kept.push_back(l);
    EXPECT_THAT(check_skip_list(skip_list(spec_, family_, kept), spec_, family_, kept), IsEmpty());
  }
}

TEST_F(SkipList, CheckFindsAKeyThatHitsTooMuch) {
  const std::vector<const model::Linear*> kept = {named("visual.blocks.1.mlp.fc1")};
  auto list = skip_list(spec_, family_, kept);
  list.push_back("proj");
  EXPECT_THAT(check_skip_list(list, spec_, family_, kept),
              testing::Contains("transformers 4.52 to 4.57 would skip model.visual.blocks.0.attn.proj"));
  EXPECT_THAT(check_skip_list({"lm_head", "visual.blocks.1.mlp.fc1"}, spec_, family_, kept),
              testing::Contains("transformers 4.52 to 4.57 would quantize model.visual.blocks.1.mlp.fc1"))
      << "the published spelling alone is not enough";
}

}  // namespace
}  // namespace nibble::write
