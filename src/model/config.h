// What the families' readers of config.json share. All throw Error naming the file and the field.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "model/spec.h"

namespace nibble::model {

/// Largest number of blocks that a stack may have.
inline constexpr int64_t kMaxBlocks = 4096;

/// The dtype that a config.json names, bf16 where it names none that models are stored in.
DType config_dtype(const io::Fields& config);

/// The activation that `key` names.
Activation activation_field(const io::Fields& config, std::string_view fallback,
                            std::string_view key = "hidden_act");

/// eos_token_id: a number, a list of numbers, or nothing.
std::vector<int64_t> end_tokens(const io::Fields& config);

/// Fails unless the features of `heads` heads are `hidden` and even in number for each.
int64_t head_size(const io::Fields& config, int64_t hidden, int64_t heads);

/// A section of config.json, or an empty one (all class defaults) where it is missing.
io::Fields section(const io::Fields& config, std::string_view key);

/// The q, k and v linears that read one input, fused where serving engines fuse them: module.q_proj, .k_proj,
/// .v_proj of (q, kv, kv) rows.
std::vector<Linear> qkv_linears(const std::string& module, int64_t dim, int64_t q, int64_t kv, bool bias);
/// module.gate_proj and module.up_proj.
std::vector<Linear> gate_up_linears(const std::string& module, int64_t dim, int64_t inner, bool bias);
/// A linear that is decided alone and reads a tap of its own.
Linear lone_linear(const std::string& name, int64_t out, int64_t in, bool bias, Role role);

/// The name of the module into which vLLM fuses a linear of this role ("qkv_proj", "gate_up_proj"), "" for
/// none.
std::string_view fused_module(Role role);

/// A config.json of a text model, with the keys of both styles; and of one with text_config and
/// vision_config.
io::Json text_config_for_both(const io::Json& config);
io::Json parts_config_for_both(const io::Json& config);

/// torch_dtype (published) beside dtype (transformers 5), in a config and its sections.
void publish_dtype(io::Json& config);

}  // namespace nibble::model
