#include "model/decoder.h"

#include <algorithm>

#include "base/error.h"
#include "model/config.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

/// Sizes of one block.
struct Shape {
  int64_t dim = 0, q = 0, kv = 0, inner = 0;
  float eps = 0;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
};

Linear fused_qkv(const std::string& attn, const Shape& s) {
  Linear l = lone_linear(attn + ".qkv_proj", s.q + 2 * s.kv, s.dim, s.qkv_bias, Role::qkv);
  l.slices = {{Role::q, 0, s.q}, {Role::k, s.q, s.kv}, {Role::v, s.q + s.kv, s.kv}};
  return l;
}

Linear fused_gate_up(const std::string& mlp, const Shape& s) {
  Linear l = lone_linear(mlp + ".gate_up_proj", 2 * s.inner, s.dim, s.mlp_bias, Role::gate_up);
  l.slices = {{Role::gate, 0, s.inner}, {Role::up, s.inner, s.inner}};
  return l;
}

Block decoder_block(const std::string& name, const Shape& s, const DecoderDefaults& defaults) {
  const std::string attn = name + ".self_attn", mlp = name + ".mlp";
  Block out;
  out.name = name;
  out.attention_name = attn;
  out.mlp_name = mlp;
  out.activation_name = fmt::format("{}.{}", mlp, defaults.activation);
  out.attention_norm = {name + ".input_layernorm", Norm::Kind::rms, s.dim, s.eps};
  out.mlp_norm = {name + ".post_attention_layernorm", Norm::Kind::rms, s.dim, s.eps};
  out.qkv =
      defaults.fused ? std::vector{fused_qkv(attn, s)} : qkv_linears(attn, s.dim, s.q, s.kv, s.qkv_bias);
  out.attention_out = lone_linear(attn + ".o_proj", s.dim, s.q, s.out_bias, Role::attention_out);
  out.mlp_in =
      defaults.fused ? std::vector{fused_gate_up(mlp, s)} : gate_up_linears(mlp, s.dim, s.inner, s.mlp_bias);
  out.mlp_out = lone_linear(mlp + ".down_proj", s.dim, s.inner, s.mlp_bias, Role::down);
  return out;
}

/// Key-value heads: a missing key has the class default, null means one for each head.
int64_t kv_heads_field(const io::Fields& config, int64_t heads, std::optional<int64_t> fallback) {
  const bool null = config.json().contains("num_key_value_heads") && !config.has("num_key_value_heads");
  const int64_t out =
      config.dimension("num_key_value_heads", null ? heads : fallback.value_or(heads), 1 << 16);
  if (heads % out != 0)
    fail("{}: {} attention heads do not divide among {} key-value heads", config.what(), heads, out);
  return out;
}

float eps_field(const io::Fields& config, float fallback) {
  const double eps = config.number("rms_norm_eps", fallback);
  if (!(eps >= 0)) fail("{}: rms_norm_eps {} is negative", config.what(), eps);
  return static_cast<float>(eps);
}

/// A window as long as the sequence changes nothing; longer sequences are refused.
int64_t positions_field(const io::Fields& config, const DecoderDefaults& defaults) {
  constexpr int64_t kMost = int64_t{1} << 40;
  const int64_t out = config.dimension("max_position_embeddings", defaults.max_positions, kMost);
  if (!defaults.reads_sliding_window) return out;
  const bool null = config.json().contains("sliding_window") && !config.has("sliding_window");
  if (null || (!config.has("sliding_window") && defaults.sliding_window == 0)) return out;
  return std::min(out, config.dimension("sliding_window", defaults.sliding_window, kMost));
}

}  // namespace

Text describe_decoder(const io::Fields& config, const io::Fields& top, const DecoderDefaults& defaults,
                      const std::string& prefix, const std::string& head) {
  Text text;
  Stack& stack = text.stack;
  stack.part = Part::text;
  stack.hidden = config.dimension("hidden_size", defaults.hidden, 1 << 20);
  stack.heads = config.dimension("num_attention_heads", defaults.heads, 1 << 16);
  stack.kv_heads = kv_heads_field(config, stack.heads, defaults.kv_heads);
  stack.head_dim = defaults.reads_head_dim && config.has("head_dim")
                       ? config.dimension("head_dim", 1 << 16)
                       : head_size(config, stack.hidden, stack.heads);
  stack.activation = activation_field(config, "silu");
  Shape shape{.dim = stack.hidden,
              .q = stack.heads * stack.head_dim,
              .kv = stack.kv_heads * stack.head_dim,
              .inner = config.dimension("intermediate_size", defaults.inner, 1 << 24),
              .eps = eps_field(config, defaults.eps),
              .qkv_bias = defaults.qkv_bias};
  if (defaults.reads_biases) {
    shape.qkv_bias = shape.out_bias = config.boolean("attention_bias", false);
    shape.mlp_bias = config.boolean("mlp_bias", false);
  }
  const int64_t layers = config.dimension("num_hidden_layers", defaults.layers, kMaxBlocks);
  for (int64_t i = 0; i < layers; ++i)
    stack.blocks.push_back(decoder_block(fmt::format("{}layers.{}", prefix, i), shape, defaults));
  text.name = prefix.substr(0, prefix.size() - 1);
  text.max_positions = positions_field(config, defaults);
  text.embedding = prefix + "embed_tokens";
  text.vocabulary = config.dimension("vocab_size", defaults.vocabulary, 1 << 28);
  text.embedding_rows = text.vocabulary;
  text.norm = {prefix + "norm", Norm::Kind::rms, stack.hidden, shape.eps};
  text.head = head;
  text.tied = config.boolean("tie_word_embeddings", top.boolean("tie_word_embeddings", false));
  return text;
}

}  // namespace nibble::model
