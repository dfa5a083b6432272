// config.json to Spec: published sizes, both styles, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/binding.h"
#include "model/micro.h"

namespace nibble::model {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_io::error_of;

const fs::path kTests = NIBBLE_ROOT "/tests";

std::string text_of(const Stack& s) {
  std::string out = fmt::format("{} {} {} {} {} {} {}", s.hidden, s.heads, s.kv_heads, s.head_dim, s.causal,
                                s.gated, static_cast<int>(s.activation));
  for (size_t j = 0; j < s.rope.frequency.size(); ++j)
    out += fmt::format(" {}:{}", s.rope.axis[j], s.rope.frequency[j]);
  for (const Block& b : s.blocks)
    out += fmt::format("\n{} {} {}", b.name, b.attention_norm.eps, b.mlp_norm.eps);
  return out;
}

/// All that a Spec says, for comparing.
std::string text_of(const Spec& spec) {
  std::string out = fmt::format("{} image {} end", spec.family, spec.tokens.image);
  for (int64_t id : spec.tokens.end) out += fmt::format(" {}", id);
  out += fmt::format("\ntied {} vocabulary {}\n{}\n", spec.text.tied, spec.text.vocabulary,
                     text_of(spec.text.stack));
  if (spec.vision)
    out += fmt::format("patch {} {} {} merge {}\n{}\n", spec.vision->channels, spec.vision->temporal_patch,
                       spec.vision->patch, spec.vision->merge, text_of(spec.vision->stack));
  for (const TensorSpec& t : tensor_table(spec)) {
    out += fmt::format("{} {} {} {}", t.name, shape_text(t.shape), records::part_name(t.part), t.depth);
    if (t.linear)
      out += fmt::format(" {} {} {} {}", t.linear->bias, records::role_name(t.linear->role), t.linear->group,
                         t.linear->tap);
    out += "\n";
  }
  return out;
}

TEST(Config, PublishedModelsHaveTheReferencesSizes) {
  const io::Json sizes = io::read_json(kTests / "model" / "goldens" / "sizes.json");
  ASSERT_EQ(sizes.size(), 7u);
  for (const auto& [name, expected] : sizes.items()) {
    const Spec spec = describe(io::read_json(kTests / "model" / "configs" / (name + ".json")));
    int64_t parameters = 0;
    for (const TensorSpec& tensor : tensor_table(spec)) {
      int64_t count = 1;
      for (int64_t d : tensor.shape) count *= d;
      parameters += count;
    }
    EXPECT_EQ(parameters, expected.at("parameters").get<int64_t>()) << name;
    EXPECT_EQ(static_cast<int64_t>(linears(spec).size()), expected.at("linears").get<int64_t>()) << name;
  }
}

TEST(Config, BothStylesDescribeTheSameModel) {
  const Spec published = describe(io::read_json(NIBBLE_ROOT "/models/qwen2-vl-tiny/config.json"));
  const Spec nested = describe(io::read_json(kTests / "interop" / "config.v5.json"));
  EXPECT_EQ(text_of(nested), text_of(published));
}

/// What remains when the keys that transformers 4 does not know are taken away.
io::Json as_version_4_reads(io::Json config) {
  config.erase("text_config");
  config.erase("rope_parameters");
  config["vision_config"].erase("rope_parameters");
  return config;
}

/// What transformers 5 reads where there is a text_config.
io::Json as_version_5_reads(io::Json config) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "rope_theta", "rope_scaling", "vocab_size"})
    config.erase(key);
  config["text_config"].erase("rope_theta");
  config["text_config"].erase("rope_scaling");
  return config;
}

TEST(Config, WhatIsWrittenSaysTheSameToReadersOfBothStyles) {
  const io::Json source = io::read_json(kTests / "interop" / "config.v5.json");
  const Family& family = find_family(io::Fields(source, "config.json"));
  const io::Json written = family.config_for_both(source);
  const std::string expected = text_of(describe(source));
  EXPECT_EQ(text_of(describe(written)), expected);
  EXPECT_EQ(text_of(describe(as_version_4_reads(written))), expected);
  EXPECT_EQ(text_of(describe(as_version_5_reads(written))), expected);
  EXPECT_EQ(written.at("rope_scaling").at("type"), "mrope");
  EXPECT_EQ(written.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(written.at("dtype"), "bfloat16");
  EXPECT_EQ(family.config_for_both(written), written);
}

TEST(Config, APublishedStyleStaysWhatItIs) {
  const io::Json source = io::read_json(NIBBLE_ROOT "/models/qwen2-vl-tiny/config.json");
  const io::Json written = find_family(io::Fields(source, "config.json")).config_for_both(source);
  for (const auto& [key, value] : source.items()) EXPECT_EQ(written.at(key), value) << key;
  EXPECT_EQ(text_of(describe(written)), text_of(describe(source)));
}

TEST(Config, AnUnknownFamilyListsWhatIsKnown) {
  io::Json config = micro_config();
  config["model_type"] = "gpt_neox";
  EXPECT_THAT(error_of([&] { describe(config); }),
              AllOf(HasSubstr("config.json"), HasSubstr("\"gpt_neox\""),
                    HasSubstr("known: llama, llava, mllama, phi3, qwen2_vl")));
  config.erase("model_type");
  EXPECT_THAT(error_of([&] { describe(config); }),
              AllOf(HasSubstr("model_type is missing"), HasSubstr("llama, llava, mllama, phi3, qwen2_vl")));
}

struct BadConfig {
  const char* name;
  const char* pointer;  // of the value to change (JSON pointer)
  const char* value;    // JSON; "" takes the key away
  const char* says;     // part of the error
};

class BadConfigs : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreErrorsThatNameTheField) {
  const BadConfig& bad = GetParam();
  io::Json config = micro_config();
  const io::Json::json_pointer pointer(bad.pointer);
  if (*bad.value != '\0')
    config[pointer] = io::Json::parse(bad.value);
  else
    config[pointer.parent_pointer()].erase(pointer.back());
  EXPECT_THAT(error_of([&] { describe(config); }), AllOf(HasSubstr("config.json"), HasSubstr(bad.says)));
}

INSTANTIATE_TEST_SUITE_P(
    Config, BadConfigs,
    ::testing::Values(
        BadConfig{"hidden_not_divisible", "/hidden_size", "17", "17 features do not divide into 2 heads"},
        BadConfig{"odd_heads", "/num_attention_heads", "16", "heads of an even size"},
        BadConfig{"kv_heads", "/num_key_value_heads", "3", "key-value heads"},
        BadConfig{"no_heads", "/num_attention_heads", "0", "num_attention_heads"},
        BadConfig{"negative", "/hidden_size", "-16", "hidden_size"},
        BadConfig{"text_for_a_number", "/num_hidden_layers", "\"one\"", "num_hidden_layers"},
        BadConfig{"too_many_layers", "/num_hidden_layers", "1000000000", "num_hidden_layers"},
        BadConfig{"huge_vocabulary", "/vocab_size", "9223372036854775807", "vocab_size"},
        BadConfig{"unknown_activation", "/hidden_act", "\"swish2\"", "hidden_act \"swish2\""},
        BadConfig{"sliding_window", "/use_sliding_window", "true", "use_sliding_window"},
        BadConfig{"no_rope", "/rope_scaling", "", "rope_scaling"},
        BadConfig{"yarn", "/rope_scaling/type", "\"yarn\"", "\"yarn\""},
        BadConfig{"section_sum", "/rope_scaling/mrope_section", "[2, 1, 2]", "sum to 4"},
        BadConfig{"section_count", "/rope_scaling/mrope_section", "[2, 2]", "mrope_section must be three"},
        BadConfig{"sections", "/rope_scaling/mrope_section", "[1, 1, 1, 1]", "mrope_section must be three"},
        BadConfig{"section_negative", "/rope_scaling/mrope_section", "[6, -1, -1]", "mrope_section holds -1"},
        BadConfig{"section_text", "/rope_scaling/mrope_section", "[\"2\", 1, 1]", "mrope_section"},
        BadConfig{"theta", "/rope_theta", "0", "rope_theta"},
        BadConfig{"no_vision", "/vision_config", "", "vision_config"},
        BadConfig{"vision_is_a_list", "/vision_config", "[]", "vision_config"},
        BadConfig{"vision_heads", "/vision_config/num_heads", "3", "do not divide into 3 heads"},
        BadConfig{"vision_head_size", "/vision_config/num_heads", "4", "a multiple of 4"},
        BadConfig{"vision_joins_text", "/vision_config/hidden_size", "32", "hidden_size 32"},
        BadConfig{"mlp_ratio", "/vision_config/mlp_ratio", "0", "mlp_ratio"},
        BadConfig{"long_text", "/hidden_act", "\"line\\nline\"", "hidden_act \"line\\nline\""},
        BadConfig{"patch", "/vision_config/patch_size", "1e9", "patch_size"},
        BadConfig{"end_token", "/eos_token_id", "[28, \"x\"]", "eos_token_id"}),
    [](const auto& info) { return std::string(info.param.name); });

io::Json family_config(const std::string& family) {
  return io::read_json(kTests / "data" / "goldens" / "families" / family / "config.json");
}

TEST(Config, SizesThatMultiplyToTooMuchAreRefused) {
  // Each size is allowed, but not all of them at once.
  io::Json config = family_config("llama");
  config["hidden_size"] = 1 << 20;
  config["num_attention_heads"] = config["num_key_value_heads"] = 1 << 16;
  config["head_dim"] = 1 << 15;
  config["num_hidden_layers"] = 4096;
  EXPECT_THAT(
      error_of([&] { describe(config); }),
      AllOf(HasSubstr("config.json: its sizes give tensor model.layers."), HasSubstr("more elements than")));

  config = family_config("mllama");
  io::Json& vision = config["vision_config"];
  vision["image_size"] = 4096;
  vision["patch_size"] = 1;
  vision["max_num_tiles"] = 256;
  vision["supported_aspect_ratios"] = std::vector<std::vector<int>>(31, {1, 1});
  vision["hidden_size"] = 1 << 20;
  vision["vision_output_dim"] = (1 << 20) * (1 + vision["intermediate_layers_indices"].size());
  EXPECT_THAT(
      error_of([&] { describe(config); }),
      HasSubstr("its sizes give tensor vision_model.gated_positional_embedding.tile_embedding.weight"));
  vision["image_size"] = 1 << 20;
  EXPECT_THAT(error_of([&] { describe(config); }),
              HasSubstr("image_size gives 1048576 patches along a side"));
}

TEST(Config, DefaultsThatTheModelIsTooSmallForAreRefused) {
  io::Json config = family_config("mllama");
  config["text_config"].erase("cross_attention_layers");
  EXPECT_THAT(error_of([&] { describe(config); }),
              HasSubstr("cross_attention_layers is missing, and its default names layer 38 of only"));
  config = family_config("mllama");
  config["vision_config"].erase("intermediate_layers_indices");
  EXPECT_THAT(error_of([&] { describe(config); }),
              HasSubstr("intermediate_layers_indices is missing, and its default names layer 30 of only"));
  config = family_config("llava");
  config["vision_config"]["image_size"] = 1;
  EXPECT_THAT(error_of([&] { describe(config); }), HasSubstr("image_size is below patch_size"));
  config = family_config("phi3_longrope");
  for (const char* key : {"original_max_position_embeddings", "max_position_embeddings"}) config.erase(key);
  config["original_max_position_embeddings"] = 1;
  EXPECT_THAT(error_of([&] { describe(config); }), HasSubstr("1 positions cannot be scaled to"));
}

}  // namespace
}  // namespace nibble::model
