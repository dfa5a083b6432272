#include "records/fields.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "records/inventory.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "nibble", kVersion = "version";

bool contains(std::initializer_list<std::string_view> keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

/// A number of each Modality, by the reader of one field.
std::array<double, 2> read_by_modality(const io::Fields& fields, std::string_view key,
                                       double (*read)(const io::Fields&, std::string_view)) {
  const io::Fields object = fields.object(key);
  check_keys(object, {modality_name(Modality::vision), modality_name(Modality::text)});
  std::array<double, 2> out{};
  for (const Modality m : kModalities) out[static_cast<size_t>(m)] = read(object, modality_name(m));
  return out;
}

}  // namespace

io::Json make_header(std::string_view kind, int version) {
  io::Json json = io::Json::object();
  json[std::string(kKind)] = std::string(kind);
  json[std::string(kVersion)] = version;
  return json;
}

std::string kind_of_file(const std::filesystem::path& path) {
  std::string start;  // without the space between its parts
  for (const char c : io::read_start(path, 256))
    if (std::isspace(static_cast<unsigned char>(c)) == 0) start += c;
  const std::string before = fmt::format("{{\"{}\":\"", kKind);
  if (!start.starts_with(before)) return "";
  const size_t end = start.find('"', before.size());
  return end == std::string::npos ? "" : start.substr(before.size(), end - before.size());
}

void check_record(const io::Fields& fields, std::string_view kind, int version,
                  std::initializer_list<std::string_view> keys) {
  if (!fields.has(kKind))
    fail("{}: no \"{}\" field; expected a record of nibble with \"{}\": \"{}\"", fields.what(), kKind, kKind,
         kind);
  const std::string found = fields.string(kKind);
  if (found != kind) fail("{}: holds \"{}\"; expected \"{}\"", fields.what(), printable(found), kind);
  const int64_t number = fields.integer(kVersion);
  if (number != version)
    fail("{}: {} of version {}; this nibble reads version {}: make the file again", fields.what(), kind,
         number, version);
  for (const auto& [key, value] : fields.json().items())
    if (key != kKind && key != kVersion && !contains(keys, key))
      fail("{}: unknown field \"{}\"", fields.what(), printable(key));
}

void check_keys(const io::Fields& fields, std::initializer_list<std::string_view> keys) {
  for (const auto& [key, value] : fields.json().items())
    if (!contains(keys, key)) fail("{}: unknown field \"{}\"", fields.what(), printable(key));
}

std::string digest_field(const io::Fields& fields, std::string_view key) {
  std::string text = fields.string(key);
  if (!text.empty() && (text.size() != 64 || text.find_first_not_of("0123456789abcdef") != std::string::npos))
    fail("{}: \"{}\" is neither empty nor 64 lower-case hex digits", fields.what(), key);
  return text;
}

int64_t count(const io::Fields& fields, std::string_view key) {
  const int64_t value = fields.integer(key);
  if (value < 0) fail("{}: \"{}\" is {}; expected 0 or more", fields.what(), key, value);
  return value;
}

std::string non_empty(const io::Fields& fields, std::string_view key) {
  std::string value = fields.string(key);
  if (value.empty()) fail("{}: \"{}\" is empty", fields.what(), key);
  return value;
}

double finite(const io::Fields& fields, std::string_view key) {
  const double value = fields.number(key);
  if (!std::isfinite(value)) fail("{}: \"{}\" is not finite", fields.what(), key);
  return value;
}

double non_negative(const io::Fields& fields, std::string_view key) {
  const double value = finite(fields, key);
  if (value < 0) fail("{}: \"{}\" is {}; expected 0 or more", fields.what(), key, value);
  return value;
}

double share(const io::Fields& fields, std::string_view key) {
  const double value = non_negative(fields, key);
  if (value > 1) fail("{}: \"{}\" is {}; expected a share from 0 to 1", fields.what(), key, value);
  return value;
}

int64_t positive(const io::Fields& fields, std::string_view key) {
  const int64_t value = fields.integer(key);
  if (value < 1) fail("{}: \"{}\" is {}; expected 1 or more", fields.what(), key, value);
  return value;
}

int64_t between(const io::Fields& fields, std::string_view key, int64_t low, int64_t high) {
  const int64_t value = fields.integer(key);
  if (value < low || value > high)
    fail("{}: \"{}\" is {}; expected {} to {}", fields.what(), key, value, low, high);
  return value;
}

int64_t window_field(const io::Fields& fields, std::string_view key, bool none) {
  return none && fields.integer(key) == 0 ? 0 : between(fields, key, 2, 1 << 20);
}

double kl_field(const io::Fields& fields, std::string_view key) {
  const double value = non_negative(fields, key);
  if (value > kLargestKl)
    fail("{}: \"{}\" is {}; expected a KL of at most {} nats", fields.what(), key, value, kLargestKl);
  return value;
}

int64_t bytes4_field(const io::Fields& fields, std::string_view key, int64_t bytes16) {
  // Two maps of 16 and 256 floats and a quant_state of some hundred bytes; codes and scales take less than a
  // byte for each weight.
  constexpr int64_t kBeside = 4096;
  return between(fields, key, 1, bytes16 + kBeside);
}

std::string compute_type(const io::Fields& fields, std::string_view key) {
  std::string value = fields.string(key);
  if (value != "f32" && value != "bf16")
    fail("{}: \"{}\" is \"{}\"; expected \"f32\" or \"bf16\"", fields.what(), key, printable(value));
  return value;
}

io::Json writable(const std::string& text) {
  return io::Json::parse(io::Json(text).dump(-1, ' ', false, io::Json::error_handler_t::replace));
}

double writable(double value, std::string_view part, std::string_view key) {
  if (!std::isfinite(value)) fail("{}: \"{}\" is {}, which cannot be written", printable(part), key, value);
  return value;
}

io::Json by_modality(const std::array<double, 2>& values, std::string_view what) {
  io::Json json = io::Json::object();
  for (const Modality m : kModalities)
    json[std::string(modality_name(m))] = writable(values[static_cast<size_t>(m)], what, modality_name(m));
  return json;
}

std::array<double, 2> by_modality_field(const io::Fields& fields, std::string_view key) {
  return read_by_modality(fields, key, non_negative);
}

std::array<double, 2> kl_by_modality_field(const io::Fields& fields, std::string_view key) {
  return read_by_modality(fields, key, kl_field);
}

std::vector<std::string> strings_field(const io::Fields& fields, std::string_view key) {
  std::vector<std::string> out;
  for (const io::Json& item : fields.array(key)) {
    if (!item.is_string()) fail("{}: \"{}\" holds something that is no string", fields.what(), key);
    out.push_back(item.get<std::string>());
  }
  return out;
}

io::Json writable(const std::vector<std::string>& texts) {
  io::Json out = io::Json::array();
  for (const std::string& text : texts) out.push_back(writable(text));
  return out;
}

}  // namespace nibble::records
