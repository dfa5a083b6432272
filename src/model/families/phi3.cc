// Phi-3, Phi-3.5 and Phi-4 (arXiv:2404.14219, arXiv:2412.08905): q, k, v are stored as one linear, and gate
// and up as another. Reference: transformers 4.57, models/phi3.
#include "model/config.h"
#include "model/decoder.h"
#include "model/families/registry.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

constexpr DecoderDefaults kText = {.hidden = 3072,
                                   .inner = 8192,
                                   .vocabulary = 32064,
                                   .eps = 1e-5f,
                                   .reads_sliding_window = true,
                                   .fused = true,
                                   .activation = "activation_fn"};

Spec describe(const io::Fields& config) {
  Spec spec;
  spec.family = "phi3";
  spec.text = describe_decoder(config, config, kText, "model.", "lm_head");
  spec.text.stack.rope = text_rope(config, spec.text.stack.head_dim, 10000);
  spec.tokens.end = end_tokens(config);
  return spec;
}

/// transformers 4 wants exactly three keys in the rope_scaling of this family.
io::Json config_for_both(const io::Json& config) {
  io::Json out = text_config_for_both(config);
  if (config.contains("rope_scaling") || !out.contains("rope_scaling") || !out.at("rope_scaling").is_object())
    return out;
  const io::Json scaling = out.at("rope_scaling");
  out["rope_scaling"] = {{"type", scaling.at("rope_type")}};
  for (const char* key : {"short_factor", "long_factor"})
    if (scaling.contains(key)) out["rope_scaling"][key] = io::Json(scaling.at(key));
  if (const char* key = "original_max_position_embeddings"; scaling.contains(key) && !out.contains(key))
    out[key] = io::Json(scaling.at(key));
  return out;
}

constexpr std::string_view kChat =
    "{% for message in messages %}<|im_start|>{{ message.role }}<|im_sep|>{{ message.content }}<|im_end|>{% "
    "endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}";

std::string_view fused(Role role) {
  switch (role) {
    case Role::qkv:
      return "qkv_proj";
    case Role::gate_up:
      return "gate_up_proj";
    default:
      return "";
  }
}

}  // namespace

const Family kPhi3 = {
    .model_type = "phi3",
    .title = "Phi",
    .model_class = "Phi3ForCausalLM",
    .describe = describe,
    .config_for_both = config_for_both,
    .module_tree = {},
    .vllm = {},
    .vllm_fused = fused,
    .chat_template = kChat,
    .image = ImageFormat::none,
};

}  // namespace nibble::model
