// nibble.json of a written checkpoint: how it was made.
#pragma once

#include <string>

#include "records/plan.h"

namespace nibble::records {

struct Made {
  std::string version;       // of nibble
  std::string command;       // as a shell takes it
  int64_t tensor_bytes = 0;  // in the safetensors files
  Plan plan;

  friend bool operator==(const Made&, const Made&) = default;
};

io::Json to_json(const Made& made);
/// Throws Error naming `what` and the field.
Made made_from_json(const io::Json& json, const std::string& what);

}  // namespace nibble::records
