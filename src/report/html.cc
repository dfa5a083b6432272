#include "report/html.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "report/table.h"

namespace nibble::report {

namespace {

struct Escape {
  char from;
  std::string_view to;
};

void append_escaped(std::string& out, std::string_view text, std::span<const Escape> escapes) {
  for (const char c : text) {
    const auto it =
        std::find_if(escapes.begin(), escapes.end(), [c](const Escape& e) { return e.from == c; });
    if (it == escapes.end())
      out += c;
    else
      out += it->to;
  }
}

}  // namespace

std::string html_text(std::string_view text) {
  constexpr Escape kEscapes[] = {
      {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (at > 0) out += '\n';
    append_escaped(out, one_line(text.substr(at, end - at)), kEscapes);
    at = end + 1;
  }
  return out;
}

std::string script_json(const io::Json& json) {
  constexpr Escape kEscapes[] = {{'&', "\\u0026"}, {'<', "\\u003c"}, {'>', "\\u003e"}};
  std::string out;
  append_escaped(out, json.dump(-1, ' ', false, io::Json::error_handler_t::replace), kEscapes);
  return out;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - at);
    uint32_t word = 0;
    for (size_t i = 0; i < 3; ++i)
      word = word << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[word >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

std::string picture_uri(std::string_view bytes) {
  std::string_view type;
  if (bytes.starts_with("\x89PNG\r\n\x1a\n"))
    type = "png";
  else if (bytes.starts_with("\xff\xd8\xff"))
    type = "jpeg";
  else if (bytes.starts_with("RIFF") && bytes.substr(0, 12).ends_with("WEBP"))
    type = "webp";
  if (type.empty()) return "";
  return "data:image/" + std::string(type) + ";base64," + base64(bytes);
}

}  // namespace nibble::report
