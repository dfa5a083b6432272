#include "text/utf8.h"

#include <unicode/utf8.h>

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer.h"

namespace nibble::text {

char32_t code_point_at(std::string_view text, size_t at) {
  UChar32 c = 0;
  U8_NEXT(text.data(), at, text.size(), c);
  NIBBLE_CHECK(c >= 0, "no valid UTF-8");
  return static_cast<char32_t>(c);
}

size_t utf8_previous(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

void append_utf8(std::string& text, char32_t c) {
  char bytes[U8_MAX_LENGTH];
  size_t n = 0;
  U8_APPEND_UNSAFE(bytes, n, static_cast<UChar32>(c));
  text.append(bytes, n);
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const size_t begin = at;
    UChar32 c = 0;
    U8_NEXT(bytes.data(), at, bytes.size(), c);
    // A negative c stands for the longest prefix of a code point that is there, or for one byte.
    if (c >= 0)
      text.append(bytes, begin, at - begin);
    else
      text += "\uFFFD";
  }
  return text;
}

}  // namespace nibble::text
