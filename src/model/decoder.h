// Decoder-only language models of the llama kind, which most families have as their text part.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/json.h"
#include "model/spec.h"

namespace nibble::model {

/// What a class of transformers assumes where config.json says nothing, and which of its keys it has.
struct DecoderDefaults {
  int64_t hidden = 4096, layers = 32, heads = 32, inner = 11008, vocabulary = 32000, max_positions = 4096;
  std::optional<int64_t> kv_heads = std::nullopt;  // nothing: one for each head
  float eps = 1e-6f;
  int64_t sliding_window = 0;              // where the key is missing; 0: none
  bool reads_head_dim = true;              // "head_dim" may differ from hidden / heads
  bool reads_sliding_window = false;       // "sliding_window" (null: none)
  bool qkv_bias = false;                   // always there
  bool reads_biases = false;               // "attention_bias", "mlp_bias"
  bool fused = false;                      // qkv_proj and gate_up_proj are one linear each
  std::string_view activation = "act_fn";  // module
};

/// The text part that `config` describes; its tensors are named prefix + "embed_tokens.weight", prefix +
/// "layers.0. ..." and so on, the head is `head`. `top` is the whole config.json, where ties may stand.
/// The rotary embedding is left to the family. Throws Error naming the field.
Text describe_decoder(const io::Fields& config, const io::Fields& top, const DecoderDefaults& defaults,
                      const std::string& prefix, const std::string& head);

}  // namespace nibble::model
