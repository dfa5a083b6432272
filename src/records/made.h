// nibble.json of a written checkpoint: how it was made.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "records/plan.h"

namespace nibble::records {

struct Made {
  std::string version;       // of nibble
  std::string command;       // as a shell takes it
  int64_t tensor_bytes = 0;  // in the safetensors files
  Plan plan;
  std::map<std::string, double> weight_errors = {};  // of each 4-bit linear
  std::map<std::string, std::string> sha256 = {};    // of each tensor's bytes
  /// SHA-256 of config.json and of every file that was copied beside it, by name; not of README.md, which a
  /// card replaces, nor of the index, which follows from the tensors. Nothing in checkpoints of a nibble that
  /// did not record them.
  std::optional<std::map<std::string, std::string>> files = {};

  friend bool operator==(const Made&, const Made&) = default;
};

/// Holds beside these a digest of the whole, under "digest".
io::Json to_json(const Made& made);
/// False where a record's digest is not that of what it holds; one of an older nibble has none and passes.
bool is_whole(const io::Json& made);
/// Throws Error naming `what` and the field.
Made made_from_json(const io::Json& json, const std::string& what);

/// The plan of plan.json, or that in nibble.json of a written checkpoint. Throws Error naming the file.
Plan read_any_plan(const std::filesystem::path& path);

}  // namespace nibble::records
