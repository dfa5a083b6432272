// Qwen2-VL (arXiv:2409.12191). Reference: transformers 4.57, models/qwen2_vl.
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/families/registry.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

constexpr float kVisionEps = 1e-6f;

Block vision_block(int64_t i, int64_t dim, int64_t inner) {
  const std::string name = fmt::format("visual.blocks.{}", i);
  const std::string attn = name + ".attn", mlp = name + ".mlp";
  Block out;
  out.name = name;
  out.attention_name = attn;
  out.mlp_name = mlp;
  out.activation_name = mlp + ".act";
  out.attention_norm = {name + ".norm1", Norm::Kind::layer, dim, kVisionEps};
  out.mlp_norm = {name + ".norm2", Norm::Kind::layer, dim, kVisionEps};
  out.qkv = {lone_linear(attn + ".qkv", 3 * dim, dim, true, Role::qkv)};
  out.qkv[0].slices = {{Role::q, 0, dim}, {Role::k, dim, dim}, {Role::v, 2 * dim, dim}};
  out.attention_out = lone_linear(attn + ".proj", dim, dim, true, Role::attention_out);
  out.mlp_in = {lone_linear(mlp + ".fc1", inner, dim, true, Role::fc1)};
  out.mlp_out = lone_linear(mlp + ".fc2", dim, inner, true, Role::fc2);
  return out;
}

/// Half of the angles follow the row of a patch, half its column, with the same frequencies.
Rope patch_rope(int64_t head_dim) {
  Rope rope;
  const std::vector<float> once = inverse_frequencies(10000, head_dim / 2);
  for (uint8_t axis : {0, 1})
    for (float f : once) {
      rope.frequency.push_back(f);
      rope.axis.push_back(axis);
    }
  return rope;
}

Vision describe_vision(const io::Fields& config, int64_t text_hidden) {
  Vision vision;
  vision.name = "visual";
  vision.patch_embed = "visual.patch_embed";
  vision.patch_linear = "visual.patch_embed.proj";
  vision.channels = config.dimension("in_channels", config.integer("in_chans", 3), 64);
  vision.temporal_patch = config.dimension("temporal_patch_size", 2, 64);
  vision.patch = config.dimension("patch_size", 14, 1024);
  vision.merge = config.dimension("spatial_merge_size", 2, 64);

  Stack& stack = vision.stack;
  stack.part = Part::vision;
  stack.hidden = config.dimension("embed_dim", 1280, 1 << 20);
  stack.heads = config.dimension("num_heads", 16, 1 << 16);
  stack.kv_heads = stack.heads;
  stack.head_dim = head_size(config, stack.hidden, stack.heads);
  if (stack.head_dim % 4 != 0)
    fail("{}: heads of {} features cannot carry row and column angles; a multiple of 4 is needed",
         config.what(), stack.head_dim);
  stack.causal = false;
  stack.gated = false;
  stack.activation = activation_field(config, "quick_gelu");
  stack.rope = patch_rope(stack.head_dim);
  const double inner = static_cast<double>(stack.hidden) * config.number("mlp_ratio", 4);
  if (!(inner >= 1 && inner <= 1 << 24)) fail("{}: mlp_ratio gives {} features", config.what(), inner);
  const int64_t depth = config.dimension("depth", 32, kMaxBlocks);
  for (int64_t i = 0; i < depth; ++i)
    stack.blocks.push_back(vision_block(i, stack.hidden, static_cast<int64_t>(inner)));

  const int64_t merged = stack.hidden * vision.merge * vision.merge;
  if (const int64_t out = config.dimension("hidden_size", 3584, 1 << 20); out != text_hidden)
    fail("{}: hidden_size {} of the vision part is not the language model's {}", config.what(), out,
         text_hidden);
  vision.blocks_used = depth;
  vision.spread_positions = true;
  vision.connector = "visual.merger";
  vision.connector_mlp = "visual.merger.mlp";
  vision.connector_activation_name = "visual.merger.mlp.1";
  vision.connector_norm = {"visual.merger.ln_q", Norm::Kind::layer, stack.hidden, kVisionEps};
  vision.connector_linears = {lone_linear("visual.merger.mlp.0", merged, merged, true, Role::projector),
                              lone_linear("visual.merger.mlp.2", text_hidden, merged, true, Role::projector)};
  return vision;
}

/// M-RoPE: the angles follow the time, height and width of a row in sections; rope_scaling (published) or
/// rope_parameters (transformers 5).
Rope describe_rope(const io::Fields& config, int64_t head_dim) {
  const std::string_view key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) fail("{}: neither rope_scaling nor rope_parameters is there", config.what());
  const io::Fields fields = config.object(key);
  const double theta = fields.number("rope_theta", config.number("rope_theta", 1000000.0));
  if (!(theta > 0)) fail("{}: rope_theta {} is not positive", config.what(), theta);
  const std::string type = fields.string("rope_type", fields.string("type", "default"));
  if (type != "default" && type != "mrope")
    fail("{}: rope type \"{}\" is not known for this family; \"default\" and \"mrope\" are", fields.what(),
         printable(type, 40));
  Rope rope;
  rope.frequency = inverse_frequencies(theta, head_dim);
  const io::Json& sections = fields.array("mrope_section");
  if (sections.size() != 3) fail("{}: mrope_section must be three numbers", fields.what());
  uint8_t axis = 0;
  for (const io::Json& n : sections) {
    if (!n.is_number_integer() || n.get<int64_t>() < 0 || n.get<int64_t>() > head_dim)
      fail("{}: mrope_section holds {}, not a number of frequencies", fields.what(), io::value_text(n));
    rope.axis.insert(rope.axis.end(), static_cast<size_t>(n.get<int64_t>()), axis++);
  }
  if (rope.axis.size() != rope.frequency.size())
    fail("{}: mrope_section must be three numbers that sum to {} (half of the head size)", fields.what(),
         head_dim / 2);
  return rope;
}

constexpr DecoderDefaults kText = {.hidden = 8192,
                                   .layers = 80,
                                   .heads = 64,
                                   .inner = 29568,
                                   .vocabulary = 152064,
                                   .max_positions = 32768,
                                   .kv_heads = 8,
                                   .eps = 1e-5f,
                                   .reads_head_dim = false,
                                   .qkv_bias = true};

Text describe_text(const io::Fields& config, const io::Fields& top) {
  if (config.boolean("use_sliding_window", false))
    fail("{}: use_sliding_window is true; nibble computes full attention only", config.what());
  Text text = describe_decoder(config, top, kText, "model.", "lm_head");
  text.stack.rope = describe_rope(config, text.stack.head_dim);
  return text;
}

Spec describe(const io::Fields& config) {
  const io::Fields text_config = config.has("text_config") ? config.object("text_config") : config;
  Spec spec;
  spec.family = "qwen2_vl";
  spec.text = describe_text(text_config, config);
  spec.vision = describe_vision(config.object("vision_config"), spec.text.stack.hidden);
  spec.tokens.image = config.integer("image_token_id", 151655);
  spec.tokens.end = end_tokens(text_config.has("eos_token_id") ? text_config : config);
  return spec;
}

/// The text keys stand flat (read by 4.x) and under text_config (read by 5.x); rope in both spellings.
io::Json config_for_both(const io::Json& config) {
  io::Json out = config;
  if (config.contains("text_config") && config.at("text_config").is_object()) {
    io::Json text = config.at("text_config");
    // One answer in both places: readers differ in which of them they ask.
    if (!text.contains("tie_word_embeddings") && config.contains("tie_word_embeddings"))
      text["tie_word_embeddings"] = config.at("tie_word_embeddings");
    if (text.contains("tie_word_embeddings"))
      out["tie_word_embeddings"] = io::Json(text.at("tie_word_embeddings"));
    if (text.contains("rope_parameters") && text.at("rope_parameters").is_object()) {
      const io::Json rope = text.at("rope_parameters");
      if (rope.contains("rope_theta")) text["rope_theta"] = rope.at("rope_theta");
      io::Json scaling = {{"type", "mrope"}};
      if (rope.contains("mrope_section")) scaling["mrope_section"] = rope.at("mrope_section");
      text["rope_scaling"] = scaling;
    }
    // Flat keys for readers that know no text_config; what the top level says itself stays.
    for (const auto& [key, value] : text.items())
      if (key != "model_type" && key != "dtype" && key != "rope_parameters" && !out.contains(key))
        out[key] = value;
    out["text_config"] = text;
  }
  publish_dtype(out);
  return out;
}

constexpr std::array kModuleTree = {Rename{"visual.", "model.visual."},
                                    Rename{"model.", "model.language_model."}};
constexpr std::array kVllm = {Rename{"visual.", "visual."}, Rename{"model.", "language_model.model."},
                              Rename{"lm_head", "language_model.lm_head"}};

constexpr std::string_view kChat =
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nYou "
    "are a "
    "helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{% for part in message.content "
    "%}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% "
    "endif "
    "%}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace

const Family kQwen2Vl = {
    .model_type = "qwen2_vl",
    .title = "Qwen2-VL",
    .model_class = "Qwen2VLForConditionalGeneration",
    .describe = describe,
    .config_for_both = config_for_both,
    .module_tree = kModuleTree,
    .vllm = kVllm,
    .vllm_fused = fused_module,
    .chat_template = kChat,
    .image = ImageFormat::qwen2_vl,
};

}  // namespace nibble::model
