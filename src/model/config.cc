#include "model/config.h"

#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "model/rope.h"

namespace nibble::model {

DType config_dtype(const io::Fields& config) {
  const std::string name = config.string("torch_dtype", config.string("dtype", "bfloat16"));
  if (name == "float16") return DType::f16;
  return name == "float32" ? DType::f32 : DType::bf16;
}

Activation activation_field(const io::Fields& config, std::string_view fallback, std::string_view key) {
  const std::string name = config.string(key, fallback);
  const auto found = parse_activation(name);
  if (!found)
    fail("{}: {} \"{}\" is not known; nibble knows silu, gelu, gelu_pytorch_tanh, quick_gelu and relu",
         config.what(), key, printable(name, 40));
  return *found;
}

std::vector<int64_t> end_tokens(const io::Fields& config) {
  if (!config.has("eos_token_id")) return {};
  const io::Json& field = config.json().at("eos_token_id");
  if (!field.is_array()) return {config.integer("eos_token_id")};
  std::vector<int64_t> out;
  for (const io::Json& id : field) {
    if (!id.is_number_integer())
      fail("{}: eos_token_id holds {}, not a token id", config.what(), io::value_text(id));
    out.push_back(id.get<int64_t>());
  }
  return out;
}

int64_t head_size(const io::Fields& config, int64_t hidden, int64_t heads) {
  if (hidden % heads != 0 || (hidden / heads) % 2 != 0)
    fail("{}: {} features do not divide into {} heads of an even size", config.what(), hidden, heads);
  return hidden / heads;
}

io::Fields section(const io::Fields& config, std::string_view key) {
  static const io::Json empty = io::Json::object();
  return config.has(key) ? config.object(key) : io::Fields(empty, fmt::format("{}: {}", config.what(), key));
}

std::vector<Linear> qkv_linears(const std::string& module, int64_t dim, int64_t q, int64_t kv, bool bias) {
  const std::string fused = module + ".qkv_proj";
  return {{module + ".q_proj", q, dim, bias, Role::q, fused, fused, {}, true},
          {module + ".k_proj", kv, dim, bias, Role::k, fused, fused, {}, true},
          {module + ".v_proj", kv, dim, bias, Role::v, fused, fused, {}, true}};
}

std::vector<Linear> gate_up_linears(const std::string& module, int64_t dim, int64_t inner, bool bias) {
  const std::string fused = module + ".gate_up_proj";
  return {{module + ".gate_proj", inner, dim, bias, Role::gate, fused, fused, {}, true},
          {module + ".up_proj", inner, dim, bias, Role::up, fused, fused, {}, true}};
}

Linear lone_linear(const std::string& name, int64_t out, int64_t in, bool bias, Role role) {
  return {name, out, in, bias, role, name, name, {}, true};
}

std::string_view fused_module(Role role) {
  switch (role) {
    case Role::q:
    case Role::k:
    case Role::v:
      return "qkv_proj";
    case Role::gate:
    case Role::up:
      return "gate_up_proj";
    default:
      return "";
  }
}

io::Json text_config_for_both(const io::Json& config) {
  io::Json out = config;
  publish_rope(out, nullptr);
  publish_dtype(out);
  return out;
}

io::Json parts_config_for_both(const io::Json& config) {
  io::Json out = config;
  if (out.contains("text_config") && out.at("text_config").is_object())
    publish_rope(out["text_config"], {{"rope_type", "default"}});
  if (out.contains("vision_config") && out.at("vision_config").is_object()) {
    io::Json& vision = out["vision_config"];
    const io::Fields rope = section(io::Fields(vision, "vision_config"), "rope_parameters");
    if (rope.has("rope_theta") && !vision.contains("rope_theta"))
      vision["rope_theta"] = rope.number("rope_theta");
  }
  publish_dtype(out);
  return out;
}

void publish_dtype(io::Json& config) {
  if (config.contains("dtype") && !config.contains("torch_dtype"))
    config["torch_dtype"] = io::Json(config.at("dtype"));
  for (const char* key : {"text_config", "vision_config"})
    if (config.contains(key) && config.at(key).is_object()) publish_dtype(config[key]);
}

}  // namespace nibble::model
