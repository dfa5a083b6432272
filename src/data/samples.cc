#include "data/samples.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "io/json.h"

namespace nibble::data {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kLargestFile = int64_t{4} << 30;

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::array<std::string_view, 4> known = {".png", ".jpg", ".jpeg", ".webp"};
  return std::find(known.begin(), known.end(), extension) != known.end();
}

fs::path picture_of(const io::Json& name, const fs::path& folder, const std::string& what) {
  if (!name.is_string()) fail("{}: a picture's path is {}, not a text", what, name.dump());
  const fs::path path = folder / name.get<std::string>();
  if (!fs::is_regular_file(path)) fail("{}: there is no picture {}", what, path.string());
  return path;
}

Sample parse_line(const std::string& line, const fs::path& file, int64_t number) {
  const std::string what = fmt::format("{}:{}", file.string(), number);
  const io::Json json = io::parse_json(line, what);
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
    const std::string line = bytes.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string::npos) out.push_back(parse_line(line, file, number));
  }
  if (out.size() == before) fail("{}: the file holds no samples", file.string());
}

void read_folder(const fs::path& folder, std::vector<Sample>& out) {
  if (fs::is_regular_file(folder / "samples.jsonl")) return read_lines(folder / "samples.jsonl", out);
  std::vector<fs::path> pictures;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && is_picture(entry.path())) pictures.push_back(entry.path());
  if (pictures.empty())
    fail("{}: the folder holds neither samples.jsonl nor pictures (.png, .jpg, .jpeg, .webp)",
         folder.string());
  std::sort(pictures.begin(), pictures.end());
  for (const fs::path& picture : pictures) {
    Sample sample;
    sample.id = picture.string();
    sample.text = kDefaultPrompt;
    sample.images = {picture};
    out.push_back(std::move(sample));
  }
}

}  // namespace

std::vector<Sample> read_samples(std::span<const std::string> files) {
  std::vector<Sample> out;
  for (const std::string& name : files) {
    const fs::path path = name;
    if (fs::is_directory(path))
      read_folder(path, out);
    else if (!fs::exists(path))
      fail("{}: no such file or folder; --data takes samples.jsonl, a text .jsonl or a folder of pictures",
           name);
    else if (is_picture(path))
      fail("{}: is a picture; give its folder, or a samples.jsonl that names it", name);
    else
      read_lines(path, out);
  }
  return out;
}

}  // namespace nibble::data
