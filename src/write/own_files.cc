#include "write/own_files.h"

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/weight_files.h"
#include "records/made.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

/// The name without the ending of a file that was being written when a run was killed.
std::string final_name(std::string name) {
  constexpr std::string_view kEnding = io::kUnfinished;
  if (name.ends_with(kEnding)) name.resize(name.size() - kEnding.size());
  return name;
}

/// The first entry of a folder, by name, that is a folder itself or whose name `own` does not know; "" when
/// there is none.
std::string first_foreign(const fs::path& folder, const std::function<bool(const std::string&)>& own) {
  std::error_code error;
  std::set<std::string> foreign;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    std::error_code ignored;
    const bool is_folder = entries->symlink_status(ignored).type() == fs::file_type::directory;
    if (is_folder || !own(final_name(name))) foreign.insert(name);
  }
  if (error) fail("{}: cannot read the folder: {}", folder.string(), error.message());
  return foreign.empty() ? "" : *foreign.begin();
}

/// The files that a checkpoint's nibble.json and index name. Throws Error where they do not say.
std::set<std::string> written_files(const fs::path& folder) {
  const std::string path = (folder / "nibble.json").string();
  const records::Made made = records::made_from_json(io::read_json(path, io::DuplicateKeys::refuse), path);
  if (!made.files) fail("{}: does not record which files were written (an older nibble wrote it)", path);
  std::set<std::string> names = {"nibble.json", "README.md"};
  for (const auto& [name, digest] : *made.files) names.insert(name);
  if (std::error_code ignored; fs::exists(folder / io::kIndexFile, ignored)) {
    names.insert(io::kIndexFile);
    for (const auto& [tensor, file] : io::read_index(folder / io::kIndexFile)) names.insert(file);
  } else {
    names.insert(io::kSingleFile);
  }
  return names;
}

/// True for every name that a shard has, complete or not.
bool is_shard_name(const std::string& name) {
  return name == io::kSingleFile || name == io::kIndexFile ||
         (name.ends_with(".safetensors") && (name.starts_with("shard-") || io::shard_count(name) > 0));
}

}  // namespace

void check_own_output(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / "nibble.json", ignored))
    fail("{}: was not written by nibble (it has no nibble.json), so it is not replaced; give another name",
         folder.string());
  std::set<std::string> own;
  try {
    own = written_files(folder);
  } catch (const Error& error) {
    fail("{}; {} is not replaced: give another name, or remove it yourself", error.what(), folder.string());
  }
  const std::string foreign =
      first_foreign(folder, [&](const std::string& name) { return own.contains(name); });
  if (!foreign.empty())
    fail("{}: was not written by nibble, so {} is not replaced; move it away, or give another name",
         printable((folder / foreign).string()), folder.string());
}

void check_own_leftovers(const fs::path& folder, const io::Checkpoint& source) {
  std::set<std::string> own = {"config.json", "nibble.json", "README.md", io::kLockFile, io::kStateFile};
  for (const fs::path& file : source.side_files()) own.insert(file.filename().string());
  try {
    own.merge(written_files(folder));
  } catch (const Error&) {
    // It is not complete: what is there by now is of this source.
  }
  const std::string foreign = first_foreign(
      folder, [&](const std::string& name) { return own.contains(name) || is_shard_name(name); });
  if (!foreign.empty())
    fail("{}: is in the way of going on from what an interrupted run left in {}; move it away",
         printable((folder / foreign).string()), folder.string());
}

}  // namespace nibble::write
