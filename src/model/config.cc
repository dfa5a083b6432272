#include "model/config.h"

#include <limits>

#include "base/error.h"

namespace nibble::model {

Activation activation_field(const io::Fields& config, std::string_view fallback) {
  const std::string name = config.string("hidden_act", fallback);
  const auto found = parse_activation(name);
  if (!found)
    fail(
        "{}: hidden_act \"{}\" is not known; nibble knows silu, gelu, gelu_pytorch_tanh, quick_gelu and relu",
        config.what(), name);
  return *found;
}

std::vector<int64_t> end_tokens(const io::Fields& config) {
  if (!config.has("eos_token_id")) return {};
  const io::Json& field = config.json().at("eos_token_id");
  if (!field.is_array()) return {config.integer("eos_token_id")};
  std::vector<int64_t> out;
  for (const io::Json& id : field) {
    if (!id.is_number_integer()) fail("{}: eos_token_id holds {}, not a token id", config.what(), id.dump());
    out.push_back(id.get<int64_t>());
  }
  return out;
}

void check_heads(const io::Fields& config, int64_t hidden, int64_t heads, int64_t kv_heads) {
  if (hidden % heads != 0 || (hidden / heads) % 2 != 0)
    fail("{}: {} features do not divide into {} heads of an even size", config.what(), hidden, heads);
  if (heads % kv_heads != 0)
    fail("{}: {} attention heads do not divide among {} key-value heads", config.what(), heads, kv_heads);
}

std::string_view fused_module(records::Role role) {
  using records::Role;
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

}  // namespace nibble::model
