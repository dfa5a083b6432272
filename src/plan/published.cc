#include "plan/published.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "base/error.h"
#include "io/json.h"
#include "plan/name_list.h"

namespace nibble::plan {
namespace fs = std::filesystem;
namespace {

/// The values of the comments "# key: value" of a list.
std::map<std::string, std::string> head_of(const fs::path& path) {
  std::map<std::string, std::string> out;
  std::istringstream lines(io::read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("# ")) continue;
    if (const size_t colon = line.find(": "); colon != std::string::npos)
      out[line.substr(2, colon - 2)] = line.substr(colon + 2);
  }
  for (const char* key : {"model", "family", "layers", "hidden"})
    if (!out.contains(key)) fail("{}: there is no line \"# {}: ...\"", path.string(), key);
  return out;
}

}  // namespace

std::vector<PublishedList> published_lists(const fs::path& folder, const records::Inventory& inventory,
                                           int64_t layers, int64_t hidden) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<PublishedList> out;
  for (const fs::path& file : files) {
    const auto head = head_of(file);
    if (head.at("family") != inventory.family || head.at("layers") != std::to_string(layers) ||
        head.at("hidden") != std::to_string(hidden))
      continue;
    PublishedList list{.model = head.at("model"), .kept = {}};
    for (const int64_t line : match_list(file, inventory)) list.kept.push_back(line > 0);
    out.push_back(std::move(list));
  }
  return out;
}

}  // namespace nibble::plan
