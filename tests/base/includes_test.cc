// The include rule of src/: nothing includes upward.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

/// What each folder may include besides itself; it may also include whatever those may. Lowest folders first.
const std::vector<std::pair<std::string, std::vector<std::string>>> kRule = {
    {"base", {}},
    {"tensor", {"base"}},
    {"io", {"base", "tensor"}},
    {"records", {"base", "io"}},
    {"quant", {"base", "tensor"}},
    {"kernels", {"base", "tensor", "quant"}},
    {"model", {"base", "io", "tensor", "records", "quant"}},
    {"text", {"base", "io"}},
    {"vision", {"base", "io", "tensor"}},
    {"run", {"model", "kernels", "tensor", "base"}},
    {"data", {"run", "text", "vision"}},
    {"measure", {"data", "run", "quant", "kernels", "records", "text", "vision"}},
    {"plan", {"records", "base"}},
    {"write", {"io", "quant", "kernels", "model", "records"}},
    {"eval", {"data", "run", "text", "vision", "records"}},
    {"report", {"records", "base"}},
    {"app",
     {"base", "tensor", "io", "records", "quant", "kernels", "model", "text", "vision", "run", "data",
      "measure", "plan", "write", "eval", "report"}},
};

/// Libraries whose headers are named in quotes, as Highway asks for its own.
const std::set<std::string> kQuotedLibraries = {"hwy"};

/// Folder -> all folders that its files may include.
std::map<std::string, std::set<std::string>> closure() {
  std::map<std::string, std::set<std::string>> allowed;
  for (const auto& [folder, listed] : kRule) {
    std::set<std::string>& all = allowed[folder];
    all.insert(folder);
    for (const auto& other : listed) all.insert(allowed.at(other).begin(), allowed.at(other).end());
  }
  return allowed;
}

std::string top_folder(const std::string& path) {
  const size_t slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

struct Include {
  char bracket;  // '"' or '<'
  std::string target;
};

/// Takes a word off the front of the text, and the space around it.
bool take(std::string_view& text, std::string_view word) {
  constexpr std::string_view kSpace = " \t";
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return true;
}

/// What a line includes. Also Highway's way to include a file again: #define HWY_TARGET_INCLUDE
/// "kernels/cpu/x.cc".
std::optional<Include> include_of(std::string_view line) {
  take(line, "");
  if (!take(line, "#")) return std::nullopt;
  const bool again = take(line, "define") && take(line, "HWY_TARGET_INCLUDE");
  if (!again && !take(line, "include_next") && !take(line, "include")) return std::nullopt;
  if (!line.starts_with('"') && !line.starts_with('<')) return std::nullopt;
  const size_t end = line.find(line[0] == '"' ? '"' : '>', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return Include{line[0], std::string(line.substr(1, end - 1))};
}

/// What is wrong with the includes of one file, given by its path under src/.
std::vector<std::string> violations(const std::string& path, std::istream& text) {
  static const auto allowed = closure();
  const auto self = allowed.find(top_folder(path));
  if (self == allowed.end()) return {path + ": lies in no folder of the rule"};
  std::vector<std::string> found;
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    const auto include = include_of(line);
    if (!include) continue;
    const std::string folder = top_folder(include->target);
    const bool known = allowed.contains(folder);
    const std::string where = path + ":" + std::to_string(number) + ": " + include->target;
    if (!known && (include->bracket == '<' || kQuotedLibraries.contains(folder))) continue;
    if (!known)
      found.push_back(where + " names no folder of src/");
    else if (!self->second.contains(folder))
      found.push_back(where + " is an upward include");
  }
  return found;
}

std::vector<std::string> violations(const std::string& path, const std::string& text) {
  std::istringstream stream(text);
  return violations(path, stream);
}

TEST(Includes, NothingInSrcIncludesUpward) {
  const fs::path src = fs::path(NIBBLE_ROOT) / "src";
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream stream(entry.path());
    EXPECT_THAT(violations(entry.path().lexically_relative(src).generic_string(), stream), IsEmpty());
    ++files;
  }
  EXPECT_GT(files, 20);
}

TEST(Includes, EveryFolderOfSrcIsInTheRule) {
  const auto allowed = closure();
  for (const auto& entry : fs::directory_iterator(fs::path(NIBBLE_ROOT) / "src")) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(!entry.is_directory() || allowed.contains(name)) << name;
  }
}

TEST(Includes, TheCheckerPassesWhatIsAllowed) {
  EXPECT_THAT(violations("io/a.cc", "#include \"base/error.h\"\n#include \"io/json.h\"\n#include <vector>\n"),
              IsEmpty());
  EXPECT_THAT(violations("plan/a.cc", "#include \"tensor/dtype.h\"\n"),
              IsEmpty());  // by way of records and io
  EXPECT_THAT(violations("base/a.cc", "// #include \"app/x.h\"\n#include <sys/stat.h>\n"), IsEmpty());
  EXPECT_THAT(violations("kernels/cpu/a.cc", "#include \"quant/format.h\"\n"), IsEmpty());
}

TEST(Includes, TheCheckerCatchesUpwardIncludes) {
  EXPECT_THAT(violations("base/a.cc", "#include <string>\n#include \"io/json.h\"\n"),
              ElementsAre("base/a.cc:2: io/json.h is an upward include"));
  EXPECT_THAT(violations("quant/a.h", "  #  include \"io/json.h\"  // why\n"),
              ElementsAre("quant/a.h:1: io/json.h is an upward include"));
  EXPECT_THAT(violations("text/a.cc", "#include <vision/image.h>\n"),
              ElementsAre("text/a.cc:1: vision/image.h is an upward include"));
  EXPECT_THAT(violations("quant/a.cc", "#define HWY_TARGET_INCLUDE \"kernels/cpu/a.cc\"\n"),
              ElementsAre("quant/a.cc:1: kernels/cpu/a.cc is an upward include"));
  for (size_t low = 0; low < kRule.size(); ++low)
    for (size_t high = low + 1; high < kRule.size(); ++high)
      EXPECT_EQ(violations(kRule[low].first + "/a.cc", "#include \"" + kRule[high].first + "/b.h\"\n").size(),
                1u)
          << kRule[low].first << " includes " << kRule[high].first;
}

TEST(Includes, TheCheckerCatchesPathsOutsideTheRule) {
  EXPECT_EQ(violations("io/a.cc", "#include \"json.h\"\n").size(), 1u);
  EXPECT_EQ(violations("io/a.cc", "#include \"../app/x.h\"\n").size(), 1u);
  EXPECT_EQ(violations("utils/a.cc", "").size(), 1u);
  EXPECT_EQ(violations("main.cc", "").size(), 1u);
}

}  // namespace
}  // namespace nibble
