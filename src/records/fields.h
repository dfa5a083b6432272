// What the readers of the records share: the header of a record and checked access to its fields.
#pragma once

#include <array>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::records {

/// {"nibble": kind, "version": version}: how every record begins.
io::Json make_header(std::string_view kind, int version);

/// The kind that a file says it holds in the header of a record; "" for one that does not begin so or cannot be
/// read. Looks at its start alone.
std::string kind_of_file(const std::filesystem::path& path);

/// Throws Error unless the record begins with this header (saying which kind and version are expected) and
/// holds no field besides the header and `keys`.
void check_record(const io::Fields& fields, std::string_view kind, int version,
                  std::initializer_list<std::string_view> keys);

/// Throws Error naming a field that is not one of `keys`.
void check_keys(const io::Fields& fields, std::initializer_list<std::string_view> keys);

/// Readers of one field; each throws Error naming the field when the value is missing, of another type or out
/// of range. count: an integer >= 0. non_empty: a string of at least one character. finite: a number that is
/// neither infinite nor NaN. non_negative: a finite number >= 0. share: a number in [0, 1].
int64_t count(const io::Fields& fields, std::string_view key);
std::string non_empty(const io::Fields& fields, std::string_view key);
double finite(const io::Fields& fields, std::string_view key);
double non_negative(const io::Fields& fields, std::string_view key);
double share(const io::Fields& fields, std::string_view key);

/// A SHA-256 in lower-case hex, or ""; throws Error for another text or none.
std::string digest_field(const io::Fields& fields, std::string_view key);

/// "f32" or "bf16".
std::string compute_type(const io::Fields& fields, std::string_view key);

/// {"vision": ..., "text": ...}: non-negative numbers by Modality. `what` names the record's part in errors.
io::Json by_modality(const std::array<double, 2>& values, std::string_view what);
std::array<double, 2> by_modality_field(const io::Fields& fields, std::string_view key);
/// An array of strings.
std::vector<std::string> strings_field(const io::Fields& fields, std::string_view key);
io::Json writable(const std::vector<std::string>& texts);

/// The text, for writing: what is no UTF-8 (in paths as users give them) becomes U+FFFD.
io::Json writable(const std::string& text);

/// The value, for writing; throws Error naming the record's part and the field when it is infinite or NaN,
/// which JSON cannot hold.
double writable(double value, std::string_view part, std::string_view key);

}  // namespace nibble::records
