// What a model consists of, as data that needs no tensors: the first record of every stage.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "tensor/dtype.h"

namespace nibble::records {

/// Which token a row of activations belongs to.
enum class Modality : uint8_t { vision, text };
inline constexpr std::array kModalities = {Modality::vision, Modality::text};
std::string_view modality_name(Modality modality);  // "vision", "text"

/// Reads the name of a modality; throws Error naming the field.
Modality modality_field(const io::Fields& fields, std::string_view key);

/// Which part of the model a linear lies in.
enum class Part : uint8_t { vision, projector, text };
std::string_view part_name(Part part);  // "vision", "projector", "text"

/// What a linear does; a field of the family's record, never guessed from a name.
enum class Role : uint8_t { qkv, q, k, v, attention_out, gate, up, gate_up, down, fc1, fc2, projector };
/// Reads the name of a role; throws Error naming the field.
Role role_field(const io::Fields& fields, std::string_view key);
std::string_view role_name(Role role);  // "qkv", "q", ..., "attention_out", ...

/// One weight matrix of a linear layer.
struct LinearRecord {
  std::string name;   // as in the checkpoint, without ".weight": "visual.blocks.0.attn.qkv"
  std::string group;  // linears of one group are decided together: "model.layers.3.self_attn.qkv"
  std::string tap;    // linears of one tap read the same input: "model.layers.3.mlp.input"
  Part part = Part::text;
  Role role = Role::q;
  int64_t depth = 0;  // block number within its part
  int64_t out = 0, in = 0;
  DType dtype = DType::bf16;  // of the source
  int64_t bytes16 = 0;        // of the weight as the source stores it
  int64_t bytes4 = 0;  // as NF4 with double quantization: codes, absmax, maps, quant_state: all tensor data

  bool fits8 = true;  // false: LLM.int8's module cannot take this linear's input
  /// As LLM.int8: codes, a scale for each row, and the byte of weight_format.
  int64_t bytes8() const { return out * in + 4 * out + 1; }

  friend bool operator==(const LinearRecord&, const LinearRecord&) = default;
};

struct Inventory {
  static constexpr int kVersion = 1;
  std::string family;        // "qwen2_vl"
  std::string model;         // folder or hub name, as the user gave it
  std::string weights = {};  // Binding::fingerprint of the tensors; "" where it was not taken
  int64_t parameters = 0;    // of all tensors, tied weights once
  int64_t other_bytes = 0;   // tensor data besides the linears' weights: embeddings, head, norms, biases, ...
  std::vector<LinearRecord> linears;  // in the order of the forward pass

  /// Tensor data with every linear in 4 bits, in 8 bits, and as in the source.
  int64_t bytes_all4() const;
  int64_t bytes_all8() const;
  int64_t bytes_all16() const;

  friend bool operator==(const Inventory&, const Inventory&) = default;
};

io::Json to_json(const Inventory& inventory);
/// Throws Error naming `what` and the field.
Inventory inventory_from_json(const io::Json& json, const std::string& what);

}  // namespace nibble::records
