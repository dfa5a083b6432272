#include "text/jinja/strings.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>
#include <unordered_set>

#include "text/jinja/heap.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

size_t skip_spaces(std::string_view text, size_t at) {
  while (at < text.size() && is_space(code_point_at(text, at))) at += utf8_length(text[at]);
  return at;
}

size_t skip_word(std::string_view text, size_t at) {
  while (at < text.size() && !is_space(code_point_at(text, at))) at += utf8_length(text[at]);
  return at;
}

/// The text without white space at its ends and with the decimal digits of every script as ASCII.
std::string ascii_digits(std::string_view text) {
  std::string out;
  text = strip(text, Side::both);
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = code_point_at(text, at);
    const int digit = c < 0x80 ? -1 : digit_value(c);
    if (digit >= 0)
      out += static_cast<char>('0' + digit);
    else
      append_utf8(out, c);
  }
  return out;
}

/// Takes out the underscores between digits; nothing where one stands elsewhere. `digit` says what a digit
/// is.
template <typename IsDigit>
std::optional<std::string> without_underscores(std::string_view text, IsDigit digit) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    if (i == 0 || i + 1 == text.size() || !digit(text[i - 1]) || !digit(text[i + 1])) return std::nullopt;
  }
  return out;
}

/// std::string_view compares at every place: fast, but only parts up to this keep it from quadratic time.
constexpr size_t kShortPart = 16;

std::string reversed(std::string_view text) {
  return {text.rbegin(), text.rend()};
}

int base_of_prefix(std::string_view text) {
  if (text.size() < 2 || text[0] != '0') return 0;
  const char c = static_cast<char>(text[1] | 0x20);
  return c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
}

}  // namespace

bool valid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t at = 0; at < size;) {
    if (bytes[at] < 0x80) {
      ++at;
      continue;
    }
    UChar32 c = 0;
    U8_NEXT(bytes, at, size, c);
    if (c < 0) return false;
  }
  return true;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  constexpr uint32_t kHidden =
      U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CS_MASK | U_GC_CO_MASK | U_GC_CN_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & kHidden) == 0;
}

bool is_word(char32_t c) {
  return c == '_' || (U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_L_MASK | U_GC_ND_MASK)) != 0 ||
         u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

int digit_value(char32_t c) {
  return u_charDigitValue(static_cast<UChar32>(c));
}

bool is_identifier(std::string_view text) {
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const auto c = static_cast<UChar32>(code_point_at(text, at));
    if (c == '_') continue;
    if (!u_hasBinaryProperty(c, at == 0 ? UCHAR_XID_START : UCHAR_XID_CONTINUE)) return false;
  }
  return !text.empty();
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  std::unordered_set<char32_t> wanted;
  if (chars)
    for (size_t at = 0; at < chars->size(); at += utf8_length((*chars)[at]))
      wanted.insert(code_point_at(*chars, at));
  const auto taken = [&](size_t at) {
    const char32_t c = code_point_at(text, at);
    return chars ? wanted.contains(c) : is_space(c);
  };
  if (side != Side::right)
    while (!text.empty() && taken(0)) text.remove_prefix(utf8_length(text[0]));
  if (side != Side::left)
    while (!text.empty()) {
      const size_t last = utf8_previous(text, text.size());
      if (!taken(last)) break;
      text = text.substr(0, last);
    }
  return text;
}

size_t find_first(std::string_view text, std::string_view part, size_t from) {
  if (part.size() <= kShortPart || from > text.size()) return text.find(part, from);
  // glibc's memmem takes linear time.
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (!found) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t find_last(std::string_view text, std::string_view part) {
  if (part.size() <= kShortPart) return text.rfind(part);
  const size_t found = find_first(reversed(text), reversed(part));
  return found == std::string_view::npos ? found : text.size() - found - part.size();
}

size_t byte_of(const Str& text, size_t index) {
  if (text.ascii()) return std::min(index, text.text.size());
  size_t at = 0;
  for (; index > 0 && at < text.text.size(); --index) at += utf8_length(text.text[at]);
  return at;
}

size_t code_points_before(const Str& text, size_t byte) {
  if (text.ascii()) return byte;
  size_t n = 0;
  for (size_t at = 0; at < byte; at += utf8_length(text.text[at])) ++n;
  return n;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> all;
  for (size_t at = 0; at < text.size(); at += all.back().size())
    all.push_back(text.substr(at, utf8_length(text[at])));
  return all;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = code_point_at(text, at);
    size_t next = at + utf8_length(text[at]);
    if (is_line_end(c)) {
      if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::vector<std::string_view> split(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (size_t at = skip_spaces(text, 0); at < text.size();) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      parts.push_back(text.substr(at));
      break;
    }
    const size_t end = skip_word(text, at);
    parts.push_back(text.substr(at, end - at));
    at = skip_spaces(text, end);
  }
  return parts;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> parts;
  size_t at = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = find_first(text, separator, at);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(at, found - at));
    at = found + separator.size();
  }
  parts.push_back(text.substr(at));
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::right);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0 && !is_space(code_point_at(text, utf8_previous(text, begin))))
      begin = utf8_previous(text, begin);
    parts.push_back(text.substr(begin));
    text = strip(text.substr(0, begin), Side::right);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit) {
  const std::string backwards = reversed(text);
  std::vector<std::string_view> parts = split(backwards, reversed(separator), limit);
  for (std::string_view& part : parts) {
    const auto begin = static_cast<size_t>(part.data() - backwards.data());
    part = text.substr(text.size() - begin - part.size(), part.size());
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

size_t count(const Str& text, std::string_view part) {
  if (part.empty()) return text.length + 1;
  size_t n = 0;
  for (size_t at = 0; (at = find_first(text.text, part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

std::string replace(Heap& heap, const Str& text, std::string_view old, std::string_view with, int64_t limit) {
  heap.work(text.text.size() + old.size());
  Buffer out(heap);
  int64_t done = 0;
  const auto more = [&] { return limit < 0 || done < limit; };
  if (old.empty()) {
    for (const std::string_view c : code_points(text.text)) {
      if (more()) out.append(with), ++done;
      out.append(c);
    }
    if (more()) out.append(with);
    return out.take();
  }
  const std::string_view source = text.text;
  size_t at = 0;
  for (; more(); ++done) {
    const size_t found = find_first(source, old, at);
    if (found == std::string_view::npos) break;
    out.append(source.substr(at, found - at));
    out.append(with);
    at = found + old.size();
  }
  out.append(source.substr(at));
  return out.take();
}

std::string centered(Heap& heap, const Str& text, int64_t width, std::string_view fill, Padding padding) {
  const int64_t missing = width - static_cast<int64_t>(text.length);
  if (missing <= 0) return text.text;
  heap.check_text(static_cast<uint64_t>(missing));
  heap.check_text(static_cast<uint64_t>(missing) * fill.size() + text.text.size());
  const int64_t around = missing / 2 + (missing & width & 1);
  const int64_t before = padding == Padding::before ? missing : padding == Padding::after ? 0 : around;
  std::string out;
  for (int64_t i = 0; i < before; ++i) out += fill;
  out += text.text;
  for (int64_t i = before; i < missing; ++i) out += fill;
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

std::string quote(std::string_view text) {
  const bool single = text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for (const std::string_view part : code_points(text)) {
    const char32_t c = code_point_at(part, 0);
    if (c == static_cast<char32_t>(quote) || c == '\\')
      out.append("\\").append(part);
    else if (c == '\n' || c == '\r' || c == '\t')
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    else if (is_printable(c))
      out += part;
    else if (c < 0x100)
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<uint32_t>(c));
    else if (c < 0x10000)
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<uint32_t>(c));
    else
      fmt::format_to(std::back_inserter(out), "\\U{:08x}", static_cast<uint32_t>(c));
  }
  return out + quote;
}

std::string url_quote(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !query);
    if (plain)
      out += c;
    else if (c == ' ' && query)
      out += '+';
    else
      fmt::format_to(std::back_inserter(out), "%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::optional<int64_t> parse_integer(std::string_view source, int base) {
  std::string digits = ascii_digits(source);
  std::string_view text = digits;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const int prefix = base_of_prefix(text);
  bool after_prefix = false;
  if (prefix != 0 && (base == 0 || base == prefix)) {
    text.remove_prefix(2);
    after_prefix = true;
    base = prefix;
  } else if (base == 0) {
    base = 10;
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos)
      return std::nullopt;
  }
  if (after_prefix && text.starts_with('_')) text.remove_prefix(1);
  const auto number = without_underscores(text, [](char c) { return c != '_'; });
  if (!number || number->empty() || number->front() == '-') return std::nullopt;
  uint64_t value = 0;
  const char* end = number->data() + number->size();
  const auto [rest, status] = std::from_chars(number->data(), end, value, base);
  if (rest != end) return std::nullopt;
  const uint64_t most = uint64_t{1} << 63;
  if (status == std::errc::result_out_of_range || value > most || (value == most && !negative))
    raise("the integer {} does not fit in 64 bits", *number);
  return static_cast<int64_t>(negative ? 0 - value : value);
}

std::optional<double> parse_real(std::string_view source) {
  const auto digits = without_underscores(ascii_digits(source), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits) return std::nullopt;
  std::string_view text = *digits;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.front() == '-' || text.find('(') != std::string_view::npos) return std::nullopt;
  double value = 0;
  const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (rest != text.data() + text.size()) return std::nullopt;
  // Out of range: from_chars leaves the value alone, strtod says which way.
  if (status == std::errc::result_out_of_range) value = std::strtod(std::string(text).c_str(), nullptr);
  return negative ? -value : value;
}

}  // namespace nibble::text::jinja
