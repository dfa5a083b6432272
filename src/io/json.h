// JSON files and typed access to their fields; every error names the file and the field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace nibble::io {

/// Keeps the order of keys as read or inserted. Looking up a key is linear: iterate over large objects (a
/// vocabulary) instead of asking for their keys one by one.
using Json = nlohmann::ordered_json;

/// What a key that an object has twice means: its last value, as in Python, or an error.
enum class DuplicateKeys { last_wins, refuse };

/// Parses a whole text. `what` names it in errors (a path). Nesting deeper than 200 and more than 2^23 values
/// are refused, so that a text's size bounds the memory. Throws Error with line and column.
Json parse_json(std::string_view text, std::string_view what,
                DuplicateKeys duplicates = DuplicateKeys::last_wins);

/// The same for a line of a file of lines: `what` names the line ("samples.jsonl:3"), and errors its column.
/// Keys that are there twice are refused: people write these files.
Json parse_json_line(std::string_view line, std::string_view what);

/// Reads and parses a file (at most 256 MiB). Throws Error when it cannot be read or parsed.
Json read_json(const std::filesystem::path& path, DuplicateKeys duplicates = DuplicateKeys::last_wins);

/// The whole file as bytes. Throws Error when it cannot be read or is larger than `limit`.
std::string read_file(const std::filesystem::path& path, int64_t limit = int64_t{1} << 30);

/// Writes through a temporary file beside the target, fsync and rename: the target is the old file or the new
/// one, never a part. Throws Error (and leaves no temporary file) when that fails.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// Typed access to an object's fields for readers of config files. Holds references: must not outlive `json`.
class Fields {
 public:
  /// `what` names the object in errors: "models/x/config.json" or "models/x/config.json: vision_config"
  /// (where the text after the last ": " has no "/", it is a field and its own fields follow after a point).
  /// Throws Error when `json` is no object.
  Fields(const Json& json, std::string what);

  /// True when the key is present and not null.
  bool has(std::string_view key) const;
  /// The value; throws Error when the key is missing, null, or of another type (an integer may be
  /// written 4.0).
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
  /// A positive integer of at most `limit`; throws Error otherwise, of a fallback that is used as well.
  int64_t dimension(std::string_view key, int64_t limit = int64_t{1} << 30) const;
  int64_t dimension(std::string_view key, int64_t fallback, int64_t limit) const;

  const Json& json() const { return *json_; }
  const std::string& what() const { return what_; }

 private:
  const Json* find(std::string_view key) const;
  const Json& need(std::string_view key, std::string_view kind) const;
  std::string place(std::string_view key) const;
  [[noreturn]] void wrong(std::string_view key, const Json& value, std::string_view kind) const;
  const Json* json_;
  std::string what_;
};

/// A value as an error may quote it, on one line and short: the number, the beginning of the string, "an
/// array".
std::string value_text(const Json& value);

/// A string as a JSON literal with its quotes, as Python (ensure_ascii=False) and safetensors write it.
/// Throws InternalError when it is not UTF-8.
std::string json_string(std::string_view text);

/// Text of a JSON value as Python's json.dumps(indent=2, ensure_ascii=False) writes it. Throws Error naming
/// the place of a number that JSON cannot hold (NaN, infinity), InternalError for strings that are no UTF-8.
std::string dump_json(const Json& json);

}  // namespace nibble::io
