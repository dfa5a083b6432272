// What several commands need: an opened model, its inputs, and the stages strung together.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/answers.h"
#include "data/prompts.h"
#include "model/binding.h"
#include "records/measurements.h"
#include "records/plan.h"
#include "run/forward.h"

namespace nibble::app {

/// Options that every command knows.
struct Common {
  int threads = 0;      // 0: all
  std::string compute;  // "f32", "bf16", "" for the machine's default
  bool json = false;
  bool quiet = false;

  /// As the user says; else bf16 where the CPU has it and the model is large enough (`bytes` of tensor data)
  /// for speed to matter more than the last digits of a KL, which bf16 blurs.
  kernels::Compute compute_kind(int64_t bytes) const;
};

/// A checkpoint that is run: binding, weights and prompts, kept together.
struct LoadedModel {
  std::string name;  // as the user gave it
  model::Binding binding;
  data::PromptMaker maker;
  run::Weights weights;
  run::Runner runner;

  LoadedModel(const std::string& name, const Common& common);
  LoadedModel(const LoadedModel&) = delete;
};

/// Opens a checkpoint to make others of. Throws Error for one that is quantized.
model::Binding open_16bit(const std::string& name);

/// Writes a line to standard error, if it can be written.
void tell(const std::string& line);
/// Says which pictures in folders of data are of kinds that are not read, where there are some.
void tell_of_unread(const std::vector<std::string>& files);
/// Says where a picture of the prompt is so large that running it takes long.
void tell_of_large(const run::Prompt& prompt, const std::string& name);
/// Says, once, that a checkpoint without a chat template is asked in the chat format of its family.
void tell_of_chat(const data::PromptMaker& maker);

/// Where the data that nibble ships lies: $NIBBLE_SHARE, ../share/nibble beside the program, or the source
/// tree. Throws Error when none is there.
std::filesystem::path share_folder();

/// A digest of the program itself, by which builds of one version are told apart. "" where it cannot be read.
std::string build_digest();

/// Inputs of a command: `files`, or the shipped set `shipped` ("calibration", "evaluation") with a line on
/// stderr.
std::vector<data::Item> load_items(const std::vector<std::string>& files, const std::string& shipped,
                                   const data::PromptMaker& maker, int64_t window);
/// Inputs made of samples that `files` held. Throws Error when there is nothing to run in them.
std::vector<data::Item> items_of(std::span<const data::Sample> samples, const std::vector<std::string>& files,
                                 const data::PromptMaker& maker, int64_t window);
/// The files that load_items reads.
std::vector<std::string> data_files(const std::vector<std::string>& files, const std::string& shipped,
                                    const data::PromptMaker& maker);
/// What nibble ships: pictures for models that take some, texts for others.
std::vector<std::string> shipped_files(const std::string& shipped, const data::PromptMaker& maker);

/// Reads measurements.json and gives the digest of its bytes.
records::Measurements read_measurements(const std::string& path, std::string& digest);

/// Throws Error unless a file can be made at `path`, for refusing before long work.
void check_writable(const std::string& path);
/// Throws Error where what is there already is one of `inputs`.
void check_not_read(const std::string& path, const std::vector<std::string>& inputs);
/// Both; what is there already must also be what nibble writes there (a record of `kind` ("plan"), a
/// "report", or a "trace"), and in the folder of a checkpoint no weights may come into being.
void check_target(const std::string& path, const std::vector<std::string>& inputs, std::string_view kind);

/// Throws Error unless the measurements were made on a model with these linears.
void check_measurements(const records::Measurements& measurements, const records::Inventory& inventory);

/// Says in a line where a record ("plan") was made from other weights (`theirs`, of `model`) than those that
/// it is used for (`ours`); both are fingerprints, "" for one that is not known.
void tell_of_other_weights(std::string_view record, const std::string& model, const std::string& theirs,
                           const std::string& ours);

/// What the files of a model are, for tables: "16 bit", "4 bit", "dynamic 10%: 13 of 126 linears in 16 bit".
std::string description(const model::Binding& binding);

}  // namespace nibble::app
