// measurements.json: what quantizing each linear does to its weight and to its output.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "records/inventory.h"
#include "records/rounding.h"

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

/// A linear in NF4 with other codes than plain rounding's.
struct RoundedErrors {
  int64_t bytes4 = 0;                         // of all its tensors in a file
  double weight = 0;                          // |W - Q(W)| / |W|
  std::array<ActivationError, 2> activation;  // by Modality

  friend bool operator==(const RoundedErrors&, const RoundedErrors&) = default;
};

/// One linear in NF4, plainly rounded, against its 16-bit self.
struct LinearErrors {
  std::string name;
  double weight = 0;                          // |W - Q(W)| / |W|
  double largest_block = 0;                   // the same over the worst block of 64
  std::array<ActivationError, 2> activation;  // by Modality
  std::vector<SliceErrors> slices = {};       // of a fused linear
  std::optional<RoundedErrors> rounded = {};  // by the measurements' rounding, where that is not plain

  friend bool operator==(const LinearErrors&, const LinearErrors&) = default;
};

/// One of the inputs that was measured on.
struct MeasuredInput {
  std::string id;                      // "images/0003.jpg", or the file and line of a text
  Modality modality = Modality::text;  // vision: it has pictures
  int64_t positions = 0;               // that the KL is a mean over: of the answer, or of the text's window

  friend bool operator==(const MeasuredInput&, const MeasuredInput&) = default;
};

/// The model run with one group in 4 bits and everything else in 16.
struct SoloRun {
  std::string group, rounding;  // rounding: "plain", or the kind of the measurements' rounding
  std::vector<double> kl;       // of each input: mean KL(16 bit || this) over its positions, nats

  friend bool operator==(const SoloRun&, const SoloRun&) = default;
};

/// The model run with several groups in 4 bits and everything else in 16: KLs add where layers act alone, so
/// that this bounds what each of them costs.
struct JointRun {
  std::vector<std::string> groups;  // at least two, in order
  std::string rounding;             // as of solo runs
  std::vector<double> kl;

  friend bool operator==(const JointRun&, const JointRun&) = default;
};

struct Measurements {
  static constexpr int kVersion = 2;
  Inventory inventory;
  std::vector<std::string> data;  // the calibration files as given
  int64_t samples = 0;
  int64_t window = 0;                 // of plain texts, in tokens; 0 where none was cut
  std::array<int64_t, 2> rows{};      // tokens seen, by Modality (vision: patches, at the tower's input)
  std::string compute;                // "f32" or "bf16"
  Rounding rounding;                  // of the errors' `rounded` and of solo runs that are not plain
  bool fuse = true;                   // groups are what serving engines fuse; false: every linear alone
  std::string effort = "none";        // "none", "auto" or "full": which solo runs were made
  std::vector<MeasuredInput> inputs;  // that the solo runs were made on, in order; empty without solo runs
  std::vector<LinearErrors> errors;   // one for each linear of the inventory, in its order
  std::vector<SoloRun> solo;          // in order of the groups; plain before the other rounding
  std::vector<JointRun> joint;        // no group is in two of them
  /// KL, by Modality of the inputs, of the 16-bit model with the inputs of its linears rounded to bf16
  /// against itself with fp32: what 16-bit hardware does by itself. Nothing without solo runs.
  std::optional<std::array<double, 2>> noise;

  friend bool operator==(const Measurements&, const Measurements&) = default;
};

/// The mean KL of a run over the inputs of one modality, by positions; 0 where there are none.
double mean_kl(const Measurements& measurements, std::span<const double> kl, Modality modality);

/// The power mean of exponent 1/3 over the inputs of one modality, by positions; 0 where there are none. A
/// few inputs on which a model wavers hold most of any mean KL, and others will be such inputs elsewhere. As
/// far as the KL of a run on an input is a factor of the run times one of the input, the ratio of two power
/// means is that of two means on other inputs, with much less variance.
double typical_kl(std::span<const MeasuredInput> inputs, std::span<const double> kl, Modality modality);

io::Json to_json(const Measurements& measurements);
/// Throws Error naming `what` and the field: other version, linears that do not match the inventory, ...
Measurements measurements_from_json(const io::Json& json, const std::string& what);
Measurements read_measurements(const std::filesystem::path& path);

}  // namespace nibble::records
