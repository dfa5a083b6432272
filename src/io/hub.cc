#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "io/checkpoint.h"
#include "io/weight_files.h"

namespace nibble::io {
namespace fs = std::filesystem;
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path home() {
  if (const std::string home = environment("HOME"); !home.empty()) return home;
  const passwd* user = getpwuid(getuid());
  return user == nullptr || user->pw_dir == nullptr ? "/" : user->pw_dir;
}

fs::path expand_home(const std::string& path) {
  if (path == "~") return home();
  return path.starts_with("~/") ? home() / path.substr(2) : fs::path(path);
}

/// The hub cache as huggingface_hub finds it.
fs::path hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (const std::string path = environment(name); !path.empty()) return expand_home(path);
  if (const std::string path = environment("HF_HOME"); !path.empty()) return expand_home(path) / "hub";
  if (const std::string path = environment("XDG_CACHE_HOME"); !path.empty())
    return expand_home(path) / "huggingface" / "hub";
  return home() / ".cache" / "huggingface" / "hub";
}

bool is_word(std::string_view text, std::string_view further) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           further.find(c) != std::string_view::npos;
  });
}

/// One part of a hub name: letters, digits, "-", "_" and ".", neither beginning nor ending with "-" or ".".
bool is_name_part(std::string_view part) {
  constexpr std::string_view kEnds = "-.";
  return !part.empty() && part.size() <= 96 && is_word(part, "-_.") &&
         kEnds.find(part.front()) == std::string_view::npos &&
         kEnds.find(part.back()) == std::string_view::npos && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

/// False where nothing is there. Throws Error where that cannot be seen.
bool is_folder(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error == std::errc::permission_denied)
    fail("{}: cannot look at it: {}", printable(path.string()), error.message());
  return fs::is_directory(status);
}

/// "org/name" or, for the oldest models, "name".
bool is_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos) return is_name_part(name);
  return is_name_part(name.substr(0, slash)) && is_name_part(name.substr(slash + 1));
}

/// A branch, tag, commit or "refs/pr/1": parts separated by slashes, none of which leads out of the cache.
bool is_revision(std::string_view revision) {
  while (true) {
    const size_t slash = revision.find('/');
    const std::string_view part = revision.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || !is_word(part, "-_.+@#=")) return false;
    if (slash == std::string_view::npos) return true;
    revision.remove_prefix(slash + 1);
  }
}

/// The snapshot folder of a revision in a model's cache folder; an empty path when it is not there.
fs::path snapshot_of(const fs::path& model, const std::string& revision) {
  std::error_code error;
  std::string commit = revision;
  if (const fs::path ref = model / "refs" / revision; fs::is_regular_file(ref, error)) {
    commit = read_file(ref, 4096);
    const auto is_space = [](unsigned char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
    commit.erase(std::remove_if(commit.begin(), commit.end(), is_space), commit.end());
    if (!is_revision(commit) || commit.find('/') != std::string::npos)
      fail("{}: holds \"{}\", which is no commit; remove it and download the model again", ref.string(),
           printable(commit, 60));
  }
  const fs::path snapshot = model / "snapshots" / commit;
  return is_folder(snapshot) ? snapshot : fs::path();
}

/// The first file that the snapshot lacks to be a checkpoint, or an empty text.
std::string missing_file(const fs::path& snapshot) {
  std::error_code error;
  if (!fs::exists(snapshot / "config.json", error)) return "config.json";
  if (fs::exists(snapshot / kIndexFile, error)) {
    std::set<std::string> files;
    for (const auto& [tensor, file] : read_index(snapshot / kIndexFile)) files.insert(file);
    for (const auto& file : files)
      if (!fs::exists(snapshot / file, error)) return file;
    return "";
  }
  bool weights = false;
  for (const auto& name : file_names(snapshot)) {
    if (!is_weight_file(name)) continue;
    if (!fs::exists(snapshot / name, error)) return name;
    weights = true;
  }
  return weights ? "" : "*.safetensors";
}

}  // namespace

fs::path resolve_model(const std::string& model) {
  std::error_code error;
  if (model.empty()) fail("the model's name is empty; give a folder or a Hugging Face name (org/name)");
  if (is_folder(model)) return model;
  if (fs::exists(model, error)) fail("{}: is a file; give the checkpoint's folder", printable(model));
  const size_t at = model.find('@');
  const std::string name = model.substr(0, at);
  const std::string revision = at == std::string::npos ? "main" : model.substr(at + 1);
  if (!is_hub_name(name))
    fail("{}: there is no such folder, and it is no Hugging Face name (org/name or org/name@revision)",
         printable(model));
  if (!is_revision(revision)) fail("{}: \"{}\" is no revision", printable(model), printable(revision));
  std::string folder = "models--" + name;
  if (const size_t slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
  const fs::path cached = hub_cache() / folder;
  const std::string download =
      fmt::format("`hf download {}{}`", name, at == std::string::npos ? "" : " --revision " + revision);
  const fs::path snapshot = snapshot_of(cached, revision);
  if (snapshot.empty())
    fail("{}: there is no such folder, and it is not in the Hugging Face cache ({}); download it with {}",
         printable(model), hub_cache().string(), download);
  if (const std::string missing = missing_file(snapshot); !missing.empty())
    fail("{}: its snapshot in the Hugging Face cache ({}) lacks {}; download the rest with {}",
         printable(model), snapshot.string(), printable(missing), download);
  return snapshot;
}

}  // namespace nibble::io
