// Steps through valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::text {

/// Length in bytes of the code point that begins with this byte of valid UTF-8.
inline size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/// The code point that begins at text[at]. The text must be valid UTF-8 and `at` the begin of a code point.
char32_t code_point_at(std::string_view text, size_t at);

/// Where the code point that ends before text[end] begins; end must be above 0.
size_t utf8_previous(std::string_view text, size_t end);

/// Appends a code point.
void append_utf8(std::string& text, char32_t c);

bool is_ascii(std::string_view text);

}  // namespace nibble::text
