#include "text/jinja/number_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>

#include "base/text.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

constexpr int64_t kMostPrecision = 10'000;

bool is_align(std::string_view c) {
  return c == "<" || c == ">" || c == "^" || c == "=";
}

int64_t parse_count(std::string_view text, size_t& at) {
  int64_t value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at)
    if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
        __builtin_add_overflow(value, text[at] - '0', &value))
      raise("too many decimal digits in format string");
  return value;
}

std::string upper_ascii(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  return text;
}

/// Digits with a separator every so many from the right, with zeros before them until they are `width` wide.
std::string grouped(std::string digits, char separator, size_t every, size_t width) {
  const auto spread = [&] {
    std::string out;
    for (size_t i = 0; i < digits.size(); ++i) {
      if (i > 0 && (digits.size() - i) % every == 0) out += separator;
      out += digits[i];
    }
    return out;
  };
  std::string out = spread();
  while (out.size() < width) {
    digits.insert(digits.begin(), '0');
    out = spread();
  }
  return out;
}

std::string sign_text(bool negative, char sign) {
  if (negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

/// Puts a number's sign or prefix, its whole digits and the rest together and fills it up to the width.
std::string pad_number(Heap& heap, const std::string& prefix, std::string whole, const std::string& rest,
                       const FormatSpec& spec, size_t group) {
  heap.check_text(static_cast<uint64_t>(spec.width) * spec.fill.size());
  const size_t width = static_cast<size_t>(spec.width);
  const size_t outside = prefix.size() + rest.size();
  if (spec.grouping != '\0') {
    const bool zeros = spec.fill == "0" && spec.align == '=' && width > outside;
    if (zeros && width > kMostPrecision) raise("a width of {} with grouping is not supported", width);
    whole = grouped(whole, spec.grouping, group, zeros ? width - outside : 0);
  }
  const size_t length = outside + whole.size();
  const size_t missing = width > length ? width - length : 0;
  const size_t before = spec.align == '<' ? 0 : spec.align == '^' ? missing / 2 : missing;
  std::string fill_before, fill_after;
  for (size_t i = 0; i < before; ++i) fill_before += spec.fill;
  for (size_t i = before; i < missing; ++i) fill_after += spec.fill;
  if (spec.align == '=') return prefix + fill_before + whole + rest;
  return fill_before + prefix + whole + rest + fill_after;
}

/// %g that keeps its point and zeros.
std::string full_general(double magnitude, int digits) {
  const std::string scientific = fmt::format("{:#.{}e}", magnitude, digits - 1);
  const int exponent = std::stoi(scientific.substr(scientific.find('e') + 1));
  if (exponent < -4 || exponent >= digits) return scientific;
  return fmt::format("{:#.{}f}", magnitude, digits - 1 - exponent);
}

}  // namespace

FormatSpec parse_format_spec(std::string_view text) {
  FormatSpec spec;
  const auto parts = code_points(text.substr(0, std::min<size_t>(text.size(), 8)));
  size_t at = 0;
  if (parts.size() > 1 && is_align(parts[1])) {
    spec.fill = parts[0];
    spec.align = parts[1][0];
    at = parts[0].size() + 1;
  } else if (!parts.empty() && is_align(parts[0])) {
    spec.align = parts[0][0];
    at = 1;
  }
  const auto skip = [&](char c) { return at < text.size() && text[at] == c && ++at; };
  const bool filled = at > 1;
  if (at < text.size() && (text[at] == '+' || text[at] == '-' || text[at] == ' ')) spec.sign = text[at++];
  spec.alternate = skip('#');
  if (skip('0')) {
    if (!filled) spec.fill = "0";
    if (spec.align == '\0') spec.align = '=';
  }
  spec.width = parse_count(text, at);
  for (const char c : {',', '_'})
    if (skip(c)) spec.grouping = c;
  if (skip('.')) {
    const size_t digits = at;
    spec.precision = parse_count(text, at);
    if (at == digits) raise("Format specifier missing precision");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) raise("Invalid format specifier '{}'", printable(text));
  return spec;
}

std::string format_integer(Heap& heap, int64_t value, const FormatSpec& spec) {
  const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  int base = 10;
  switch (spec.type) {
    case 'b':
      base = 2;
      break;
    case 'o':
      base = 8;
      break;
    case 'x':
    case 'X':
      base = 16;
      break;
    case '\0':
    case 'd':
    case 'n':
      break;
    case 'c': {
      if (value < 0 || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        raise("%c arg not in range of characters");
      std::string c;
      append_utf8(c, static_cast<char32_t>(value));
      return format_string(heap, c, {spec.fill, spec.align, '-', false, spec.width, '\0', -1, '\0'});
    }
    default:
      return format_real(heap, static_cast<double>(value), spec);
  }
  if (spec.precision >= 0) raise("Precision not allowed in integer format specifier");
  if (spec.grouping == ',' && base != 10) raise("Cannot specify ',' with '{}'.", spec.type);
  std::array<char, 64> digits;
  const auto [end, status] = std::to_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  std::string whole(digits.data(), end);
  std::string prefix = sign_text(value < 0, spec.sign);
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  if (spec.type == 'X') whole = upper_ascii(whole);
  return pad_number(heap, prefix, std::move(whole), "", spec, base == 10 ? 3 : 4);
}

std::string format_real(Heap& heap, double value, const FormatSpec& spec) {
  const char type = static_cast<char>(spec.type | 0x20);
  if (spec.precision > kMostPrecision) raise("a precision above {} is not supported", kMostPrecision);
  if (spec.type != '\0' && spec.type != '%' && std::string_view("efgn").find(type) == std::string_view::npos)
    raise("Unknown format code '{}' for object of type 'float'", spec.type);
  const double magnitude = std::fabs(spec.type == '%' ? value * 100 : value);
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  std::string text;
  if (!std::isfinite(magnitude))
    text = std::isnan(magnitude) ? "nan" : "inf";
  else if (type == 'e')
    text = spec.alternate ? fmt::format("{:#.{}e}", magnitude, precision)
                          : fmt::format("{:.{}e}", magnitude, precision);
  else if (type == 'f' || spec.type == '%')
    text = spec.alternate ? fmt::format("{:#.{}f}", magnitude, precision)
                          : fmt::format("{:.{}f}", magnitude, precision);
  else if (spec.type == '\0' && spec.precision < 0)
    text = python_repr(magnitude);
  else
    text = spec.alternate ? full_general(magnitude, std::max(precision, 1))
                          : fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
  if (spec.type == '\0' && std::isfinite(magnitude) && text.find_first_of(".e") == std::string::npos)
    text += ".0";
  if (spec.type == 'E' || spec.type == 'F' || spec.type == 'G') text = upper_ascii(text);
  if (spec.type == '%') text += '%';
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  return pad_number(heap, sign_text(std::signbit(value) && !std::isnan(value), spec.sign),
                    text.substr(0, digits), text.substr(digits), spec, 3);
}

std::string format_string(Heap& heap, std::string_view value, const FormatSpec& spec) {
  if (spec.type != '\0' && spec.type != 's')
    raise("Unknown format code '{}' for object of type 'str'", spec.type);
  if (spec.sign != '-') raise("Sign not allowed in string format specifier");
  if (spec.alternate) raise("Alternate form (#) not allowed in string format specifier");
  if (spec.grouping != '\0') raise("Cannot specify '{}' with 's'.", spec.grouping);
  if (spec.align == '=' && spec.fill != "0") raise("'=' alignment not allowed in string format specifier");
  heap.check_text(static_cast<uint64_t>(spec.width) * spec.fill.size() + value.size());
  const auto parts = code_points(value);
  size_t length = parts.size();
  if (spec.precision >= 0) length = std::min(length, static_cast<size_t>(spec.precision));
  std::string text;
  for (size_t i = 0; i < length; ++i) text += parts[i];
  const auto width = static_cast<size_t>(spec.width);
  const size_t missing = width > length ? width - length : 0;
  const size_t before = spec.align == '>' ? missing : spec.align == '^' ? missing / 2 : 0;
  std::string out;
  for (size_t i = 0; i < before; ++i) out += spec.fill;
  out += text;
  for (size_t i = before; i < missing; ++i) out += spec.fill;
  return out;
}

std::string format_value(Evaluator& ev, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return str(ev.heap(), value);
  if (!value.is_string() && !is_number(value))
    raise("unsupported format string passed to {}.__format__", type_name(value));
  FormatSpec spec = parse_format_spec(spec_text);
  if (value.is_string()) return format_string(ev.heap(), value.text(), spec);
  if (spec.align == '\0') spec.align = '>';
  if (value.is(Kind::real)) return format_real(ev.heap(), value.real(), spec);
  return format_integer(ev.heap(), *as_integer(value), spec);
}

std::string to_ascii(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const auto c = static_cast<uint32_t>(code_point_at(text, at));
    if (c < 0x80)
      out += static_cast<char>(c);
    else if (c < 0x100)
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
    else if (c < 0x10000)
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
    else
      fmt::format_to(std::back_inserter(out), "\\U{:08x}", c);
  }
  return out;
}

}  // namespace nibble::text::jinja
