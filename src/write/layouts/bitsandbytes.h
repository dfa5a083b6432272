// The layout of bitsandbytes' 4-bit and 8-bit checkpoints, as transformers writes it.
#pragma once

#include <string>
#include <vector>

#include "io/json.h"
#include "io/safetensors_header.h"
#include "quant/format.h"

namespace nibble::write::bitsandbytes {

/// "quantization_config" of config.json, keys sorted: of NF4 linears, and of LLM.int8 ones.
io::Json config_section(const std::vector<std::string>& skip_modules);
io::Json config_section8(const std::vector<std::string>& skip_modules);

/// The tensors of one NF4 linear with double quantization; they must stay in one shard. `stored` is the
/// linear's name in the files, `state_bytes` the length of its quant_state, which is the last tensor.
std::vector<io::TensorPlan> tensors4(const std::string& stored, const Shape& shape, int64_t state_bytes);

/// The length of a quant_state as a first guess, and the most by which it can be wrong: it holds one number
/// whose digits only the weight tells.
int64_t likely_state_bytes(const Shape& shape, DType dtype);
inline constexpr int64_t kStateSlack = 32;

/// The tensors of one LLM.int8 linear (out, in).
std::vector<io::TensorPlan> tensors8(const std::string& stored, const Shape& shape);

}  // namespace nibble::write::bitsandbytes
