// What a model is, as data: blocks of linears and norms with the names of their tensors. A family makes it
// from config.json alone; nothing here reads a weight.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "records/inventory.h"
#include "tensor/activation.h"
#include "tensor/tensor.h"

namespace nibble::model {

using records::Part;
using records::Role;

/// Rows [begin, begin + rows) of a fused linear, which other checkpoints store as a linear of their own.
struct Slice {
  Role role = Role::q;
  int64_t begin = 0, rows = 0;
};

/// A linear layer: tensors name.weight (out, in) and, with bias, name.bias (out).
struct Linear {
  std::string name;
  int64_t out = 0, in = 0;
  bool bias = false;
  Role role = Role::q;
  std::string group;          // linears that are decided together
  std::string tap;            // linears that read the same input
  std::vector<Slice> slices;  // of a fused linear; they cover its rows in order
  bool fits8 = true;  // false: readers give it tensors of more dimensions than LLM.int8's module takes
};

/// A norm over `dim` features: name.weight, and for `layer` name.bias.
struct Norm {
  enum class Kind { layer, rms };
  std::string name;
  Kind kind = Kind::rms;
  int64_t dim = 0;
  float eps = 0;
};

/// What happens to the hidden states before a block, where a tower goes over to its second part: a norm, then
/// tanh(name.gate) * name.embedding.weight[aspect ratio], one row of features for each tile.
struct Entry {
  Norm norm;
  std::string tile_embedding;
};

/// A transformer block: x += out(attention(qkv(norm(x)))), then x += mlp_out(f(mlp_in(norm(x)))).
struct Block {
  std::string name;                      // "visual.blocks.3"
  std::string attention_name, mlp_name;  // modules whose outputs are traced
  std::string activation_name;           // likewise, "" for none
  std::optional<Entry> entry;
  Norm attention_norm, mlp_norm;
  std::vector<Linear> qkv;             // one fused linear (rows q, k, v) or three: q, k, v
  std::optional<Norm> q_norm, k_norm;  // over the features of each head
  // Cross attention: keys and values are made of the pictures' features, without rotary embedding; a sequence
  // without pictures passes by the block.
  bool cross = false;
  Linear attention_out;
  std::vector<Linear> mlp_in;  // plain MLP: one; gated MLP: gate and up, or one fused (rows gate, up)
  Linear mlp_out;
  std::string attention_gate, mlp_gate;  // tensors of one element; tanh of it scales what is added; "": none
};

/// Rotary embedding: 2 * frequency.size() features of each head turn, pairs (j, j + frequency.size()).
struct Rope {
  std::vector<float> frequency;  // radians per position, of each angle; empty: nothing turns
  std::vector<uint8_t> axis;     // which entry of a row's position each angle follows
  std::vector<float>
      long_frequency;  // for sequences of more than `original_positions` tokens; empty: the same
  int64_t original_positions = 0;
  float scale = 1;  // of cosine and sine
};

/// Blocks of one shape, one after the other.
struct Stack {
  Part part = Part::text;
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = true;
  bool gated = true;  // MLP: activation(gate) * up
  Activation activation = Activation::silu;
  Rope rope;
  std::vector<Block> blocks;
  std::vector<int64_t>
      kept;  // blocks whose outputs the connector joins to the last one's, feature by feature
};

/// How a tower sees a picture in tiles (Llama 3.2 Vision): every tile is a row of patches behind a class
/// token, with gated embeddings of place, tile and aspect ratio; rows are filled up to a multiple of 8.
struct Tiles {
  int64_t count = 4;            // of every picture; those that it does not fill are empty
  int64_t side = 0;             // patches along a side of a tile
  int64_t aspect_ratios = 0;    // rows of the embeddings, the one of no picture counted
  std::string class_embedding;  // tensor (hidden)
  std::string before;           // module: .embedding.weight (aspect_ratios, count * hidden), .gate (1)
  std::string position;         // module: .embedding (tile_rows, hidden), .gate (1),
                                // .tile_embedding.weight (aspect_ratios, count * tile_rows * hidden)

  int64_t tile_rows() const { return side * side + 1; }
  int64_t padded_rows() const { return (tile_rows() + 7) / 8 * 8; }
};

/// The vision tower: patches -> embedding -> blocks -> connector, which makes features of the language model.
struct Vision {
  std::string name;         // module
  std::string patch_embed;  // module; a convolution without overlap is a linear over the flattened patch
  std::string
      patch_linear;  // its convolution: name.weight (hidden, channels, [temporal,] patch, patch), no bias
  int64_t channels = 3, patch = 14;
  int64_t temporal_patch = 0;  // frames of a patch; 0: a convolution over one frame
  std::optional<Norm> embedding_norm;
  std::optional<Tiles> tiles;
  Stack stack;
  int64_t blocks_used = 0;  // the features are the output of this many blocks
  // The connector joins merge * merge neighbouring rows into one, then one linear, or two with an activation
  // between.
  std::string connector, connector_mlp, connector_activation_name;  // modules, "" for none
  std::optional<Norm> connector_norm;
  int64_t merge = 1;
  std::vector<Linear> connector_linears;
  Activation connector_activation = Activation::gelu;
  bool across = false;  // the text looks at the features by cross attention
  // A picture's rows spread over the height and width axes of the text's positions; otherwise they are
  // counted like text.
  bool spread_positions = false;
  int64_t position_side = 0;  // patches have positions below this on each axis; 0: any

  int64_t patch_features() const { return channels * std::max<int64_t>(temporal_patch, 1) * patch * patch; }
};

/// The language model.
struct Text {
  std::string name;       // module
  std::string embedding;  // name.weight (embedding_rows, hidden)
  int64_t vocabulary = 0;
  int64_t embedding_rows = 0;  // at least the vocabulary: some ids can be said to the model, but not by it
  int64_t max_positions = 0;   // longest sequence that the model was made for
  Stack stack;
  Norm norm;
  std::string head;  // name.weight (vocabulary, hidden); when tied, the embedding serves
  bool tied = false;
};

/// Ids that the inputs are made with.
struct Tokens {
  int64_t image = -1;        // where a picture's features stand, once for each; before cross attention: once
  std::vector<int64_t> end;  // generation stops at any of them
};

struct Spec {
  std::string family;  // model_type
  std::optional<Vision> vision;
  Text text;
  Tokens tokens;

  /// True when the text looks at pictures by cross attention; otherwise their features stand among its
  /// tokens.
  bool sees_across() const { return vision && vision->across; }
};

/// A tensor that the model must have.
struct TensorSpec {
  std::string name;
  Shape shape;
  const Linear* linear =
      nullptr;  // set for the weight of a linear that can be quantized; points into the Spec
  Part part = Part::text;
  int64_t depth = 0;  // of the linear's block
};

/// All tensors in the order of the forward pass; a tied head is not listed.
std::vector<TensorSpec> tensor_table(const Spec& spec);

/// All linears that can be quantized, in the order of the forward pass.
std::vector<const Linear*> linears(const Spec& spec);

}  // namespace nibble::model
