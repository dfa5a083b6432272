// The alphabet of byte-level tokenizers: one visible character for each byte.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

/// Appends the characters that stand for the bytes of a text: '!' to '~' and U+00A1 to U+00FF without U+00AD
/// stand for themselves, the other 68 bytes in ascending order are U+0100 and up.
void append_byte_level(std::string& out, std::string_view bytes);

/// The bytes that a token's characters stand for; nothing when one of them stands for none.
std::optional<std::string> from_byte_level(std::string_view token);

}  // namespace nibble::text
