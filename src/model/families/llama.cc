// Llama 2 to 3.1 (arXiv:2407.21783). Reference: transformers 4.57, models/llama.
#include "model/config.h"
#include "model/decoder.h"
#include "model/families/registry.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

constexpr DecoderDefaults kText = {.max_positions = 2048, .reads_biases = true};

Spec describe(const io::Fields& config) {
  Spec spec;
  spec.family = "llama";
  spec.text = describe_decoder(config, config, kText, "model.", "lm_head");
  spec.text.stack.rope = text_rope(config, spec.text.stack.head_dim, 10000);
  spec.tokens.end = end_tokens(config);
  return spec;
}

constexpr std::string_view kChat =
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role "
    "}}<|end_header_id|>\n\n{{ "
    "message.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt "
    "%}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

}  // namespace

const Family kLlama = {
    .model_type = "llama",
    .title = "Llama",
    .model_class = "LlamaForCausalLM",
    .describe = describe,
    .config_for_both = text_config_for_both,
    .module_tree = {},
    .vllm = {},
    .vllm_fused = fused_module,
    .chat_template = kChat,
    .image = ImageFormat::none,
};

}  // namespace nibble::model
