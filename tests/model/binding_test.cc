// Checkpoints opened as models: names, shapes, dtypes, storage, sizes.
#include "model/binding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "model/micro.h"
#include "quant/state.h"

namespace nibble::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_io::error_of;
using testing_io::TempFolder;

class BindingTest : public ::testing::Test {
 protected:
  /// Writes the checkpoint and opens it.
  Binding open() const {
    write_micro(folder / "model", config, tensors);
    return Binding(folder / "model");
  }
  std::string error() const {
    return error_of([&] { open(); });
  }
  /// Stores a linear as NF4 in place of its weight.
  void quantize(const std::string& name, quant::Format format = quant::Format::nf4) {
    const MicroTensor plain = tensors.extract(name + ".weight").mapped();
    const TensorView view{plain.dtype, plain.shape, reinterpret_cast<const std::byte*>(plain.bytes.data())};
    const quant::Packed4 packed = quant::encode4(view, format, true);
    for (const quant::StoredTensor& t : quant::to_tensors(packed))
      tensors[name + ".weight" + t.suffix] = {
          t.view.dtype, t.view.shape,
          std::string(reinterpret_cast<const char*>(t.view.data), static_cast<size_t>(t.view.bytes()))};
  }

  TempFolder folder;
  io::Json config = micro_config();
  MicroTensors tensors = micro_tensors(config);
};

const std::string kLinear = "model.layers.0.mlp.up_proj", kWeight = kLinear + ".weight";

TEST_F(BindingTest, OpensWhatTheConfigurationAsksFor) {
  const Binding binding = open();
  EXPECT_EQ(binding.family().model_type, "qwen2_vl");
  EXPECT_FALSE(binding.quantized());
  EXPECT_EQ(binding.spec().tokens.end, std::vector<int64_t>{28});
  int64_t bytes = 0;
  for (const auto& [name, t] : tensors) bytes += static_cast<int64_t>(t.bytes.size());
  EXPECT_EQ(binding.tensor_bytes(), bytes);
}

TEST_F(BindingTest, GenerationConfigSaysWhichTokensEnd) {
  write_micro(folder / "model", config, tensors);
  io::write_file(folder / "model" / "generation_config.json", R"({"eos_token_id": [27, 26]})");
  EXPECT_EQ(Binding(folder / "model").spec().tokens.end, (std::vector<int64_t>{27, 26}));
}

TEST_F(BindingTest, TakesTheNamesOfTheModuleTree) {
  MicroTensors renamed;
  for (const auto& [name, t] : tensors)
    renamed[respell(name, find_family(io::Fields(config, "c")).module_tree)] = t;
  ASSERT_TRUE(renamed.contains("model.language_model.layers.0.mlp.up_proj.weight"));
  ASSERT_TRUE(renamed.contains("model.visual.blocks.0.attn.qkv.weight"));
  tensors = renamed;
  const Binding binding = open();
  EXPECT_EQ(binding.stored(kWeight), "model.language_model." + kWeight.substr(6));
}

TEST_F(BindingTest, AMissingTensorIsNamed) {
  for (const std::string& name :
       {kWeight, std::string("visual.merger.ln_q.bias"), std::string("model.norm.weight")}) {
    const MicroTensors all = tensors;
    tensors.erase(name);
    EXPECT_THAT(error(), AllOf(HasSubstr((folder / "model").string()), HasSubstr(name), HasSubstr("missing")))
        << name;
    tensors = all;
  }
}

TEST_F(BindingTest, AnUntiedModelNeedsItsHead) {
  config["tie_word_embeddings"] = false;
  EXPECT_THAT(error(), AllOf(HasSubstr("lm_head.weight"), HasSubstr("missing")));
  tensors = micro_tensors(config);
  EXPECT_TRUE(tensors.contains("lm_head.weight"));
  EXPECT_NO_THROW(open());
}

TEST_F(BindingTest, AWrongShapeIsNamedWithBothShapes) {
  for (const std::string& name : {kWeight, std::string("model.norm.weight")}) {
    const MicroTensors all = tensors;
    tensors[name].shape.back() += 1;
    tensors[name].bytes.resize(
        static_cast<size_t>(TensorView{DType::bf16, tensors[name].shape, nullptr}.bytes()));
    EXPECT_THAT(error(),
                AllOf(HasSubstr("model.safetensors"), HasSubstr(name),
                      HasSubstr(shape_text(all.at(name).shape)), HasSubstr(shape_text(tensors[name].shape))));
    tensors = all;
  }
}

TEST_F(BindingTest, IntegersWithoutQuantStateAreRefused) {
  const MicroTensors all = tensors;
  for (const DType dtype : {DType::i8, DType::u8, DType::i32}) {
    tensors = all;
    tensors[kWeight].dtype = dtype;
    tensors[kWeight].bytes.resize(
        static_cast<size_t>(TensorView{dtype, tensors[kWeight].shape, nullptr}.bytes()));
    EXPECT_THAT(error(), AllOf(HasSubstr(kWeight), HasSubstr(std::string(dtype_name(dtype)))));
  }
  tensors = all;
  tensors["model.norm.weight"].dtype = DType::i32;
  tensors["model.norm.weight"].bytes.resize(64);
  EXPECT_THAT(error(), AllOf(HasSubstr("model.norm.weight"), HasSubstr("I32")));
}

TEST_F(BindingTest, ReadsFourBitLinears) {
  const MicroTensors all = tensors;
  for (const quant::Format format : {quant::Format::nf4, quant::Format::fp4}) {
    tensors = all;
    quantize(kLinear, format);
    const Binding binding = open();
    EXPECT_TRUE(binding.quantized());
    for (const Linear* linear : linears(binding.spec())) {
      const bool packed = linear->name == kLinear;
      EXPECT_EQ(storage_text(binding.linear(*linear)), packed ? quant::format_name(format) : "bf16")
          << linear->name;
      if (!packed) continue;
      int64_t bytes = 0;
      for (const auto& [name, t] : tensors)
        if (name.starts_with(kWeight)) bytes += static_cast<int64_t>(t.bytes.size());
      EXPECT_EQ(binding.linear(*linear).bytes, bytes);
      EXPECT_EQ(binding.packed(*linear).shape, (Shape{linear->out, linear->in}));
    }
  }
}

TEST_F(BindingTest, AFourBitLinearOfAnotherShapeIsRefused) {
  tensors[kWeight].shape = {16, 24};  // asked for: 24 x 16
  quantize(kLinear);
  EXPECT_THAT(error(),
              AllOf(HasSubstr(kWeight), HasSubstr(shape_text({16, 24})), HasSubstr(shape_text({24, 16}))));
}

TEST_F(BindingTest, AFourBitLinearWithoutItsSideTensorsIsRefused) {
  quantize(kLinear);
  for (const char* suffix : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    const MicroTensors all = tensors;
    tensors.erase(kWeight + suffix);
    EXPECT_THAT(error(), AllOf(HasSubstr(kWeight), HasSubstr(suffix))) << suffix;
    tensors = all;
  }
}

TEST_F(BindingTest, NonFiniteWeightsAreFoundWithTheirPlace) {
  // The third element of a bf16 tensor: quiet NaN, infinity, minus infinity.
  for (const uint16_t bits : {0x7fc0, 0x7f80, 0xff80}) {
    tensors = micro_tensors(config);
    tensors[kWeight].bytes[4] = static_cast<char>(bits & 0xff);
    tensors[kWeight].bytes[5] = static_cast<char>(bits >> 8);
    const Binding binding = open();
    EXPECT_NO_THROW(binding.check_finite("model.norm.weight"));
    const int64_t offset = binding.checkpoint().tensors().at(kWeight).begin + 4;
    EXPECT_THAT(error_of([&] { binding.check_finite(kWeight); }),
                AllOf(HasSubstr("model.safetensors"), HasSubstr(kWeight), HasSubstr("element 2"),
                      HasSubstr(fmt::format("byte {}", offset))));
  }
}

TEST_F(BindingTest, TheInventoryAddsUp) {
  const Binding binding = open();
  const records::Inventory inventory = binding.inventory("micro");
  EXPECT_EQ(inventory.model, "micro");
  EXPECT_EQ(inventory.bytes_all16(), binding.tensor_bytes());
  EXPECT_EQ(inventory.parameters * 2, binding.tensor_bytes());  // all bf16, head tied
  EXPECT_EQ(inventory.linears.size(), linears(binding.spec()).size());
}

TEST(Nf4Bytes, CountsWhatIsStored) {
  for (const auto& [out, in] : {std::pair<int64_t, int64_t>{24, 16}, {5, 7}, {64, 4096}}) {
    Tensor weight(DType::bf16, {out, in});
    for (int64_t i = 0; i < out * in; ++i)
      weight.as<uint16_t>()[i] = float_to_bf16(static_cast<float>(i % 23 - 11) / 64.0f);
    const quant::Packed4 packed = quant::encode4(weight.view(), quant::Format::nf4, true);
    int64_t bytes = 0;
    for (const quant::StoredTensor& t : quant::to_tensors(packed)) bytes += t.view.bytes();
    EXPECT_EQ(nf4_bytes(out, in, DType::bf16, packed.nested->offset), bytes);
  }
}

}  // namespace
}  // namespace nibble::model
