// Reading a written checkpoint again: is every byte what was written, and every 4-bit linear as near to its
// source as it was?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/binding.h"

namespace nibble::write {

/// One file, checked.
struct FileCheck {
  std::string file;
  int64_t tensors = 0, bytes = 0;
  int64_t kept = 0, rounded = 0;  // tensors and linears that were compared with the source
  double largest_error = 0;       // of the weight errors of its 4-bit linears
  std::vector<std::string>
      problems;  // a line for each thing that is not as it should be, file and tensor in it
};

struct Verification {
  std::vector<FileCheck> files;  // by name
  bool sides_recorded = true;    // false: nibble.json has no digests of the files beside the weights
};

/// Checks every tensor of a checkpoint, and every file beside the weights, against the digests in its
/// nibble.json; config.json's quantization_config also against what the plan there gives. A *.safetensors
/// that is no part of the checkpoint is a problem. With a source: 16-bit tensors must be the source's, 8-bit
/// linears what the source rounds to, and 4-bit ones decode to within the error that nibble.json holds for
/// them. Memory holds one linear. Throws Error when there is no nibble.json with digests, or the source is of
/// another family.
Verification verify(const model::Binding& written, const model::Binding* source);

}  // namespace nibble::write
