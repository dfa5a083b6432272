#include "data/samples.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/size.h"
#include "base/text.h"
#include "io/json.h"
#include "io/weight_files.h"

namespace nibble::data {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kLargestFile = int64_t{4} << 30;
constexpr int64_t kLongestLine = int64_t{16} << 20;

/// Extensions of pictures that are read, and of those that are not.
constexpr std::array<std::string_view, 4> kRead = {".png", ".jpg", ".jpeg", ".webp"};
constexpr std::array<std::string_view, 11> kUnread = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif",
                                                      ".jp2",  ".jxl", ".tga", ".tif",  ".tiff"};

bool has_extension(const fs::path& path, std::span<const std::string_view> known) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(known.begin(), known.end(), extension) != known.end();
}

bool is_picture(const fs::path& path) {
  return has_extension(path, kRead);
}

/// Whether a word is another with one letter more, less, changed, or two neighbours exchanged.
bool is_misspelt(std::string_view a, std::string_view b) {
  if (a.size() < b.size()) std::swap(a, b);
  if (a.size() - b.size() > 1 || a == b) return false;
  const auto [x, y] = std::mismatch(b.begin(), b.end(), a.begin());
  const std::string_view rest_b(x, b.end()), rest_a(y, a.end());
  if (a.size() > b.size()) return rest_a.substr(1) == rest_b;
  if (rest_a.substr(1) == rest_b.substr(1)) return true;
  return rest_a.size() > 1 && rest_a[0] == rest_b[1] && rest_a[1] == rest_b[0] &&
         rest_a.substr(2) == rest_b.substr(2);
}

/// Other keys may stand in a line, but one that was meant must not be passed over.
void check_keys_spelt(const io::Json& json, const std::string& what) {
  for (const auto& [key, value] : json.items())
    for (const char* known : {"image", "images", "prompt", "answer"})
      if (is_misspelt(key, known) && !json.contains(known) && key != "image" && key != "images")
        fail("{}: there is a key \"{}\"; is \"{}\" meant?", what, printable(key), known);
}

/// What stands at a path, links followed. Throws Error where the system does not tell.
fs::file_type type_at(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::none || type == fs::file_type::unknown)
    fail("{}: cannot look at it: {}", path.string(), error.message());
  return type;
}

/// What stands at a name that the user gave. Throws Error where nothing does.
fs::file_type found_type(const std::string& name) {
  if (name.empty()) fail("the name of the data is empty; --data takes a file or a folder");
  const fs::file_type type = type_at(name);
  if (type == fs::file_type::not_found)
    fail("{}: no such file or folder; --data takes samples.jsonl, a text .jsonl or a folder of pictures",
         name);
  return type;
}

fs::path picture_of(const io::Json& name, const fs::path& folder, const std::string& what) {
  if (!name.is_string()) fail("{}: a picture's path is {}, not a text", what, io::value_text(name));
  const fs::path path = folder / name.get<std::string>();
  std::error_code error;  // names that are too long, links in a circle
  if (fs::is_directory(path, error))
    fail("{}: {} is a folder, not a picture; name a file in it", what, printable(path.string()));
  if (!fs::is_regular_file(path, error)) fail("{}: there is no picture {}", what, printable(path.string()));
  return path;
}

Sample parse_line(const std::string& line, const fs::path& file, int64_t number) {
  const std::string what = fmt::format("{}:{}", file.string(), number);
  const std::string_view shown = trim(line);
  if (shown == "{" || (shown.starts_with("[") && !shown.ends_with("]")))
    fail("{}: begins what goes on over several lines; write each sample as one object in one line", what);
  const io::Json json = io::parse_json_line(line, what);
  const io::Fields fields(json, what);
  Sample sample;
  sample.id = what;
  if (fields.has("text")) {
    for (const char* key : {"image", "images", "prompt", "answer"})
      if (fields.has(key))
        fail(
            "{}: \"text\" is plain text and stands alone, but \"{}\" is there too; name what is asked "
            "\"prompt\"",
            what, key);
    sample.plain = true;
    sample.text = fields.string("text");
    return sample;
  }
  check_keys_spelt(json, what);
  if (fields.has("image")) sample.images.push_back(picture_of(json.at("image"), file.parent_path(), what));
  if (fields.has("images"))
    for (const io::Json& name : fields.array("images"))
      sample.images.push_back(picture_of(name, file.parent_path(), what));
  if (!fields.has("prompt") && sample.images.empty())
    fail("{}: the line has none of \"image\", \"prompt\" and \"text\"", what);
  sample.text = fields.string("prompt", kDefaultPrompt);
  if (fields.has("answer")) sample.answer = fields.string("answer");
  return sample;
}

void read_lines(const fs::path& file, std::vector<Sample>& out) {
  const std::string bytes = io::read_file(file, kLargestFile);
  const size_t before = out.size();
  int64_t number = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', at), bytes.size());
    ++number;
    if (static_cast<int64_t>(end - at) > kLongestLine)
      fail("{}:{}: the line has {}, more than {}; cut it into several", file.string(), number,
           bytes_text(static_cast<int64_t>(end - at)), bytes_text(kLongestLine));
    const std::string line = bytes.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") != std::string::npos) out.push_back(parse_line(line, file, number));
  }
  if (out.size() == before) fail("{}: the file holds no samples", file.string());
}

void read_folder(const fs::path& folder, std::vector<Sample>& out) {
  if (type_at(folder / "samples.jsonl") == fs::file_type::regular)
    return read_lines(folder / "samples.jsonl", out);
  std::vector<fs::path> pictures;
  for (const std::string& name : io::file_names(folder))
    if (is_picture(name)) pictures.push_back(folder / name);
  if (pictures.empty())
    fail("{}: the folder holds neither samples.jsonl nor pictures (.png, .jpg, .jpeg, .webp)",
         folder.string());
  for (const fs::path& picture : pictures) {
    if (type_at(picture) != fs::file_type::regular)
      fail(
          "{}: is no regular file, or a link that leads nowhere, as an unfinished download leaves it; "
          "complete it, or move it away",
          printable(picture.string()));
    Sample sample;
    sample.id = picture.string();
    sample.text = kDefaultPrompt;
    sample.images = {picture};
    out.push_back(std::move(sample));
  }
}

/// What samples stay together by: their pictures, or where they have none their line.
std::vector<std::string> keys_of(const Sample& sample) {
  if (sample.images.empty()) return {sample.id};
  std::vector<std::string> keys;
  for (const fs::path& image : sample.images) keys.push_back(image.string());
  return keys;
}

}  // namespace

std::vector<Sample> read_samples(std::span<const std::string> files) {
  check_samples(files);
  std::vector<Sample> out;
  for (const std::string& name : files) {
    const fs::path path = name;
    if (found_type(name) == fs::file_type::directory)
      read_folder(path, out);
    else if (is_picture(path))
      fail("{}: is a picture; give its folder, or a samples.jsonl that names it", name);
    else
      read_lines(path, out);
  }
  return out;
}

void check_samples(std::span<const std::string> files) {
  std::set<fs::path> seen;
  for (const std::string& name : files) {
    found_type(name);
    std::error_code ignored;
    if (!seen.insert(fs::weakly_canonical(name, ignored)).second)
      fail("{}: is given twice; its inputs would count double", name);
  }
}

std::vector<fs::path> unread_pictures(std::span<const std::string> files) {
  std::vector<fs::path> out;
  for (const std::string& name : files) {
    const fs::path folder = name;
    if (found_type(name) != fs::file_type::directory ||
        type_at(folder / "samples.jsonl") == fs::file_type::regular)
      continue;
    for (const std::string& file : io::file_names(folder))
      if (has_extension(file, kUnread)) out.push_back(folder / file);
  }
  return out;
}

std::vector<std::vector<size_t>> groups_of(std::span<const Sample> samples) {
  std::vector<size_t> first(samples.size());  // an earlier sample of the same group, or itself
  const auto root = [&](size_t i) {
    while (first[i] != i) i = first[i] = first[first[i]];
    return i;
  };
  std::map<std::string, size_t> seen;
  for (size_t i = 0; i < samples.size(); ++i) {
    first[i] = i;
    for (const std::string& key : keys_of(samples[i])) {
      const size_t a = root(seen.emplace(key, i).first->second), b = root(i);
      first[std::max(a, b)] = std::min(a, b);
    }
  }
  std::vector<std::vector<size_t>> groups;
  std::map<size_t, size_t> group_of;
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto [at, fresh] = group_of.emplace(root(i), groups.size());
    if (fresh) groups.emplace_back();
    groups[at->second].push_back(i);
  }
  return groups;
}

}  // namespace nibble::data
