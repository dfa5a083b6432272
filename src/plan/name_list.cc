#include "plan/name_list.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"
#include "io/json.h"

namespace nibble::plan {
namespace {

constexpr int64_t kLargestFile = int64_t{1} << 24;

/// The name that a line holds; "" for none.
std::string_view name_of_line(std::string_view line) {
  constexpr std::string_view kSpace = " \t\r\v\f", kWeight = ".weight";
  line = line.substr(0, line.find('#'));
  const size_t begin = line.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  line = line.substr(begin, line.find_last_not_of(kSpace) - begin + 1);
  if (line.size() > kWeight.size() && line.ends_with(kWeight)) line.remove_suffix(kWeight.size());
  return line;
}

/// Finds names and all names below a parent by binary search.
class Index {
 public:
  explicit Index(const records::Inventory& inventory) {
    for (size_t i = 0; i < inventory.linears.size(); ++i) names_.emplace_back(inventory.linears[i].name, i);
    std::sort(names_.begin(), names_.end());
  }

  /// Calls visit(linear) for the linear of this name and for every one below it; returns how many there were.
  template <typename Visit>
  int64_t match(std::string_view name, Visit visit) const {
    const auto before = [](const auto& entry, std::string_view text) { return entry.first < text; };
    int64_t found = 0;
    auto place = std::lower_bound(names_.begin(), names_.end(), name, before);
    if (place != names_.end() && place->first == name) visit(place->second), ++found;
    const std::string below = std::string(name) + ".";
    place = std::lower_bound(place, names_.end(), std::string_view(below), before);
    for (; place != names_.end() && place->first.starts_with(below); ++place) visit(place->second), ++found;
    return found;
  }

 private:
  std::vector<std::pair<std::string_view, size_t>> names_;  // sorted
};

}  // namespace

std::vector<int64_t> match_list(const std::filesystem::path& path, const records::Inventory& inventory) {
  const std::string text = io::read_file(path, kLargestFile);
  const Index index(inventory);
  std::vector<int64_t> lines(inventory.linears.size(), 0);
  std::unordered_set<std::string_view> seen;
  std::string_view rest = text;
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view name = name_of_line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (name.empty() || !seen.insert(name).second) continue;
    const int64_t found = index.match(name, [&](size_t linear) {
      if (lines[linear] == 0) lines[linear] = line;
    });
    if (found == 0)
      fail("{} line {}: \"{}\" is no linear of this model and no parent of one", path.string(), line,
           printable(name));
  }
  return lines;
}

}  // namespace nibble::plan
