// What a model is, as data: blocks of linears and norms with the names of their tensors. A family makes it
// from config.json alone; nothing here reads a weight.
#pragma once

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

/// A linear layer: tensors name.weight (out, in) and, with bias, name.bias (out).
struct Linear {
  std::string name;
  int64_t out = 0, in = 0;
  bool bias = false;
  Role role = Role::q;
  std::string group;  // linears that are decided together
  std::string tap;    // linears that read the same input
};

/// A norm over `dim` features: name.weight, and for `layer` name.bias.
struct Norm {
  enum class Kind { layer, rms };
  std::string name;
  Kind kind = Kind::rms;
  int64_t dim = 0;
  float eps = 0;
};

/// A transformer block: x += out(attention(qkv(norm(x)))), then x += mlp_out(f(mlp_in(norm(x)))).
struct Block {
  std::string name;                      // "visual.blocks.3"
  std::string attention_name, mlp_name;  // modules whose outputs are traced
  std::string activation_name;           // likewise, "" for none
  Norm attention_norm, mlp_norm;
  std::vector<Linear> qkv;  // one fused linear (rows q, k, v) or three: q, k, v
  Linear attention_out;
  std::vector<Linear> mlp_in;  // plain MLP: one; gated MLP: gate and up
  Linear mlp_out;
};

/// Where the angles of rotary embedding come from; angles have head_dim / 2 frequencies for each row.
struct Rope {
  enum class Kind {
    sections,  // M-RoPE: frequencies in sections that follow the time, height and width position of a row
    axial,     // half of the frequencies follow the row, half the column of a patch
  };
  Kind kind = Kind::sections;
  double theta = 10000;
  std::vector<int64_t> sections;  // sections: frequencies per axis
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
};

/// The vision tower: patches -> embedding -> blocks -> merger.
struct Vision {
  std::string name;         // module
  std::string patch_embed;  // module; a convolution without overlap is a linear over the flattened patch
  std::string
      patch_linear;  // its convolution: name.weight (hidden, channels, temporal, patch, patch), no bias
  int64_t channels = 3, temporal_patch = 2, patch = 14;
  Stack stack;
  // The merger joins merge * merge neighbouring rows into one, then two linears with an activation between.
  std::string merger, merger_mlp, merger_activation_name;
  Norm merger_norm;
  int64_t merge = 2;
  Linear merger_in, merger_out;
  Activation merger_activation = Activation::gelu;

  int64_t patch_features() const { return channels * temporal_patch * patch * patch; }
};

/// The language model.
struct Text {
  std::string name;       // module
  std::string embedding;  // name.weight (vocabulary, hidden)
  int64_t vocabulary = 0;
  int64_t max_positions = 0;  // longest sequence that the model was made for
  Stack stack;
  Norm norm;
  std::string head;  // name.weight (vocabulary, hidden); when tied, the embedding serves
  bool tied = false;
};

/// Ids that the inputs are made with.
struct Tokens {
  int64_t image = -1;        // stands once for every merged patch
  std::vector<int64_t> end;  // generation stops at any of them
};

struct Spec {
  std::string family;  // model_type
  std::optional<Vision> vision;
  Text text;
  Tokens tokens;
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
