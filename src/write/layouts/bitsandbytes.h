// The layout of bitsandbytes' 4-bit and 8-bit checkpoints, as transformers writes it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"
#include "quant/format.h"

namespace nibble::write::bitsandbytes {

/// "quantization_config" of config.json, keys sorted: of NF4 linears, and of LLM.int8 ones.
io::Json config_section(const std::vector<std::string>& skip_modules);
io::Json config_section8(const std::vector<std::string>& skip_modules);

/// The tensors of one 4-bit linear; they must stay in one shard. `make` gives the linear, the same each time;
/// it is called twice where it is large: once for the length of its quant_state, once when its bytes are due.
/// `stored` is the linear's name in the files.
std::vector<io::PlannedTensor> tensors(const std::string& stored, const std::function<quant::Packed4()>& make);

/// The tensors of one LLM.int8 linear, whose 16-bit weight must live until they are written. Throws Error naming `where` (file and tensor) for a weight beyond fp16,
/// which the format cannot hold.
std::vector<io::PlannedTensor> tensors8(const std::string& stored, const TensorView& weight,
                                        const std::string& where);

}  // namespace nibble::write::bitsandbytes
