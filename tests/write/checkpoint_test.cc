#include "write/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "quant/state.h"
#include "support/temp_folder.h"

namespace nibble::write {
namespace {

namespace fs = std::filesystem;

class WriteCheckpoint : public testing::Test {
 protected:
  records::Plan plan(const std::vector<std::string>& keep) const {
    records::Plan out;
    out.family = "qwen2_vl";
    out.policy = "test";
    for (const model::Linear* l : model::linears(source_.spec()))
      out.decisions.push_back({.name = l->name,
                               .keep = std::find(keep.begin(), keep.end(), l->name) != keep.end(),
                               .reason = "test",
                               .score = 0});
    return out;
  }

  fs::path out(const std::string& name) const { return folder_.path() / name; }

  test::TempFolder folder_;
  model::Binding source_{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
};

TEST_F(WriteCheckpoint, TensorsAreThePlans) {
  const std::vector<std::string> keep = {"visual.blocks.0.mlp.fc1", "model.layers.2.mlp.gate_proj",
                                         "model.layers.2.mlp.up_proj"};
  const int64_t bytes = write_checkpoint(source_, plan(keep), out("q"), {.version = "test"});
  const model::Binding read(out("q"));
  EXPECT_EQ(read.tensor_bytes(), bytes);
  for (const model::Linear* l : model::linears(source_.spec())) {
    const bool kept = std::find(keep.begin(), keep.end(), l->name) != keep.end();
    Tensor a, b;
    const TensorView original = source_.weight(*l, a), stored = read.weight(*l, b);
    EXPECT_EQ(read.linear(*l).storage, kept ? model::Storage::plain : model::Storage::nf4) << l->name;
    const Tensor expected = quant::decode4(quant::encode4(original, quant::Format::nf4, true));
    const TensorView want = kept ? original : expected.view();
    ASSERT_EQ(stored.bytes(), want.bytes());
    EXPECT_TRUE(std::equal(stored.data, stored.data + stored.bytes(), want.data)) << l->name;
  }
  for (const model::TensorSpec& tensor : model::tensor_table(source_.spec())) {
    if (tensor.linear) continue;
    const TensorView a = source_.tensor(tensor.name), b = read.tensor(tensor.name);
    EXPECT_TRUE(a.dtype == b.dtype && std::equal(a.data, a.data + a.bytes(), b.data)) << tensor.name;
  }
  EXPECT_EQ(io::read_file(out("q") / "tokenizer.json"),
            io::read_file(source_.checkpoint().folder() / "tokenizer.json"));
}

TEST_F(WriteCheckpoint, ConfigSection) {
  write_checkpoint(source_, plan({"visual.blocks.0.mlp.fc1"}), out("q"), {.version = "test"});
  const std::string text = io::read_file(out("q") / "config.json");
  EXPECT_THAT(text, testing::HasSubstr(R"(  "quantization_config": {
    "_load_in_4bit": true,
    "_load_in_8bit": false,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": true,
    "llm_int8_enable_fp32_cpu_offload": false,
    "llm_int8_has_fp16_weight": false,
    "llm_int8_skip_modules": [
      "lm_head",
      "model.visual.blocks.0.mlp.fc1",
      "visual.blocks.0.mlp.fc1"
    ],
    "llm_int8_threshold": 6.0,
    "load_in_4bit": true,
    "load_in_8bit": false,
    "quant_method": "bitsandbytes"
  })"));
}

TEST_F(WriteCheckpoint, KeepingEverythingQuantizesNothing) {
  std::vector<std::string> all;
  for (const model::Linear* l : model::linears(source_.spec())) all.push_back(l->name);
  const int64_t bytes = write_checkpoint(source_, plan(all), out("q"), {.version = "test"});
  EXPECT_EQ(bytes, source_.tensor_bytes());
  EXPECT_FALSE(io::read_json(out("q") / "config.json").contains("quantization_config"));
  EXPECT_FALSE(model::Binding(out("q")).quantized());
}

TEST_F(WriteCheckpoint, ShardsKeepALinearTogether) {
  write_checkpoint(source_, plan({}), out("q"), {.max_shard_bytes = 300'000, .version = "test"});
  const io::Json index = io::read_json(out("q") / "model.safetensors.index.json");
  std::map<std::string, std::string> where;
  for (const auto& [name, file] : index["weight_map"].items()) where[name] = file.get<std::string>();
  int sides = 0;
  for (const auto& [name, file] : where) {
    const size_t at = name.find(".weight.");
    if (at == std::string::npos) continue;
    EXPECT_EQ(file, where.at(name.substr(0, at + 7))) << name;
    ++sides;
  }
  EXPECT_EQ(sides, 82 * 5);
  EXPECT_GT(model::Binding(out("q")).checkpoint().files().size(), 5u);
}

TEST_F(WriteCheckpoint, PlansOfOtherModels) {
  records::Plan missing = plan({});
  missing.decisions.pop_back();
  EXPECT_THROW(write_checkpoint(source_, missing, out("q"), {.version = "test"}), Error);
  records::Plan more = plan({});
  more.decisions.push_back({.name = "model.layers.99.mlp.up_proj", .keep = true, .reason = "", .score = 0});
  EXPECT_THROW(write_checkpoint(source_, more, out("q"), {.version = "test"}), Error);
  EXPECT_FALSE(fs::exists(out("q")));
}

}  // namespace
}  // namespace nibble::write
