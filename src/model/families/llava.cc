// Llava with a Pixtral tower and a Mistral or Llama text part (arXiv:2410.07073). Reference:
// transformers 4.57, models/llava, models/pixtral, models/mistral.
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/families/registry.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

constexpr float kVisionEps = 1e-5f;

Block vision_block(int64_t i, int64_t dim, int64_t inner) {
  const std::string name = fmt::format("vision_tower.transformer.layers.{}", i);
  const std::string attn = name + ".attention", mlp = name + ".feed_forward";
  Block out;
  out.name = name;
  out.attention_name = attn;
  out.mlp_name = mlp;
  out.activation_name = mlp + ".act_fn";
  out.attention_norm = {name + ".attention_norm", Norm::Kind::rms, dim, kVisionEps};
  out.mlp_norm = {name + ".ffn_norm", Norm::Kind::rms, dim, kVisionEps};
  out.qkv = qkv_linears(attn, dim, dim, dim, false);
  out.attention_out = lone_linear(attn + ".o_proj", dim, dim, false, Role::attention_out);
  out.mlp_in = gate_up_linears(mlp, dim, inner, false);
  out.mlp_out = lone_linear(mlp + ".down_proj", dim, inner, false, Role::down);
  return out;
}

/// Half of the angles follow the row of a patch with the even frequencies, half its column with the odd ones.
Rope patch_rope(double theta, int64_t head_dim) {
  const std::vector<float> all = inverse_frequencies(theta, head_dim);
  Rope rope;
  for (uint8_t axis : {0, 1})
    for (size_t j = axis; j < all.size(); j += 2) {
      rope.frequency.push_back(all[j]);
      rope.axis.push_back(axis);
    }
  return rope;
}

/// How many blocks of the tower the features are taken behind: vision_feature_layer counts the embedding as 0
/// and may count from the end.
int64_t blocks_used(const io::Fields& config, int64_t depth) {
  if (config.has("vision_feature_layer") && !config.json().at("vision_feature_layer").is_number_integer())
    fail("{}: vision_feature_layer is not one number; nibble takes the features of one layer", config.what());
  const int64_t layer = config.integer("vision_feature_layer", -2);
  const int64_t used = layer < 0 ? depth + 1 + layer : layer;
  if (used < 0 || used > depth)
    fail("{}: vision_feature_layer {} is not a layer of a tower of {}", config.what(), layer, depth);
  if (const std::string strategy = config.string("vision_feature_select_strategy", "default");
      strategy != "full")
    fail(
        "{}: vision_feature_select_strategy \"{}\" drops a class token, which a Pixtral tower does not have; "
        "\"full\" is needed",
        config.what(), printable(strategy, 40));
  return used;
}

Vision describe_vision(const io::Fields& config, const io::Fields& top, int64_t text_hidden) {
  if (const std::string type = config.string("model_type", "clip_vision_model"); type != "pixtral")
    fail("{}: model_type \"{}\" of the vision part is not known; nibble reads Llava with a \"pixtral\" tower",
         config.what(), printable(type, 40));
  Vision vision;
  vision.name = "vision_tower";
  vision.patch_linear = "vision_tower.patch_conv";
  vision.channels = config.dimension("num_channels", 3, 64);
  vision.patch = config.dimension("patch_size", 16, 1024);
  vision.position_side = config.dimension("image_size", 1024, 1 << 20) / vision.patch;
  if (vision.position_side == 0) fail("{}: image_size is below patch_size {}", config.what(), vision.patch);
  Stack& stack = vision.stack;
  stack.part = Part::vision;
  stack.hidden = config.dimension("hidden_size", 1024, 1 << 20);
  stack.heads = stack.kv_heads = config.dimension("num_attention_heads", 16, 1 << 16);
  stack.head_dim = head_size(config, stack.hidden, stack.heads);
  if (stack.head_dim % 4 != 0)
    fail("{}: heads of {} features cannot carry row and column angles; a multiple of 4 is needed",
         config.what(), stack.head_dim);
  stack.causal = false;
  stack.activation = activation_field(config, "gelu");
  const io::Fields rope = section(config, "rope_parameters");
  const double theta = rope.number("rope_theta", config.number("rope_theta", 10000));
  if (!(theta > 0)) fail("{}: rope_theta {} is not positive", config.what(), theta);
  stack.rope = patch_rope(theta, stack.head_dim);
  const int64_t inner = config.dimension("intermediate_size", 4096, 1 << 24);
  const int64_t depth = config.dimension("num_hidden_layers", 24, kMaxBlocks);
  for (int64_t i = 0; i < depth; ++i) stack.blocks.push_back(vision_block(i, stack.hidden, inner));
  vision.blocks_used = blocks_used(top, depth);
  vision.embedding_norm = {"vision_tower.ln_pre", Norm::Kind::rms, stack.hidden, kVisionEps};

  const bool bias = top.boolean("multimodal_projector_bias", true);
  vision.connector = "multi_modal_projector";
  vision.connector_activation_name = "multi_modal_projector.act";
  vision.connector_activation = activation_field(top, "gelu", "projector_hidden_act");
  vision.connector_linears = {
      lone_linear("multi_modal_projector.linear_1", text_hidden, stack.hidden, bias, Role::projector),
      lone_linear("multi_modal_projector.linear_2", text_hidden, text_hidden, bias, Role::projector)};
  return vision;
}

constexpr DecoderDefaults kMistral = {.inner = 14336,
                                      .max_positions = 131072,
                                      .kv_heads = 8,
                                      .sliding_window = 4096,
                                      .reads_sliding_window = true};
constexpr DecoderDefaults kLlamaText = {.max_positions = 2048, .reads_biases = true};

Spec describe(const io::Fields& config) {
  const io::Fields text = section(config, "text_config");
  const std::string type = text.string("model_type", "llama");
  if (type != "mistral" && type != "llama")
    fail("{}: model_type \"{}\" of the text part is not known; nibble reads Llava with mistral or llama",
         text.what(), printable(type, 40));
  Spec spec;
  spec.family = "llava";
  spec.text = describe_decoder(text, config, type == "mistral" ? kMistral : kLlamaText,
                               "language_model.model.", "language_model.lm_head");
  spec.text.stack.rope = text_rope(text, spec.text.stack.head_dim, 10000);
  spec.vision = describe_vision(section(config, "vision_config"), config, spec.text.stack.hidden);
  spec.tokens.image = config.integer("image_token_index", config.integer("image_token_id", 32000));
  spec.tokens.end = text.has("eos_token_id")     ? end_tokens(text)
                    : config.has("eos_token_id") ? end_tokens(config)
                                                 : std::vector<int64_t>{2};
  return spec;
}

constexpr std::array kModuleTree = {Rename{"language_model.model.", "model.language_model."},
                                    Rename{"language_model.lm_head", "lm_head"},
                                    Rename{"vision_tower.", "model.vision_tower."},
                                    Rename{"multi_modal_projector.", "model.multi_modal_projector."}};

constexpr std::string_view kChat =
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST]{% for part in "
    "message.content %}{% if part.type == 'image' %}[IMG]{% else %}{{ part.text }}{% endif %}{% endfor "
    "%}[/INST]{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{{ eos_token }}{% endif "
    "%}{% "
    "endfor %}";

}  // namespace

const Family kLlava = {
    .model_type = "llava",
    .title = "Pixtral",
    .model_class = "LlavaForConditionalGeneration",
    .describe = describe,
    .config_for_both = parts_config_for_both,
    .module_tree = kModuleTree,
    .vllm = {},
    .vllm_fused = fused_module,
    .chat_template = kChat,
    .image = ImageFormat::pixtral,
};

}  // namespace nibble::model
