#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr int kCharacters = 0x100 + 68;

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, kCharacters> bytes;  // by code point; -1 where it stands for none
};

const Alphabet& alphabet() {
  static const Alphabet result = [] {
    Alphabet a;
    a.bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      const char32_t c = itself ? static_cast<char32_t>(byte) : next++;
      append_utf8(a.characters[static_cast<size_t>(byte)], c);
      a.bytes[c] = byte;
    }
    return a;
  }();
  return result;
}

}  // namespace

void append_byte_level(std::string& out, std::string_view bytes) {
  const Alphabet& a = alphabet();
  for (const char byte : bytes) out += a.characters[static_cast<unsigned char>(byte)];
}

std::optional<std::string> from_byte_level(std::string_view token) {
  const Alphabet& a = alphabet();
  std::string bytes;
  for (size_t at = 0; at < token.size(); at += utf8_length(token[at])) {
    const char32_t c = code_point_at(token, at);
    if (c >= kCharacters || a.bytes[c] < 0) return std::nullopt;
    bytes += static_cast<char>(a.bytes[c]);
  }
  return bytes;
}

}  // namespace nibble::text
