// plan.json: a format for every linear, with the reason for each one that is kept.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "records/inventory.h"

namespace nibble::records {

struct Decision {
  std::string name;    // the linear
  bool keep = false;   // true: stays as in the source; false: goes into the plan's format
  std::string reason;  // for people: "activation error 0.41 (vision), rank 3 of 126"
  double score = 0;    // what the policy ranked by; 0 where it ranks by nothing

  friend bool operator==(const Decision&, const Decision&) = default;
};

struct Plan {
  static constexpr int kVersion = 1;
  std::string family, model;
  std::string format = "nf4";       // of the linears that are not kept: "nf4" or "int8" (LLM.int8)
  std::string policy;               // as the user gave it: "dynamic", "random:7"
  std::string budget;               // as the user gave it: "10%", "" for none
  std::string measurements_digest;  // SHA-256 of the measurements file's bytes; "" where none was needed
  int64_t budget_bytes = 0;         // the limit that the budget came to; 0 for none
  int64_t bytes = 0;                // tensor data that the written checkpoint will hold
  int64_t bytes_all4 = 0, bytes_all16 = 0;
  std::vector<Decision> decisions;  // one for each linear, in the inventory's order

  int64_t kept() const;
  friend bool operator==(const Plan&, const Plan&) = default;
};

io::Json to_json(const Plan& plan);
/// Throws Error naming `what` and the field.
Plan plan_from_json(const io::Json& json, const std::string& what);
Plan read_plan(const std::filesystem::path& path);

}  // namespace nibble::records
