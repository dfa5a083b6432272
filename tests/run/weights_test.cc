// Weights in use: replaced, put back, released; taps name their readers.
#include "run/weights.h"

#include <set>

#include "run/goldens.h"

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
  model.weights.release(block);  // a replacement stays
  EXPECT_GT(difference(last_logits(model.runner, prompts, 1).data(), before.data(), before.cols()), 1e-3);
  model.weights.replace(linear.name, {});
  EXPECT_TRUE(same_bits(last_logits(model.runner, prompts, 1), before));
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
