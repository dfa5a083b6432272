#include "io/json.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/sax.h"

namespace nibble::io {
namespace {

constexpr int64_t kJsonFileLimit = int64_t{256} << 20;
constexpr size_t kMaxDepth = 200;
constexpr int64_t kMaxValues = int64_t{1} << 23;
/// Objects with more keys than this get an index of their keys while they are read.
constexpr size_t kSmallObject = 32;

/// Builds the value from the parser's events. Keys are found through an index of our own, as the ordered
/// object's lookup is linear and a vocabulary would take quadratic time.
class Builder : public SaxHandler {
 public:
  Builder(std::string_view text, std::string_view what, DuplicateKeys duplicates, bool one_line = false)
      : SaxHandler(text, what, one_line), duplicates_(duplicates) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Open& object = open_.back();
    Members& members = members_of(*object.value);
    size_t at = members.size();
    if (members.size() < kSmallObject) {
      const auto it =
          std::find_if(members.begin(), members.end(), [&](const auto& m) { return m.first == name; });
      at = static_cast<size_t>(it - members.begin());
    } else {
      if (object.index.empty())
        for (size_t i = 0; i < members.size(); ++i) object.index.emplace(members[i].first, i);
      at = object.index.emplace(name, members.size()).first->second;
    }
    if (at < members.size() && duplicates_ == DuplicateKeys::refuse)
      fail("{}: the key \"{}\" is there twice", what(), printable(name));
    if (at == members.size()) members.emplace_back(std::move(name), Json());
    object.place = at;
    return true;
  }

 private:
  /// The list that an ordered object is, which can be appended to without a search.
  using Members = Json::object_t::Container;
  static Members& members_of(Json& object) { return object.get_ref<Json::object_t&>(); }

  struct Open {
    Json* value;
    size_t place = 0;  // of the member whose value comes next
    std::map<std::string, size_t> index;
  };

  /// Puts a value where the next one belongs and returns its place.
  Json& put(Json value) {
    if (++values_ > kMaxValues) fail("{}: has more than {} values", what(), kMaxValues);
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return parent.back();
    }
    return members_of(parent)[open_.back().place].second = std::move(value);
  }

  bool add(Json value) {
    put(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (open_.size() >= kMaxDepth) fail("{}: is nested deeper than {} levels", what(), kMaxDepth);
    Json& place = put(std::move(value));
    open_.push_back({&place, 0, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  DuplicateKeys duplicates_;
  Json root_;
  std::vector<Open> open_;
  int64_t values_ = 0;
};

constexpr std::string_view kWhole = "a whole number";

/// The value as int64 where it is a whole number that fits.
std::optional<int64_t> whole(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto v = value.get<uint64_t>();
    if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(v);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double v = value.get<double>();
  if (std::trunc(v) != v || std::fabs(v) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(v);
}

}  // namespace

std::string value_text(const Json& value) {
  switch (value.type()) {
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return value.empty() ? "an empty array" : "an array";
    case Json::value_t::number_float:
      return python_repr(value.get<double>());
    case Json::value_t::string:
      return fmt::format("\"{}\"", printable(value.get_ref<const std::string&>(), 60));
    default:
      return value.dump();
  }
}

Json parse_json(std::string_view text, std::string_view what, DuplicateKeys duplicates) {
  Builder builder(text, what, duplicates);
  builder.parse();
  return builder.take();
}

Json parse_json_line(std::string_view line, std::string_view what) {
  Builder builder(line, what, DuplicateKeys::refuse, true);
  builder.parse();
  return builder.take();
}

Json read_json(const std::filesystem::path& path, DuplicateKeys duplicates) {
  const std::string text = read_file(path, kJsonFileLimit);
  refuse_lfs_pointer(text, path);
  return parse_json(text, path.string(), duplicates);
}

std::string read_file(const std::filesystem::path& path, int64_t limit) {
  int64_t size = 0;
  const Descriptor file = open_regular(path, &size);
  std::string bytes;
  // The size may be 0 for files that the system makes up, or change while reading: read to the end.
  for (size_t have = 0;;) {
    if (static_cast<int64_t>(have) > limit || size > limit)
      fail("{}: is larger than {}, the most that is read of such a file", path.string(), bytes_text(limit));
    const size_t room = have < static_cast<size_t>(size) ? static_cast<size_t>(size) - have : 4096;
    bytes.resize(have + room);
    const ssize_t n = ::read(file.get(), bytes.data() + have, room);
    if (n < 0 && errno != EINTR) fail("{}: cannot read it: {}", path.string(), system_message(errno));
    if (n > 0) have += static_cast<size_t>(n);
    if (n == 0) {
      bytes.resize(have);
      return bytes;
    }
  }
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

Fields::Fields(const Json& json, std::string what) : json_(&json), what_(std::move(what)) {
  if (!json.is_object()) fail("{} is {}, not an object", what_, value_text(json));
}

const Json* Fields::find(std::string_view key) const {
  const auto it = json_->find(key);
  return it == json_->end() || it->is_null() ? nullptr : &*it;
}

std::string Fields::place(std::string_view key) const {
  const size_t colon = what_.rfind(": ");
  const bool nested = colon != std::string::npos && what_.find('/', colon) == std::string::npos;
  return fmt::format("{}{}{}", what_, nested ? "." : ": ", printable(key));
}

void Fields::wrong(std::string_view key, const Json& value, std::string_view kind) const {
  fail("{} is {}, not {}", place(key), value_text(value), kind);
}

const Json& Fields::need(std::string_view key, std::string_view kind) const {
  const Json* value = find(key);
  if (value == nullptr)
    fail("{} is {}; it must be {}", place(key), json_->contains(key) ? "null" : "missing", kind);
  return *value;
}

bool Fields::has(std::string_view key) const {
  return find(key) != nullptr;
}

int64_t Fields::integer(std::string_view key) const {
  const Json& value = need(key, kWhole);
  const auto number = whole(value);
  if (!number) wrong(key, value, kWhole);
  return *number;
}

double Fields::number(std::string_view key) const {
  const Json& value = need(key, "a number");
  if (!value.is_number()) wrong(key, value, "a number");
  return value.get<double>();
}

bool Fields::boolean(std::string_view key) const {
  const Json& value = need(key, "true or false");
  if (!value.is_boolean()) wrong(key, value, "true or false");
  return value.get<bool>();
}

std::string Fields::string(std::string_view key) const {
  const Json& value = need(key, "a string");
  if (!value.is_string()) wrong(key, value, "a string");
  return value.get<std::string>();
}

const Json& Fields::array(std::string_view key) const {
  const Json& value = need(key, "an array");
  if (!value.is_array()) wrong(key, value, "an array");
  return value;
}

Fields Fields::object(std::string_view key) const {
  const Json& value = need(key, "an object");
  if (!value.is_object()) wrong(key, value, "an object");
  return Fields(value, place(key));
}

int64_t Fields::integer(std::string_view key, int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double Fields::number(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool Fields::boolean(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}

std::string Fields::string(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : std::string(fallback);
}

int64_t Fields::dimension(std::string_view key, int64_t limit) const {
  const int64_t value = integer(key);
  if (value < 1 || value > limit) fail("{} is {}; it must lie between 1 and {}", place(key), value, limit);
  return value;
}

int64_t Fields::dimension(std::string_view key, int64_t fallback, int64_t limit) const {
  if (has(key)) return dimension(key, limit);
  if (fallback < 1 || fallback > limit)
    fail("{} is missing, and its default {} does not lie between 1 and {}", place(key), fallback, limit);
  return fallback;
}

}  // namespace nibble::io
