#include "base/text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "base/error.h"
#include "base/sha256.h"

namespace nibble {

std::string bytes_text(int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array units = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  const int decimals = value < 0.9995 ? 3 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, decimals, units[unit]);
}

std::string python_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer;
  const double magnitude = std::fabs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                     scientific ? std::chars_format::scientific : std::chars_format::fixed);
  NIBBLE_CHECK(status == std::errc());
  std::string text(buffer.data(), end);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    // A character of several bytes stays whole: only its first byte may meet the limit.
    const auto c = static_cast<unsigned char>(text[i]);
    if (out.size() >= limit && (c & 0xc0) != 0x80) return out + "...";
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", c);
    else
      out += text[i];
    if (out.size() > limit + 8) return out + "...";  // bytes that are no UTF-8 at all
  }
  return out;
}

std::string sha256(std::string_view bytes) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(bytes)));
  return digest.hex();
}

}  // namespace nibble
