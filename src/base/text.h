// Small texts for people and for files that other programs read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

/// Bytes in people's units: "1.81 GiB", "12.3 MiB", "0.999 GiB", "512 B". Three significant digits from KiB
/// up.
std::string bytes_text(int64_t bytes);

/// Python's repr of a float: the shortest digits that read back, always with a point or an exponent,
/// scientific below 1e-4 and from 1e16 ("0.0001", "1e-05", "123456.0", "1e+16", "inf", "nan").
std::string python_repr(double value);

/// A text from a file as an error may quote it, on one line: control characters as \n, \t or \x1b, and "..."
/// after about `limit` bytes, never inside a UTF-8 character.
std::string printable(std::string_view text, size_t limit = 200);

/// Lower-case hex SHA-256 of the bytes.
std::string sha256(std::string_view bytes);

}  // namespace nibble
