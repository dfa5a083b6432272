#include "model/spec.h"

namespace nibble::model {
namespace {

class Table {
 public:
  explicit Table(std::vector<TensorSpec>& out) : out_(out) {}

  void plain(const std::string& name, Shape shape) {
    out_.push_back({name, std::move(shape), nullptr, part_, depth_});
  }

  void linear(const Linear& linear) {
    out_.push_back({linear.name + ".weight", {linear.out, linear.in}, &linear, part_, depth_});
    if (linear.bias) plain(linear.name + ".bias", {linear.out});
  }

  void norm(const Norm& norm) {
    plain(norm.name + ".weight", {norm.dim});
    if (norm.kind == Norm::Kind::layer) plain(norm.name + ".bias", {norm.dim});
  }

  void stack(const Stack& stack) {
    part_ = stack.part;
    depth_ = 0;
    for (const Block& block : stack.blocks) {
      norm(block.attention_norm);
      for (const Linear& l : block.qkv) linear(l);
      linear(block.attention_out);
      norm(block.mlp_norm);
      for (const Linear& l : block.mlp_in) linear(l);
      linear(block.mlp_out);
      ++depth_;
    }
    depth_ = 0;
  }

  void vision(const Vision& vision) {
    part_ = Part::vision;
    plain(vision.patch_linear + ".weight",
          {vision.stack.hidden, vision.channels, vision.temporal_patch, vision.patch, vision.patch});
    stack(vision.stack);
    part_ = Part::projector;
    norm(vision.merger_norm);
    linear(vision.merger_in);
    linear(vision.merger_out);
  }

  void text(const Text& text) {
    part_ = Part::text;
    plain(text.embedding + ".weight", {text.vocabulary, text.stack.hidden});
    stack(text.stack);
    norm(text.norm);
    if (!text.tied) plain(text.head + ".weight", {text.vocabulary, text.stack.hidden});
  }

 private:
  std::vector<TensorSpec>& out_;
  Part part_ = Part::text;
  int64_t depth_ = 0;
};

}  // namespace

std::vector<TensorSpec> tensor_table(const Spec& spec) {
  std::vector<TensorSpec> out;
  Table table(out);
  if (spec.vision) table.vision(*spec.vision);
  table.text(spec.text);
  return out;
}

std::vector<const Linear*> linears(const Spec& spec) {
  std::vector<const Linear*> out;
  for (const TensorSpec& tensor : tensor_table(spec))
    if (tensor.linear) out.push_back(tensor.linear);
  return out;
}

}  // namespace nibble::model
