#include "io/checkpoint.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "io/weight_files.h"

namespace nibble::io {
namespace fs = std::filesystem;
namespace {

bool any_ends_with(const std::vector<std::string>& names, std::initializer_list<std::string_view> endings) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return std::any_of(endings.begin(), endings.end(), [&](std::string_view e) { return name.ends_with(e); });
  });
}

bool holds(const std::vector<std::string>& names, std::string_view name) {
  return std::binary_search(names.begin(), names.end(), name);
}

/// Says why a folder without config.json or without safetensors cannot be read.
[[noreturn]] void refuse_folder(const fs::path& folder, const std::vector<std::string>& names,
                                std::string_view missing) {
  std::string hint = "it is no Hugging Face checkpoint";
  if (holds(names, "adapter_config.json"))
    hint = "it is an adapter; merge it into its base model and give the merged checkpoint";
  else if (any_ends_with(names, {".gguf"}))
    hint = "it is a GGUF model; give the 16-bit safetensors checkpoint that it was made from";
  else if (any_ends_with(names, {".safetensors"}))
    hint = "copy it from where the weights come from";
  else if (any_ends_with(names, {".bin", ".pt", ".pth", ".ckpt"}))
    hint =
        "convert its PyTorch weights: load it with transformers and save_pretrained it again "
        "(safe_serialization=True)";
  fail("{}: has no {}: {}", folder.string(), missing, hint);
}

/// The names of the files that hold the weights where there is no index.
std::string only_file(const fs::path& folder, const std::vector<std::string>& names) {
  if (holds(names, kSingleFile)) return kSingleFile;
  std::vector<std::string> files;
  std::copy_if(names.begin(), names.end(), std::back_inserter(files),
               [](const std::string& name) { return name.ends_with(".safetensors"); });
  if (files.empty()) refuse_folder(folder, names, "*.safetensors");
  const int count = shard_count(files[0]);
  if (files.size() == 1 && count > 1)
    fail("{}: has only {}, one of {} files; download the others and {}", folder.string(), files[0], count,
         kIndexFile);
  if (files.size() > 1)
    fail(
        "{}: has {} safetensors files ({}, ...) but no {}, which says what is where; copy it from where the "
        "weights come from",
        folder.string(), files.size(), printable(files[0]), kIndexFile);
  return files[0];
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& folder) : folder_(folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail("{}: {}", folder.string(),
         fs::exists(folder, error) ? "is a file; give the checkpoint's folder" : "there is no such folder");
  const auto names = file_names(folder);
  if (!holds(names, "config.json")) refuse_folder(folder, names, "config.json");
  config_ = read_json(config_path());
  if (!config_.is_object()) fail("{}: is no JSON object", config_path());
  if (holds(names, kIndexFile))
    open_indexed(names);
  else
    open_one(only_file(folder, names));
  if (tensors_.empty()) fail("{}: its safetensors hold no tensor", folder.string());
}

void Checkpoint::open_one(const std::string& name) {
  const auto& file = files_.emplace_back(std::make_unique<SafetensorsFile>(folder_ / name));
  tensors_ = file->tensors();
  for (const auto& [tensor, info] : tensors_) where_[tensor] = file.get();
}

void Checkpoint::open_indexed(const std::vector<std::string>& names) {
  const fs::path index_path = folder_ / kIndexFile;
  const auto index = read_index(index_path);
  std::set<std::string> wanted;
  for (const auto& [tensor, file] : index) wanted.insert(file);
  if (holds(names, kSingleFile) && !wanted.contains(kSingleFile))
    fail(
        "{}: has {} and a {} that does not name it, and readers differ in which they take; remove the one "
        "that is "
        "out of date",
        folder_.string(), kSingleFile, kIndexFile);
  std::vector<std::string> missing;
  std::error_code error;
  for (const auto& file : wanted)
    if (!fs::exists(folder_ / file, error)) missing.push_back(file);
  if (!missing.empty())
    fail("{}: {} of the {} files that it names are missing ({}{}); download them", index_path.string(),
         missing.size(), wanted.size(), missing[0], missing.size() > 1 ? ", ..." : "");
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& name : wanted)
    opened[name] = files_.emplace_back(std::make_unique<SafetensorsFile>(folder_ / name)).get();
  for (const auto& [name, file] : opened) {
    for (const auto& [tensor, info] : file->tensors()) {
      const auto entry = index.find(tensor);
      if (entry == index.end())
        fail("{}: tensor \"{}\" is in {}, but the index leaves it out; get the index again",
             index_path.string(), printable(tensor), name);
      if (entry->second != name)
        fail("{}: tensor \"{}\" is said to be in {}, but it is in {}; get the files again",
             index_path.string(), printable(tensor), entry->second,
             opened.at(entry->second)->tensors().contains(tensor) ? name + " as well" : name);
      tensors_.emplace(tensor, info);
      where_[tensor] = file;
    }
  }
  for (const auto& [tensor, file] : index)
    if (!tensors_.contains(tensor))
      fail("{}: tensor \"{}\" is said to be in {}, which does not hold it; get the files again",
           index_path.string(), printable(tensor), file);
}

const SafetensorsFile& Checkpoint::holder(const std::string& name) const {
  const auto it = where_.find(name);
  if (it == where_.end()) fail("{}: has no tensor \"{}\"", folder_.string(), printable(name));
  return *it->second;
}

TensorView Checkpoint::tensor(const std::string& name) const {
  return holder(name).tensor(name);
}

TensorBytes Checkpoint::bytes(const std::string& name) const {
  const SafetensorsFile& file = holder(name);
  return TensorBytes(file.path(), file.stamp(), tensors_.at(name));
}

void Checkpoint::drop(const TensorView& view) const {
  for (const auto& file : files_)
    if (file->drop({view.data, static_cast<size_t>(view.bytes())})) return;
}

const fs::path& Checkpoint::file_of(const std::string& name) const {
  return holder(name).path();
}

std::vector<FileStamp> Checkpoint::stamps() const {
  std::vector<FileStamp> stamps;
  for (const auto& file : files_) stamps.push_back(file->stamp());
  return stamps;
}

std::vector<std::map<std::string, std::string>> Checkpoint::metadata() const {
  std::vector<std::map<std::string, std::string>> out;
  for (const auto& file : files_) out.push_back(file->metadata());
  return out;
}

void Checkpoint::check_unchanged() const {
  for (const auto& file : files_) (void)open_unchanged(file->path(), file->stamp());
}

std::vector<fs::path> Checkpoint::files() const {
  std::vector<fs::path> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

std::string Checkpoint::identity() const {
  std::string all = dump_json(config_);
  const auto paths = files();
  const auto stamped = stamps();
  for (size_t i = 0; i < paths.size(); ++i)
    all += fmt::format("\n{} {} {}", paths[i].filename().string(), stamped[i].size, stamped[i].changed);
  return sha256(all);
}

std::vector<fs::path> Checkpoint::side_files() const {
  std::vector<fs::path> paths;
  for (const auto& name : file_names(folder_)) {
    if (name == "config.json" || name.starts_with('.') || name.ends_with(kPartial) ||
        name.ends_with(kUnfinished) || is_weight_file(name))
      continue;
    std::error_code error;
    if (fs::is_regular_file(folder_ / name, error)) paths.push_back(folder_ / name);
  }
  return paths;
}

std::optional<Json> Checkpoint::json(const std::string& name) const {
  // A link that leads nowhere (an unfinished download) is there, and reading it says so.
  std::error_code error;
  if (fs::symlink_status(folder_ / name, error).type() == fs::file_type::not_found) return std::nullopt;
  return read_json(folder_ / name);
}

}  // namespace nibble::io
