#include "app/stages.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "records/fields.h"
#include "report/report.h"

namespace nibble::app {
namespace fs = std::filesystem;

kernels::Compute Common::compute_kind(int64_t bytes) const {
  constexpr int64_t kLarge = 500'000'000;
  if (compute.empty())
    return kernels::fast_bf16() && bytes >= kLarge ? kernels::Compute::bf16 : kernels::Compute::f32;
  return compute == "bf16" ? kernels::Compute::bf16 : kernels::Compute::f32;
}

LoadedModel::LoadedModel(const std::string& model, const Common& common)
    : name(model),
      binding(io::resolve_model(model)),
      maker(binding),
      weights(binding, common.compute_kind(binding.tensor_bytes())),
      runner(weights) {}

model::Binding open_16bit(const std::string& name) {
  model::Binding source(io::resolve_model(name));
  if (source.quantized())
    fail("{}: is quantized already; give the 16-bit checkpoint that it was made of", name);
  if (const auto unused = source.unused_tensors(); !unused.empty())
    tell(fmt::format("{}: {} tensors that this model does not use are copied as they are: {}{}", name,
                     unused.size(), unused.front(), unused.size() > 1 ? ", ..." : ""));
  return source;
}

void tell(const std::string& line) {
  // What a name or a file holds must not steer a terminal.
  std::string text;
  for (const char c : line) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < ' ' || byte == 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  text += "\n";
  // Nobody listening is no reason to stop.
  (void)!write(STDERR_FILENO, text.data(), text.size());
}

fs::path share_folder() {
  std::vector<fs::path> places;
  if (const char* share = std::getenv("NIBBLE_SHARE")) {
    if (!fs::is_directory(fs::path(share) / "pictures"))
      fail(
          "NIBBLE_SHARE is {}: there is no folder pictures in it; unset it, or name where nibble's data lies",
          share);
    return share;
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) places.push_back(program.parent_path().parent_path() / "share" / "nibble");
  places.emplace_back(NIBBLE_SOURCE);
  for (const fs::path& place : places)
    if (fs::is_directory(place / "pictures")) return place;
  fail("the data that nibble ships is not at {}; give your own with --data, or set NIBBLE_SHARE",
       places.back().string());
}

std::string build_digest() {
  static const std::string digest = [] {
    try {
      return io::sha256_of_file("/proc/self/exe");
    } catch (const Error&) {
      return std::string();
    }
  }();
  return digest;
}

std::vector<std::string> data_files(const std::vector<std::string>& files, const std::string& shipped,
                                    const data::PromptMaker& maker) {
  if (!files.empty()) {
    tell_of_unread(files);
    return files;
  }
  tell(fmt::format("no {} data given: using the {} that nibble ships", shipped,
                   maker.takes_pictures() ? "pictures" : "texts"));
  return shipped_files(shipped, maker);
}

std::vector<std::string> shipped_files(const std::string& shipped, const data::PromptMaker& maker) {
  if (maker.takes_pictures()) return {(share_folder() / "pictures" / shipped / "samples.jsonl").string()};
  return {(share_folder() / "texts" / (shipped + ".jsonl")).string()};
}

/// A picture that is left out is one that the user believes to count.
void tell_of_unread(const std::vector<std::string>& files) {
  const auto unread = data::unread_pictures(files);
  if (!unread.empty())
    tell(fmt::format("left out, since only .png, .jpg, .jpeg and .webp are read: {}{}", unread[0].string(),
                     unread.size() > 1 ? fmt::format(" and {} more", unread.size() - 1) : ""));
}

/// Attention in a tower takes the square of its patches.
void tell_of_large(const run::Prompt& prompt, const std::string& name) {
  constexpr int64_t kMany = 16384;
  for (const run::Picture& picture : prompt.pictures)
    if (picture.patches() >= kMany)
      return tell(fmt::format("{}: a picture of {} patches, which takes long; a smaller one takes much less",
                              name, picture.patches()));
}

void tell_of_chat(const data::PromptMaker& maker) {
  static bool said = false;
  if (!maker.built_in_chat() || std::exchange(said, true)) return;
  tell("the checkpoint brings no chat template: the usual chat format of its family is used");
}

std::vector<data::Item> items_of(std::span<const data::Sample> samples, const std::vector<std::string>& files,
                                 const data::PromptMaker& maker, int64_t window) {
  if (std::any_of(samples.begin(), samples.end(), [](const data::Sample& sample) { return !sample.plain; }))
    tell_of_chat(maker);
  auto items = data::make_items(samples, maker, window);
  for (const data::Item& item : items) tell_of_large(item.prompt, item.id);
  if (items.empty())
    fail("{}: nothing is left to run: every text is shorter than two tokens", fmt::join(files, ", "));
  return items;
}

std::vector<data::Item> load_items(const std::vector<std::string>& files, const std::string& shipped,
                                   const data::PromptMaker& maker, int64_t window) {
  const auto all = data_files(files, shipped, maker);
  return items_of(data::read_samples(all), all, maker, window);
}

records::Measurements read_measurements(const std::string& path, std::string& digest) {
  const std::string text = io::read_file(path);
  if (records::kind_of_file(path) != "measurements")
    fail("{}: holds no measurements; nibble measure MODEL -o {} makes them", path, path);
  digest = sha256(text);
  return records::measurements_from_json(io::parse_json(text, path, io::DuplicateKeys::refuse), path);
}

void check_writable(const std::string& path) {
  const fs::path folder = fs::absolute(io::writable_target(path)).parent_path();
  if (access(folder.c_str(), W_OK) != 0)
    fail("{}: cannot write into {}: {}", path, folder.string(), std::strerror(errno));
}

namespace {

/// True for a file that nibble wrote as what `kind` names.
bool is_own(const fs::path& path, std::string_view kind) {
  if (kind == "report") return report::is_report(io::read_start(path, 4096));
  if (kind != "trace") return records::kind_of_file(path) == kind;
  try {
    const io::SafetensorsFile file(path);
    return file.tensors().contains("logits") && file.tensors().contains("input_ids");
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

void check_not_read(const std::string& path, const std::vector<std::string>& inputs) {
  std::error_code ignored;
  for (const std::string& input : inputs)
    if (fs::equivalent(path, input, ignored))
      fail("{}: is read by this command and would be replaced; choose another name", path);
}

void check_target(const std::string& path, const std::vector<std::string>& inputs, std::string_view kind) {
  check_writable(path);
  const fs::path target = fs::absolute(io::writable_target(path)), folder = target.parent_path();
  std::error_code ignored;
  const bool in_checkpoint = fs::exists(folder / "config.json", ignored);
  if (in_checkpoint && target.extension() == ".safetensors")
    fail("{}: readers would take it for a part of the checkpoint in {}; choose another folder", path,
         folder.string());
  if (!fs::exists(target, ignored) || fs::is_empty(target, ignored)) return;
  check_not_read(path, inputs);
  if (is_own(target, kind)) return;
  if (in_checkpoint)
    fail("{}: is a file of the checkpoint in {} and would be replaced; choose another name", path,
         folder.string());
  fail("{}: exists and holds no {} of nibble; choose another name", path, kind);
}

void tell_of_other_weights(std::string_view record, const std::string& model, const std::string& theirs,
                           const std::string& ours) {
  if (theirs.empty() || theirs == ours) return;
  tell(fmt::format("the {} may not hold: made from other weights (of {}) than those of this model", record,
                   model));
}

void check_measurements(const records::Measurements& measurements, const records::Inventory& inventory) {
  const auto& ours = inventory.linears;
  const auto& theirs = measurements.inventory.linears;
  if (measurements.inventory.family != inventory.family || ours.size() != theirs.size())
    fail("the measurements are of {} ({}, {} linears), not of {} ({}, {} linears); measure this model",
         measurements.inventory.model, measurements.inventory.family, theirs.size(), inventory.model,
         inventory.family, ours.size());
  if (measurements.inventory.parameters != inventory.parameters ||
      measurements.inventory.other_bytes != inventory.other_bytes)
    fail("the measurements are of {}, whose other tensors differ from those of {}; measure this model",
         measurements.inventory.model, inventory.model);
  for (size_t i = 0; i < ours.size(); ++i)
    if (ours[i].name != theirs[i].name || ours[i].out != theirs[i].out || ours[i].in != theirs[i].in ||
        ours[i].dtype != theirs[i].dtype)
      fail(
          "the measurements are of {}, where {} is ({}, {}) {}; in {} it is {} ({}, {}) {}; measure this "
          "model",
          measurements.inventory.model, theirs[i].name, theirs[i].out, theirs[i].in,
          dtype_name(theirs[i].dtype), inventory.model, ours[i].name, ours[i].out, ours[i].in,
          dtype_name(ours[i].dtype));
}

std::string description(const model::Binding& binding) {
  size_t kept = 0, all = 0;
  bool eight = false;
  for (const model::Linear* l : model::linears(binding.spec())) {
    ++all;
    kept += binding.linear(*l).storage == model::Storage::plain;
    eight = eight || binding.linear(*l).storage == model::Storage::int8;
  }
  if (kept == all) return "16 bit";
  if (kept == 0) return eight ? "8 bit" : "4 bit";
  // nibble.json tells how these linears were chosen; other writers leave none.
  std::string chosen = "4 bit";
  if (const auto made = binding.checkpoint().json("nibble.json");
      made && made->is_object() && made->contains("plan")) {
    const records::Plan plan =
        records::plan_from_json(made->at("plan"), (binding.checkpoint().folder() / "nibble.json").string());
    chosen = plan.budget.empty() ? plan.policy : fmt::format("{} {}", plan.policy, plan.budget);
  }
  return fmt::format("{}: {} of {} linears in 16 bit", chosen, kept, all);
}

}  // namespace nibble::app
