// plan.json: a format for every linear, with the reason for each one that is kept.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "records/interval.h"
#include "records/inventory.h"
#include "records/rounding.h"

namespace nibble::records {

struct Decision {
  std::string name;                // the linear
  bool keep = false;               // true: stays as in the source; false: goes into the plan's format
  std::string reason;              // for people: "activation error 0.41 (vision), rank 3 of 126"
  double score = 0;                // what the policy ranked by; 0 where it ranks by nothing
  std::string rounding = "plain";  // where it is not kept: "plain", or the kind of the plan's rounding

  friend bool operator==(const Decision&, const Decision&) = default;
};

/// A plan that was run for real on inputs that it was not made from.
struct VerifiedRun {
  std::string label;                  // how it came about: "dynamic", "repaired 2", "activation error"
  int64_t bytes = 0;                  // of tensor data
  int64_t kept = 0;                   // linears in 16 bits
  std::array<double, 2> predicted{};  // KL by Modality of the inputs
  std::array<Interval, 2> kl{};       // KL(16 bit || plan), nats, by Modality of the inputs
  /// The mean KL on the inputs that plans are made from, where it was run on these as well.
  std::optional<std::array<double, 2>> decided = {};
  /// The typical KL (measurements.h) over all inputs that it was run on, by which plans within bytes are
  /// compared.
  std::optional<std::array<double, 2>> typical = {};

  friend bool operator==(const VerifiedRun&, const VerifiedRun&) = default;
};

struct Verification {
  std::vector<std::string> data;    // the files as given; where they are the calibration's, a split of them
  std::array<int64_t, 2> inputs{};  // by Modality
  std::vector<VerifiedRun> runs;    // in the order in which they were made
  int64_t chosen = 0;               // the run of this plan

  friend bool operator==(const Verification&, const Verification&) = default;
};

/// True where some plan was run on the inputs that plans are made from.
bool ran_where_decided(const Verification& verification);

/// A point of the curve from all-4-bit to 16 bit: the best plan of that size, as predicted.
struct CurvePoint {
  int64_t bytes = 0;
  std::array<double, 2> predicted{};  // KL by Modality of the inputs

  friend bool operator==(const CurvePoint&, const CurvePoint&) = default;
};

struct Plan {
  static constexpr int kVersion = 2;
  std::string family, model;
  std::string weights = {};         // Inventory::weights of that model
  std::string format = "nf4";       // of the linears that are not kept: "nf4" or "int8" (LLM.int8)
  std::string policy;               // as the user gave it: "dynamic", "random:7"
  std::string budget;               // as the user gave it: "10%", "" for none
  std::string measurements_digest;  // SHA-256 of the measurements file's bytes; "" where none was needed
  int64_t budget_bytes = 0;         // the limit that the budget came to; 0 for none
  int64_t bytes = 0;                // tensor data that the written checkpoint will hold
  int64_t bytes_all4 = 0, bytes_all16 = 0;
  bool fuse = true;               // false: linears that serving engines fuse may be stored differently
  Rounding rounding;              // of the decisions that name its kind
  std::vector<std::string> data;  // what the rounding's statistics come from; empty for plain rounding
  int64_t window = 0;             // of plain texts in it
  bool held_out = false;          // every fourth input of data was kept from deciding and rounding
  std::string compute;            // "f32" or "bf16": how the statistics were computed; "" for plain rounding
  std::optional<std::array<double, 2>> predicted;  // KL by Modality, where solo runs tell
  std::optional<Verification> verification;
  std::vector<CurvePoint> curve;    // by rising bytes; empty where nothing can be predicted
  std::vector<Decision> decisions;  // one for each linear, in the inventory's order

  int64_t kept() const;
  /// Takes the bytes that were written. With `likely` sizes (model::Binding::inventory) of what is rounded,
  /// bytes_all4 was wrong by as much.
  void set_written(int64_t written, bool likely);
  friend bool operator==(const Plan&, const Plan&) = default;
};

io::Json to_json(const Plan& plan);
/// Throws Error naming `what` and the field.
Plan plan_from_json(const io::Json& json, const std::string& what);
Plan read_plan(const std::filesystem::path& path);

}  // namespace nibble::records
