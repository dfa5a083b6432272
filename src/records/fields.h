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

/// The kind that a file says it holds in the header of a record; "" for one that does not begin so or cannot
/// be read. Looks at its start alone.
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

/// positive: an integer >= 1. between: an integer from low to high.
int64_t positive(const io::Fields& fields, std::string_view key);
int64_t between(const io::Fields& fields, std::string_view key, int64_t low, int64_t high);
/// The tokens of a window that plain texts are cut into, as --window takes them: 2 to 1048576, or 0 where
/// there are no texts to cut (`none`).
int64_t window_field(const io::Fields& fields, std::string_view key, bool none);

/// The largest KL that a record may hold, in nats: no model's is near it, and sums of KLs stay finite.
inline constexpr double kLargestKl = 1e6;
/// A KL: a number from 0 to kLargestKl; and one for each Modality.
double kl_field(const io::Fields& fields, std::string_view key);
std::array<double, 2> kl_by_modality_field(const io::Fields& fields, std::string_view key);

/// Bytes of a weight of shape [out, in] in NF4, with all its side tensors: at most those of the weight itself
/// (`bytes16`, of a weight that cannot be rounded) and of what every 4-bit weight has beside its codes.
int64_t bytes4_field(const io::Fields& fields, std::string_view key, int64_t bytes16);

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
