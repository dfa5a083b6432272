// What the families' readers of config.json share. All throw Error naming the file and the field.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "records/inventory.h"
#include "tensor/activation.h"

namespace nibble::model {

/// Largest number of blocks that a stack may have.
inline constexpr int64_t kMaxBlocks = 4096;

/// The activation of "hidden_act".
Activation activation_field(const io::Fields& config, std::string_view fallback);

/// eos_token_id: a number, a list of numbers, or nothing.
std::vector<int64_t> end_tokens(const io::Fields& config);

/// Fails unless `hidden` features divide into `heads` heads of an even size, and the heads among `kv_heads`.
void check_heads(const io::Fields& config, int64_t hidden, int64_t heads, int64_t kv_heads);

/// The name of the module into which vLLM fuses a linear of this role ("qkv_proj", "gate_up_proj"), "" for
/// none.
std::string_view fused_module(records::Role role);

}  // namespace nibble::model
