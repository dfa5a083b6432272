// The quantized checkpoint out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "model/binding.h"
#include "records/plan.h"

namespace nibble::write {

struct Options {
  int64_t max_shard_bytes = 5'000'000'000;  // of tensor data
  bool force = false;                       // an existing output folder of nibble's is replaced
  bool allow_nonfinite = false;
  bool likely_sizes = false;  // the plan's bytes and bytes_all4 are made of such (see Plan::set_written)
  /// Linears that the plan does not round plainly, by name: the same each time it is asked.
  std::function<quant::Packed4(const std::string&)> rounded = {};
  std::string command = {};  // how the user called, for nibble.json
  std::string version = {};  // of nibble
  std::string build = {};    // tells programs of one version apart: none goes on with another's files
  /// Hears in a sentence what becomes of an interrupted run's files.
  std::function<void(const std::string&)> tell = {};
};

/// The folder that a checkpoint is to be written into, for as long as the work takes: a second run on it is
/// refused. Refuses before any long work: a source that is quantized already; a folder that is the source or
/// holds it, that exists while `force` is false or is not nibble's own (own_files.h), or that cannot be made.
io::OutputFolder open_output(const model::Binding& source, const std::filesystem::path& out, bool force);

/// Writes the source with the plan applied, in the bitsandbytes layout: every linear that the plan does not
/// keep as NF4 with double quantization (plainly rounded, or from options.rounded) or LLM.int8, everything
/// else as it is. config.json carries the quantization_config with a skip list checked against every reader's
/// rule; side files are copied; nibble.json holds version, command, plan, the SHA-256 of every tensor, of
/// config.json and of every side file, and the weight error of every 4-bit linear. The folder appears under
/// its name only when it is complete. The same input gives the same bytes, whatever the number of threads and
/// however often the work was interrupted: it goes on after the last complete file where source, plan,
/// options and version are the same, and begins anew where they are not. Memory holds the codes of two
/// linears and a few buffers. Returns the bytes of tensor data. Throws Error: a plan for another model or
/// above its own budget, weights that are not finite, a source that changes meanwhile, a full disk.
int64_t write_checkpoint(const model::Binding& source, const records::Plan& plan, io::OutputFolder& folder,
                         const Options& options);
/// The same with open_output(source, out, options.force).
int64_t write_checkpoint(const model::Binding& source, const records::Plan& plan,
                         const std::filesystem::path& out, const Options& options);

/// The config.json that write_checkpoint would write for a plan. Throws Error for a plan of another model.
io::Json config_of_plan(const model::Binding& source, const records::Plan& plan);

/// The written config.json: readable in the published and the transformers-5 style, with quantization_config.
/// A plan that keeps everything gets none. `format` is the plan's.
io::Json quantized_config(const model::Binding& source, const std::vector<const model::Linear*>& kept,
                          const std::string& format);

}  // namespace nibble::write
