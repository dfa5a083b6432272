// JSON files and typed access to their fields; every error names the file and the field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace nibble::io {

/// Keeps the order of keys as read or inserted.
using Json = nlohmann::ordered_json;

/// Parses a whole text. `what` names it in errors (a path). Nesting deeper than 200 is refused.
/// Throws Error with line and column.
Json parse_json(std::string_view text, std::string_view what);

/// Reads and parses a file (at most 1 GiB). Throws Error when it cannot be read or parsed.
Json read_json(const std::filesystem::path& path);

/// The whole file as bytes. Throws Error when it cannot be read or is larger than `limit`.
std::string read_file(const std::filesystem::path& path, int64_t limit = int64_t{1} << 30);

/// Writes through a temporary file beside the target, fsync and rename: the target is the old file or the new
/// one, never a part. Throws Error (and leaves no temporary file) when that fails.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// Typed access to an object's fields for readers of config files. Holds references: must not outlive `json`.
class Fields {
 public:
  /// `what` names the object in errors: "models/x/config.json" or "models/x/config.json: vision_config".
  /// Throws Error when `json` is no object.
  Fields(const Json& json, std::string what);

  /// True when the key is present and not null.
  bool has(std::string_view key) const;
  /// The value; throws Error when the key is missing, null, or of another type (an integer may be written 4.0).
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  const Json& array(std::string_view key) const;
  Fields object(std::string_view key) const;
  /// The same with a default where the key is missing or null.
  int64_t integer(std::string_view key, int64_t fallback) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key, std::string_view fallback) const;
  /// A positive integer of at most `limit`; throws Error otherwise.
  int64_t dimension(std::string_view key, int64_t limit = int64_t{1} << 30) const;
  int64_t dimension(std::string_view key, int64_t fallback, int64_t limit) const;

  const Json& json() const { return *json_; }
  const std::string& what() const { return what_; }

 private:
  const Json* find(std::string_view key) const;
  const Json* json_;
  std::string what_;
};

/// Text of a JSON value as Python's json.dumps(indent=2, ensure_ascii=False) writes it.
std::string dump_json(const Json& json);

}  // namespace nibble::io
