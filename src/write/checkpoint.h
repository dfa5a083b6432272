// The quantized checkpoint out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "model/binding.h"
#include "records/plan.h"

namespace nibble::write {

struct Options {
  int64_t max_shard_bytes = 5'000'000'000;  // of tensor data
  bool force = false;                       // an existing output folder is replaced
  bool allow_nonfinite = false;
  std::string command = {};  // how the user called, for nibble.json
  std::string version = {};  // of nibble
};

struct Written {
  int64_t tensor_bytes = 0;
  int64_t files = 0;
};

/// Throws Error when the output folder is the source itself, or exists and `force` is false: for refusing
/// before any long work. write_checkpoint checks again.
void check_output(const model::Binding& source, const std::filesystem::path& out, bool force);

/// Writes the source with the plan applied, in the bitsandbytes layout: every linear that the plan does not
/// keep as NF4 with double quantization, everything else as it is. config.json carries the
/// quantization_config with a skip list checked against every reader's rule; side files are copied;
/// nibble.json holds version, command and plan. The folder appears under its name only when it is complete.
/// The same input gives the same bytes. Throws Error: a plan for another model, a source that is quantized,
/// weights that are not finite, an output folder that exists, a full disk.
Written write_checkpoint(const model::Binding& source, const records::Plan& plan,
                         const std::filesystem::path& out, const Options& options);

/// The written config.json: readable in the published and the transformers-5 style, with quantization_config.
/// A plan that keeps everything gets none.
io::Json quantized_config(const model::Binding& source, const std::vector<const model::Linear*>& kept);

}  // namespace nibble::write
