// Qwen2-VL (arXiv:2409.12191). Reference: transformers 4.57, models/qwen2_vl.
#include <array>

#include "base/error.h"
#include "model/config.h"
#include "model/families/registry.h"

namespace nibble::model {
namespace {

constexpr float kVisionEps = 1e-6f;

Block vision_block(int64_t i, int64_t dim, int64_t inner) {
  const std::string name = fmt::format("visual.blocks.{}", i);
  const std::string attn = name + ".attn", mlp = name + ".mlp";
  return {
      .name = name,
      .attention_name = attn,
      .mlp_name = mlp,
      .activation_name = mlp + ".act",
      .attention_norm = {name + ".norm1", Norm::Kind::layer, dim, kVisionEps},
      .mlp_norm = {name + ".norm2", Norm::Kind::layer, dim, kVisionEps},
      .qkv = {{attn + ".qkv", 3 * dim, dim, true, Role::qkv, attn + ".qkv", attn + ".qkv"}},
      .attention_out = {attn + ".proj", dim, dim, true, Role::attention_out, attn + ".proj", attn + ".proj"},
      .mlp_in = {{mlp + ".fc1", inner, dim, true, Role::fc1, mlp + ".fc1", mlp + ".fc1"}},
      .mlp_out = {mlp + ".fc2", dim, inner, true, Role::fc2, mlp + ".fc2", mlp + ".fc2"},
  };
}

Block text_block(int64_t i, int64_t dim, int64_t kv_dim, int64_t inner, float eps) {
  const std::string name = fmt::format("model.layers.{}", i);
  const std::string attn = name + ".self_attn", mlp = name + ".mlp";
  const std::string qkv = attn + ".qkv_proj", gate_up = mlp + ".gate_up_proj";
  return {
      .name = name,
      .attention_name = attn,
      .mlp_name = mlp,
      .activation_name = mlp + ".act_fn",
      .attention_norm = {name + ".input_layernorm", Norm::Kind::rms, dim, eps},
      .mlp_norm = {name + ".post_attention_layernorm", Norm::Kind::rms, dim, eps},
      .qkv = {{attn + ".q_proj", dim, dim, true, Role::q, qkv, qkv},
              {attn + ".k_proj", kv_dim, dim, true, Role::k, qkv, qkv},
              {attn + ".v_proj", kv_dim, dim, true, Role::v, qkv, qkv}},
      .attention_out = {attn + ".o_proj", dim, dim, false, Role::attention_out, attn + ".o_proj",
                        attn + ".o_proj"},
      .mlp_in = {{mlp + ".gate_proj", inner, dim, false, Role::gate, gate_up, gate_up},
                 {mlp + ".up_proj", inner, dim, false, Role::up, gate_up, gate_up}},
      .mlp_out = {mlp + ".down_proj", dim, inner, false, Role::down, mlp + ".down_proj", mlp + ".down_proj"},
  };
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
  check_heads(config, stack.hidden, stack.heads, stack.heads);
  stack.kv_heads = stack.heads;
  stack.head_dim = stack.hidden / stack.heads;
  if (stack.head_dim % 4 != 0)
    fail("{}: heads of {} features cannot carry row and column angles; a multiple of 4 is needed",
         config.what(), stack.head_dim);
  stack.causal = false;
  stack.gated = false;
  stack.activation = activation_field(config, "quick_gelu");
  stack.rope = {.kind = Rope::Kind::axial, .theta = 10000, .sections = {}};
  const double inner = static_cast<double>(stack.hidden) * config.number("mlp_ratio", 4);
  if (!(inner >= 1 && inner <= 1 << 24)) fail("{}: mlp_ratio gives {} features", config.what(), inner);
  const int64_t depth = config.dimension("depth", 32, kMaxBlocks);
  for (int64_t i = 0; i < depth; ++i)
    stack.blocks.push_back(vision_block(i, stack.hidden, static_cast<int64_t>(inner)));

  const int64_t merged = stack.hidden * vision.merge * vision.merge;
  if (const int64_t out = config.dimension("hidden_size", 3584, 1 << 20); out != text_hidden)
    fail("{}: hidden_size {} of the vision part is not the language model's {}", config.what(), out,
         text_hidden);
  vision.merger = "visual.merger";
  vision.merger_mlp = "visual.merger.mlp";
  vision.merger_activation_name = "visual.merger.mlp.1";
  vision.merger_norm = {"visual.merger.ln_q", Norm::Kind::layer, stack.hidden, kVisionEps};
  vision.merger_in = {"visual.merger.mlp.0", merged, merged, true, Role::projector, "visual.merger.mlp.0",
                      "visual.merger.mlp.0"};
  vision.merger_out = {"visual.merger.mlp.2", text_hidden,          merged, true, Role::projector,
                       "visual.merger.mlp.2", "visual.merger.mlp.2"};
  return vision;
}

/// rope_scaling (published) or rope_parameters (transformers 5) of the text part.
Rope describe_rope(const io::Fields& config, int64_t head_dim) {
  Rope rope{.kind = Rope::Kind::sections, .theta = config.number("rope_theta", 1000000.0), .sections = {}};
  const std::string_view key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) fail("{}: neither rope_scaling nor rope_parameters is there", config.what());
  const io::Fields fields = config.object(key);
  rope.theta = fields.number("rope_theta", rope.theta);
  const std::string type = fields.string("rope_type", fields.string("type", "default"));
  if (type != "default" && type != "mrope")
    fail("{}: rope type \"{}\" is not known for this family; \"default\" and \"mrope\" are", fields.what(),
         type);
  int64_t sum = 0;
  for (const io::Json& n : fields.array("mrope_section")) {
    if (!n.is_number_integer() || n.get<int64_t>() < 0 || n.get<int64_t>() > head_dim)
      fail("{}: mrope_section holds {}, not a number of frequencies", fields.what(), n.dump());
    rope.sections.push_back(n.get<int64_t>());
    sum += rope.sections.back();
  }
  if (rope.sections.size() != 3 || sum * 2 != head_dim)
    fail("{}: mrope_section must be three numbers that sum to {} (half of the head size)", fields.what(),
         head_dim / 2);
  if (!(rope.theta > 0)) fail("{}: rope_theta {} is not positive", config.what(), rope.theta);
  return rope;
}

Text describe_text(const io::Fields& config, const io::Fields& top) {
  Text text;
  Stack& stack = text.stack;
  stack.part = Part::text;
  stack.hidden = config.dimension("hidden_size", 8192, 1 << 20);
  stack.heads = config.dimension("num_attention_heads", 64, 1 << 16);
  // A missing key has the class default; null means one for each head.
  const bool null_kv = config.json().contains("num_key_value_heads") && !config.has("num_key_value_heads");
  stack.kv_heads = config.dimension("num_key_value_heads", null_kv ? stack.heads : 8, 1 << 16);
  check_heads(config, stack.hidden, stack.heads, stack.kv_heads);
  stack.head_dim = stack.hidden / stack.heads;
  stack.activation = activation_field(config, "silu");
  stack.rope = describe_rope(config, stack.head_dim);
  if (config.boolean("use_sliding_window", false))
    fail("{}: use_sliding_window is true; nibble computes full attention only", config.what());
  const auto eps = static_cast<float>(config.number("rms_norm_eps", 1e-5));
  const int64_t inner = config.dimension("intermediate_size", 29568, 1 << 24);
  const int64_t depth = config.dimension("num_hidden_layers", 80, kMaxBlocks);
  for (int64_t i = 0; i < depth; ++i)
    stack.blocks.push_back(text_block(i, stack.hidden, stack.kv_heads * stack.head_dim, inner, eps));
  text.name = "model";
  text.max_positions = config.dimension("max_position_embeddings", 32768, int64_t{1} << 40);
  text.embedding = "model.embed_tokens";
  text.vocabulary = config.dimension("vocab_size", 152064, 1 << 28);
  text.norm = {"model.norm", Norm::Kind::rms, stack.hidden, eps};
  text.head = "lm_head";
  text.tied = config.boolean("tie_word_embeddings", top.boolean("tie_word_embeddings", false));
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
  if (config.contains("dtype") && !config.contains("torch_dtype")) out["torch_dtype"] = config.at("dtype");
  return out;
}

constexpr std::array kModuleTree = {Rename{"visual.", "model.visual."},
                                    Rename{"model.", "model.language_model."}};
constexpr std::array kVllm = {Rename{"visual.", "visual."}, Rename{"model.", "language_model.model."},
                              Rename{"lm_head", "language_model.lm_head"}};

}  // namespace

const Family kQwen2Vl = {
    .model_type = "qwen2_vl",
    .title = "Qwen2-VL",
    .describe = describe,
    .config_for_both = config_for_both,
    .module_tree = kModuleTree,
    .vllm = kVllm,
    .vllm_fused = fused_module,
    .chat = ChatFormat::chatml,
    .image = ImageFormat::qwen2_vl,
};

}  // namespace nibble::model
