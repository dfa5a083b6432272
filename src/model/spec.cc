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

  void gate(const std::string& name) {
    if (!name.empty()) plain(name, {1});
  }

  void stack(const Stack& stack, const std::optional<Tiles>& tiles) {
    part_ = stack.part;
    depth_ = 0;
    for (const Block& block : stack.blocks) {
      if (block.entry) {
        norm(block.entry->norm);
        tile_embedding(block.entry->tile_embedding, *tiles, stack.hidden);
      }
      norm(block.attention_norm);
      for (const Linear& l : block.qkv) linear(l);
      if (block.q_norm) norm(*block.q_norm);
      if (block.k_norm) norm(*block.k_norm);
      linear(block.attention_out);
      gate(block.attention_gate);
      norm(block.mlp_norm);
      for (const Linear& l : block.mlp_in) linear(l);
      linear(block.mlp_out);
      gate(block.mlp_gate);
      ++depth_;
    }
    depth_ = 0;
  }

  void tile_embedding(const std::string& name, const Tiles& tiles, int64_t hidden) {
    plain(name + ".embedding.weight", {tiles.aspect_ratios, tiles.count * hidden});
    gate(name + ".gate");
  }

  void tiles(const Tiles& tiles, int64_t hidden) {
    plain(tiles.class_embedding, {hidden});
    tile_embedding(tiles.before, tiles, hidden);
    plain(tiles.position + ".embedding", {tiles.tile_rows(), hidden});
    plain(tiles.position + ".tile_embedding.weight",
          {tiles.aspect_ratios, tiles.count * tiles.tile_rows() * hidden});
    gate(tiles.position + ".gate");
  }

  void vision(const Vision& vision) {
    part_ = Part::vision;
    Shape patch = {vision.stack.hidden, vision.channels, vision.patch, vision.patch};
    if (vision.temporal_patch > 0) patch.insert(patch.begin() + 2, vision.temporal_patch);
    plain(vision.patch_linear + ".weight", patch);
    if (vision.tiles) tiles(*vision.tiles, vision.stack.hidden);
    if (vision.embedding_norm) norm(*vision.embedding_norm);
    stack(vision.stack, vision.tiles);
    part_ = Part::projector;
    if (vision.connector_norm) norm(*vision.connector_norm);
    for (const Linear& l : vision.connector_linears) linear(l);
  }

  void text(const Text& text) {
    part_ = Part::text;
    plain(text.embedding + ".weight", {text.embedding_rows, text.stack.hidden});
    stack(text.stack, std::nullopt);
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
