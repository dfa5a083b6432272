#include "io/weight_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "io/json.h"

namespace nibble::io {
namespace {

constexpr std::array<std::string_view, 15> kWeightEndings = {
    ".safetensors", ".index.json", ".bin", ".pt",  ".pth",  ".gguf",   ".ggml",     ".ckpt",
    ".h5",          ".msgpack",    ".ot",  ".npz", ".onnx", ".tflite", ".onnx_data"};

}  // namespace

std::vector<std::string> file_names(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  std::vector<std::string> names;
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    std::error_code ignored;  // a link in a circle is no folder
    if (!entries->is_directory(ignored)) names.push_back(entries->path().filename().string());
  }
  if (error) fail("{}: cannot read the folder: {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

bool is_weight_file(const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::any_of(kWeightEndings.begin(), kWeightEndings.end(),
                     [&](std::string_view ending) { return lower.ends_with(ending); });
}

std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const Json json = read_json(path, DuplicateKeys::refuse);
  const Fields index(json, path.string());
  const Fields weight_map = index.object("weight_map");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map.json().items()) {
    if (!file.is_string())
      fail("{}: weight_map: the file of tensor \"{}\" is no string", path.string(), printable(tensor));
    const auto& name = file.get_ref<const std::string&>();
    if (name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos || name.starts_with('.'))
      fail("{}: weight_map: tensor \"{}\" is said to be in \"{}\", which is no file of this folder",
           path.string(), printable(tensor), printable(name));
    if (!name.ends_with(".safetensors"))
      fail("{}: weight_map: tensor \"{}\" is said to be in \"{}\", which is no *.safetensors", path.string(),
           printable(tensor), printable(name));
    files.emplace(tensor, name);
  }
  if (files.empty()) fail("{}: weight_map is empty", path.string());
  return files;
}

int shard_count(const std::string& name) {
  constexpr std::string_view kEnding = ".safetensors";
  constexpr std::string_view kOf = "-of-";
  const size_t of = name.rfind(kOf);
  if (of == std::string::npos || !name.ends_with(kEnding)) return 0;
  const char* begin = name.data() + of + kOf.size();
  const char* end = name.data() + name.size() - kEnding.size();
  int count = 0;
  const auto [stop, status] = std::from_chars(begin, end, count);
  return status == std::errc() && stop == end && count > 0 ? count : 0;
}

}  // namespace nibble::io
