// measurements.json: what quantizing each linear does to its weight and to its output.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "records/inventory.h"

namespace nibble::records {

/// |X W' - X Q(W)'|^2 and |X W'|^2 (squared Frobenius norms) over all calibration rows X of one modality.
struct ActivationError {
  int64_t rows = 0;
  double noise = 0, signal = 0;
  /// sqrt(noise / signal); 0 when there were no rows or the noise is 0, infinity when only the signal is 0.
  double relative() const;

  friend bool operator==(const ActivationError&, const ActivationError&) = default;
};

/// The rows of a fused linear that are a linear of their own elsewhere: q of qkv, gate of gate_up.
struct SliceErrors {
  Role role = Role::q;
  double weight = 0;                          // |W - Q(W)| / |W| over its rows
  std::array<ActivationError, 2> activation;  // by Modality

  friend bool operator==(const SliceErrors&, const SliceErrors&) = default;
};

/// One linear in NF4 against its 16-bit self.
struct LinearErrors {
  std::string name;
  double weight = 0;                          // |W - Q(W)| / |W|
  double largest_block = 0;                   // the same over the worst block of 64
  std::array<ActivationError, 2> activation;  // by Modality
  std::vector<SliceErrors> slices = {};       // of a fused linear

  friend bool operator==(const LinearErrors&, const LinearErrors&) = default;
};

struct Measurements {
  static constexpr int kVersion = 1;
  Inventory inventory;
  std::vector<std::string> data;  // the calibration files as given
  int64_t samples = 0;
  std::array<int64_t, 2> rows{};     // tokens seen, by Modality (vision: patches, at the tower's input)
  std::string compute;               // "f32" or "bf16"
  std::vector<LinearErrors> errors;  // one for each linear of the inventory, in its order

  friend bool operator==(const Measurements&, const Measurements&) = default;
};

io::Json to_json(const Measurements& measurements);
/// Throws Error naming `what` and the field: other version, linears that do not match the inventory, ...
Measurements measurements_from_json(const io::Json& json, const std::string& what);
Measurements read_measurements(const std::filesystem::path& path);

}  // namespace nibble::records
