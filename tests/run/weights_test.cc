// Weights in use: replaced, put back, released; taps name their readers.
#include "run/weights.h"

#include <map>
#include <set>

#include "run/goldens.h"
#include "support/temp_folder.h"

namespace nibble::run {
namespace {

TEST(Weights, AReplacementIsUsedUntilItIsTakenBack) {
  Model model;
  const std::vector<Prompt> prompts = {model.prompt("text")};
  const Matrix before = last_logits(model.runner, prompts, 1);
  const model::Block& block = model.binding.spec().text.stack.blocks[3];
  const model::Linear& linear = block.mlp_out;
  const Matrix zeros = Matrix::zeros(linear.out, linear.in);
  model.weights.replace(linear.name, kernels::Weight::pack(zeros.tensor(), kernels::Compute::f32));
  EXPECT_GT(difference(last_logits(model.runner, prompts, 1).data(), before.data(), before.cols()), 1e-3);
  model.weights.release(linear);  // a replacement stays
  EXPECT_GT(difference(last_logits(model.runner, prompts, 1).data(), before.data(), before.cols()), 1e-3);
  model.weights.replace(linear.name, {});
  EXPECT_TRUE(same_bits(last_logits(model.runner, prompts, 1), before));
}

/// The shipped model with the linears of its text in NF4, or FP4 every third, written to a folder.
void write_quantized(const std::filesystem::path& folder) {
  const Model source;
  std::map<std::string, quant::Packed4> packed;
  for (const model::Block& block : source.binding.spec().text.stack.blocks) {
    for (const model::Linear* l : {&block.qkv[0], &block.attention_out, &block.mlp_in[0], &block.mlp_out}) {
      Tensor buffer;
      const quant::Format format = packed.size() % 3 == 2 ? quant::Format::fp4 : quant::Format::nf4;
      packed[source.binding.linear(*l).stored + ".weight"] =
          quant::encode4(source.binding.weight(*l, buffer), format, packed.size() % 2 == 0);
    }
  }
  std::vector<io::PlannedTensor> tensors;
  std::vector<quant::StoredTensor> stored;
  for (const auto& [name, info] : source.binding.checkpoint().tensors()) {
    if (!packed.contains(name)) {
      tensors.push_back(io::planned(name, source.binding.checkpoint().tensor(name)));
      continue;
    }
    for (quant::StoredTensor& t : quant::to_tensors(packed.at(name))) {
      tensors.push_back(io::planned(name + t.suffix, t.view));
      stored.push_back(std::move(t));
    }
  }
  io::write_safetensors(folder / "model.safetensors", std::move(tensors));
  std::filesystem::copy(kModel / "config.json", folder);
}

TEST(Weights, OfLinearsIn4BitsAreTheirCodes) {
  const test::TempFolder folder;
  write_quantized(folder.path());
  const model::Binding binding(folder.path());
  const std::vector<Prompt> prompts = {golden_prompt("text", binding.spec().vision->patch_features()),
                                       golden_prompt("one", binding.spec().vision->patch_features())};
  for (const kernels::Compute compute : {kernels::Compute::f32, kernels::Compute::bf16}) {
    Weights codes(binding, compute), decoded(binding, compute);
    for (const model::Linear* l : model::linears(binding.spec())) {
      Tensor buffer;
      decoded.replace(l->name, kernels::Weight::pack(binding.weight(*l, buffer), compute));
      const int64_t share = 2 * codes.linear(*l).bytes() / decoded.linear(*l).bytes();
      EXPECT_EQ(share, binding.linear(*l).storage == model::Storage::plain ? 2 : 0) << l->name;
    }
    Runner runs_codes(codes), runs_decoded(decoded);
    EXPECT_TRUE(same_bits(last_logits(runs_codes, prompts, 3), last_logits(runs_decoded, prompts, 3)));
  }
}

/// Notes which linears were told of, and that their inputs have the right width.
class TapCounter : public Observer {
 public:
  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const Modality> modality) override {
    EXPECT_EQ(static_cast<int64_t>(modality.size()), x.rows);
    for (const model::Linear* reader : readers) {
      EXPECT_EQ(reader->in, x.cols) << reader->name;
      EXPECT_EQ(reader->tap, readers[0]->tap);
      EXPECT_TRUE(seen.insert(reader->name).second) << reader->name << " twice";
    }
  }
  std::set<std::string> seen;
};

TEST(Observer, SeesTheInputOfEveryLinearOnce) {
  Model model;
  TapCounter counter;
  model.runner.observe(&counter);
  last_logits(model.runner, {model.prompt("one"), model.prompt("two")}, 1);
  std::set<std::string> all;
  for (const model::Linear* linear : model::linears(model.binding.spec())) all.insert(linear->name);
  EXPECT_EQ(counter.seen, all);
}

}  // namespace
}  // namespace nibble::run
