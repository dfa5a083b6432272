// A complete Qwen2-VL checkpoint of a few hundred weights, written with whatever is to be wrong in it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "io/temp_folder.h"
#include "model/family.h"

namespace nibble::model {

/// config.json in the published style: one block of each kind, all sizes as small as they can be.
inline io::Json micro_config() {
  return io::parse_json(R"({
    "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, "vocab_size": 32, "image_token_id": 30,
    "vision_start_token_id": 29, "eos_token_id": 28, "torch_dtype": "bfloat16",
    "vision_config": {"depth": 1, "embed_dim": 8, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3, "hidden_size": 16,
      "patch_size": 2, "spatial_merge_size": 2, "temporal_patch_size": 1}})",
                        "micro");
}

inline Spec describe(const io::Json& config) {
  const io::Fields fields(config, "config.json");
  return describe(find_family(fields), fields);
}

/// A tensor of a checkpoint to be written.
struct MicroTensor {
  DType dtype = DType::bf16;
  Shape shape;
  std::string bytes;
};
using MicroTensors = std::map<std::string, MicroTensor>;

/// All tensors that the configuration asks for: zeros in bf16.
inline MicroTensors micro_tensors(const io::Json& config) {
  MicroTensors out;
  for (const TensorSpec& tensor : tensor_table(describe(config))) {
    MicroTensor& t = out[tensor.name];
    t.shape = tensor.shape;
    t.bytes.assign(static_cast<size_t>(TensorView{t.dtype, t.shape, nullptr}.bytes()), '\0');
  }
  return out;
}

inline void write_micro(const std::filesystem::path& folder, const io::Json& config,
                        const MicroTensors& tensors) {
  std::filesystem::create_directories(folder);
  io::write_file(folder / "config.json", config.dump());
  std::vector<io::PlannedTensor> planned;
  for (const auto& [name, t] : tensors)
    planned.push_back(
        io::planned(name, {t.dtype, t.shape, reinterpret_cast<const std::byte*>(t.bytes.data())}));
  io::write_safetensors(folder / "model.safetensors", std::move(planned));
}

}  // namespace nibble::model
