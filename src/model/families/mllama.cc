// Llama 3.2 Vision: a tower over tiles, and gated cross-attention blocks among those of the text. Reference:
// transformers 4.57, models/mllama.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/families/registry.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

// Of the norms around the encoders; norm_eps is that of the norms inside.
constexpr float kOuterEps = 1e-5f;
// Rows of the embedding behind the vocabulary: the image token and others that are never said.
constexpr int64_t kExtraEmbeddings = 8;

Block vision_block(const std::string& name, int64_t dim, int64_t inner, float eps, bool gated) {
  const std::string attn = name + ".self_attn", mlp = name + ".mlp";
  Block out;
  out.name = name;
  out.attention_name = attn;
  out.mlp_name = mlp;
  out.activation_name = mlp + ".activation_fn";
  out.attention_norm = {name + ".input_layernorm", Norm::Kind::layer, dim, eps};
  out.mlp_norm = {name + ".post_attention_layernorm", Norm::Kind::layer, dim, eps};
  out.qkv = qkv_linears(attn, dim, dim, dim, false);
  out.attention_out = lone_linear(attn + ".o_proj", dim, dim, false, Role::attention_out);
  out.mlp_in = {lone_linear(mlp + ".fc1", inner, dim, true, Role::fc1)};
  out.mlp_out = lone_linear(mlp + ".fc2", dim, inner, true, Role::fc2);
  if (gated) {
    out.attention_gate = name + ".gate_attn";
    out.mlp_gate = name + ".gate_ffn";
  }
  return out;
}

/// A list of block numbers below `limit`.
std::vector<int64_t> block_list(const io::Fields& config, std::string_view key, std::vector<int64_t> fallback,
                                int64_t limit) {
  if (!config.has(key)) {
    if (fallback.back() >= limit)
      fail("{}: {} is missing, and its default names layer {} of only {}", config.what(), key,
           fallback.back(), limit);
    return fallback;
  }
  std::vector<int64_t> out;
  for (const io::Json& n : config.array(key)) {
    if (!n.is_number_integer() || n.get<int64_t>() < 0 || n.get<int64_t>() >= limit)
      fail("{}: {} holds {}, not the number of one of {} layers", config.what(), key, io::value_text(n),
           limit);
    out.push_back(n.get<int64_t>());
  }
  return out;
}

Tiles describe_tiles(const io::Fields& config, int64_t patch) {
  Tiles tiles;
  tiles.count = config.dimension("max_num_tiles", 4, 256);
  tiles.side = config.dimension("image_size", 448, 1 << 20) / patch;
  constexpr int64_t kLargestSide = 4096;
  if (tiles.side > kLargestSide)
    fail("{}: image_size gives {} patches along a side; nibble takes {}", config.what(), tiles.side,
         kLargestSide);
  if (tiles.side == 0) fail("{}: image_size is below patch_size {}", config.what(), patch);
  constexpr int64_t kRatiosOfFour = 8;
  tiles.aspect_ratios = 1 + (config.has("supported_aspect_ratios")
                                 ? static_cast<int64_t>(config.array("supported_aspect_ratios").size())
                                 : kRatiosOfFour);
  tiles.class_embedding = "vision_model.class_embedding";
  tiles.before = "vision_model.pre_tile_positional_embedding";
  tiles.position = "vision_model.gated_positional_embedding";
  return tiles;
}

Vision describe_vision(const io::Fields& config, int64_t text_hidden) {
  Vision vision;
  vision.name = "vision_model";
  vision.patch_linear = "vision_model.patch_embedding";
  vision.channels = config.dimension("num_channels", 3, 64);
  vision.patch = config.dimension("patch_size", 14, 1024);
  Stack& stack = vision.stack;
  stack.part = Part::vision;
  stack.hidden = config.dimension("hidden_size", 1280, 1 << 20);
  stack.heads = config.dimension("attention_heads", config.integer("num_attention_heads", 16), 1 << 16);
  stack.kv_heads = stack.heads;
  stack.head_dim = head_size(config, stack.hidden, stack.heads);
  stack.causal = false;
  stack.gated = false;
  stack.activation = activation_field(config, "gelu");
  const auto eps = static_cast<float>(config.number("norm_eps", 1e-5));
  const int64_t inner = config.dimension("intermediate_size", 5120, 1 << 24);
  const int64_t local = config.dimension("num_hidden_layers", 32, kMaxBlocks);
  const int64_t global = config.dimension("num_global_layers", 8, kMaxBlocks);
  vision.tiles = describe_tiles(config, vision.patch);
  stack.kept = block_list(config, "intermediate_layers_indices", {3, 7, 15, 23, 30}, local);
  for (int64_t i = 0; i < local; ++i)
    stack.blocks.push_back(
        vision_block(fmt::format("vision_model.transformer.layers.{}", i), stack.hidden, inner, eps, false));
  for (int64_t i = 0; i < global; ++i)
    stack.blocks.push_back(vision_block(fmt::format("vision_model.global_transformer.layers.{}", i),
                                        stack.hidden, inner, eps, true));
  Entry& entry = stack.blocks[static_cast<size_t>(local)].entry.emplace();
  entry.norm = {"vision_model.layernorm_post", Norm::Kind::layer, stack.hidden, kOuterEps};
  entry.tile_embedding = "vision_model.post_tile_positional_embedding";
  vision.blocks_used = local + global;
  vision.embedding_norm = {"vision_model.layernorm_pre", Norm::Kind::layer, stack.hidden, kOuterEps};

  const int64_t joined = stack.hidden * (1 + static_cast<int64_t>(stack.kept.size()));
  if (const int64_t out = config.dimension("vision_output_dim", 7680, 1 << 24); out != joined)
    fail("{}: vision_output_dim is {}, but the last layer and {} kept ones have {} features", config.what(),
         out, stack.kept.size(), joined);
  vision.across = true;
  vision.connector_linears = {
      lone_linear("multi_modal_projector", text_hidden, joined, true, Role::projector)};
  // Its input has pictures, tiles and rows as dimensions: bitsandbytes' 8-bit module fails on it.
  vision.connector_linears[0].fits8 = false;
  return vision;
}

/// Makes a block of the text part one that looks at the pictures.
void make_cross(Block& block, const Stack& stack, float eps) {
  const std::string attn = block.name + ".cross_attn";
  block.cross = true;
  block.attention_name = attn;
  block.qkv =
      qkv_linears(attn, stack.hidden, stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim, false);
  // One group, since serving engines fuse the three; two taps, since keys and values read the pictures.
  block.qkv[0].tap = attn + ".q_proj";
  block.qkv[1].tap = block.qkv[2].tap = attn + ".kv_proj";
  block.q_norm = {attn + ".q_norm", Norm::Kind::rms, stack.head_dim, eps};
  block.k_norm = {attn + ".k_norm", Norm::Kind::rms, stack.head_dim, eps};
  block.attention_out =
      lone_linear(attn + ".o_proj", stack.hidden, stack.heads * stack.head_dim, false, Role::attention_out);
  block.attention_gate = block.name + ".cross_attn_attn_gate";
  block.mlp_gate = block.name + ".cross_attn_mlp_gate";
}

constexpr DecoderDefaults kText = {.layers = 40,
                                   .inner = 14336,
                                   .vocabulary = 128256,
                                   .max_positions = 131072,
                                   .kv_heads = 8,
                                   .eps = 1e-5f,
                                   .reads_head_dim = false};

Spec describe(const io::Fields& config) {
  const io::Fields text = section(config, "text_config");
  Spec spec;
  spec.family = "mllama";
  spec.text = describe_decoder(text, config, kText, "language_model.model.", "language_model.lm_head");
  Stack& stack = spec.text.stack;
  stack.rope = text_rope(text, stack.head_dim, 500000);
  if (spec.text.tied)
    fail("{}: tie_word_embeddings is true, but this family's embedding is longer than its head", text.what());
  spec.text.embedding_rows = spec.text.vocabulary + kExtraEmbeddings;
  const auto depth = static_cast<int64_t>(stack.blocks.size());
  for (int64_t i : block_list(text, "cross_attention_layers", {3, 8, 13, 18, 23, 28, 33, 38}, depth))
    make_cross(stack.blocks[static_cast<size_t>(i)], stack, spec.text.norm.eps);
  spec.vision = describe_vision(section(config, "vision_config"), stack.hidden);
  spec.tokens.image = config.integer("image_token_index", config.integer("image_token_id", 128256));
  spec.tokens.end = text.has("eos_token_id") ? end_tokens(text) : std::vector<int64_t>{128001};
  return spec;
}

constexpr std::array kModuleTree = {Rename{"language_model.model.", "model.language_model."},
                                    Rename{"language_model.lm_head", "lm_head"},
                                    Rename{"vision_model.", "model.vision_model."},
                                    Rename{"multi_modal_projector", "model.multi_modal_projector"}};

constexpr std::string_view kChat =
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role "
    "}}<|end_header_id|>\n\n{% for "
    "part in message.content %}{% if part.type == 'image' %}<|image|>{% else %}{{ part.text | trim }}{% "
    "endif "
    "%}{% endfor %}<|eot_id|>{% endfor %}{% if add_generation_prompt "
    "%}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

}  // namespace

const Family kMllama = {
    .model_type = "mllama",
    .title = "Llama 3.2 Vision",
    .model_class = "MllamaForConditionalGeneration",
    .describe = describe,
    .config_for_both = parts_config_for_both,
    .module_tree = kModuleTree,
    .vllm = {},
    .vllm_fused = fused_module,
    .chat_template = kChat,
    .image = ImageFormat::mllama,
};

}  // namespace nibble::model
