#include "text/jinja/number_filters.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {
namespace {

/// Python's float(): nothing where it raises TypeError or ValueError.
std::optional<double> to_real(const Value& value) {
  need_defined(value);
  if (value.is_string()) return parse_real(value.text());
  return as_real(value);
}

/// A float without its fraction; nothing for NaN, and too large ones are refused.
std::optional<int64_t> truncated(double value) {
  if (std::isnan(value)) return std::nullopt;
  if (std::isinf(value)) raise("cannot convert float infinity to integer");
  if (!(std::fabs(value) < 0x1p63)) raise("the integer part of {} does not fit in 64 bits", value);
  return static_cast<int64_t>(value);
}

/// Python's round(value, digits): correct, ties to even.
double round_real(double value, int64_t digits) {
  if (!std::isfinite(value)) return value;
  // Above, every double is a multiple of the last place; below, all are less than half of it.
  constexpr int64_t kMost = 323, kLeast = -309;
  if (digits > kMost) return value;
  if (digits < kLeast) return std::copysign(0.0, value);
  std::array<char, 1200> text;
  std::to_chars_result written{};
  if (digits >= 0) {
    written = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed,
                            static_cast<int>(digits));
  } else {
    // As many significant digits as stand before the last place.
    written = std::to_chars(text.data(), text.data() + text.size(), std::fabs(value),
                            std::chars_format::scientific);
    const std::string_view shown(text.data(), written.ptr);
    int exponent = 0;
    std::string_view tail = shown.substr(shown.find('e') + 1);
    if (tail.starts_with('+')) tail.remove_prefix(1);
    std::from_chars(tail.data(), tail.data() + tail.size(), exponent);
    const int64_t kept = exponent + 1 + digits;
    if (kept < 0) return std::copysign(0.0, value);
    if (kept == 0) {
      const double unit = std::pow(10.0, static_cast<double>(-digits));
      return std::copysign(std::fabs(value) > unit / 2 ? unit : 0.0, value);
    }
    written = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific,
                            static_cast<int>(kept - 1));
  }
  NIBBLE_CHECK(written.ec == std::errc(), "a double as text");
  double rounded = 0;
  std::from_chars(text.data(), written.ptr, rounded);
  if (std::isinf(rounded)) raise("rounded value too large to represent");
  return rounded;
}

int64_t round_integer(int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -19) return 0;
  __int128 unit = 1;
  for (int64_t i = digits; i < 0; ++i) unit *= 10;
  __int128 rest = value % unit;
  if (rest < 0) rest += unit;
  const __int128 low = value - rest;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (low / unit) % 2 != 0);
  const __int128 rounded = low + (up ? unit : 0);
  if (rounded != static_cast<int64_t>(rounded)) raise("an integer result does not fit in 64 bits");
  return static_cast<int64_t>(rounded);
}

}  // namespace

Value abs_filter(Evaluator&, const Value& value, Args& args) {
  Params("abs", args, {}, 0);
  if (value.is(Kind::real)) return std::fabs(value.real());
  const auto i = as_integer(value);
  if (!i) raise("bad operand type for abs(): '{}'", type_name(value));
  return *i < 0 ? sign(Operator::negate, *i) : Value(*i);
}

Value filesizeformat_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("filesizeformat", args, {"binary"}, 0);
  const auto bytes = to_real(value);
  if (!bytes) raise("filesizeformat() needs a number, not '{}'", type_name(value));
  const bool binary = p.boolean(ev, 0, false);
  const double base = binary ? 1024 : 1000;
  if (*bytes == 1) return ev.heap().string("1 Byte");
  if (*bytes < base) {
    const auto whole = truncated(*bytes);
    if (!whole) raise("cannot convert float NaN to integer");
    return ev.heap().string(fmt::format("{} Bytes", *whole));
  }
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0;; ++i) {
    unit *= base;
    if (*bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const std::string prefix =
        binary ? std::string(1, i == 0 ? 'K' : kPrefixes[i]) + "iB" : std::string(1, kPrefixes[i]) + "B";
    return ev.heap().string(fmt::format("{:.1f} {}", base * *bytes / unit, prefix));
  }
}

Value float_filter(Evaluator&, const Value& value, Args& args) {
  const Params p("float", args, {"default"}, 0);
  if (const auto real = to_real(value)) return *real;
  return p[0] ? *p[0] : Value(0.0);
}

Value int_filter(Evaluator&, const Value& value, Args& args) {
  const Params p("int", args, {"default", "base"}, 0);
  const Value fallback = p[0] ? *p[0] : Value(int64_t{0});
  need_defined(value);
  if (const auto i = as_integer(value)) return *i;
  if (value.is(Kind::real)) {
    const auto whole = truncated(value.real());
    return whole ? Value(*whole) : fallback;
  }
  if (!value.is_string()) return fallback;
  const auto base = p[1] ? as_integer(*p[1]) : 10;
  if (base && (*base == 0 || (*base >= 2 && *base <= 36)))
    if (const auto i = parse_integer(value.text(), static_cast<int>(*base))) return *i;
  const auto real = parse_real(value.text());
  if (!real || !std::isfinite(*real)) return fallback;
  return *truncated(*real);
}

Value round_filter(Evaluator&, const Value& value, Args& args) {
  const Params p("round", args, {"precision", "method"}, 0);
  const std::string method = p[1] && p[1]->is_string() ? p[1]->text() : p[1] ? "" : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    raise("method must be common, ceil or floor");
  if (!is_number(value)) {
    need_defined(value);
    raise("type {} doesn't define __round__ method", type_name(value));
  }
  const auto integer = as_integer(value);
  if (method == "common") {
    if (p[0] && p[0]->none()) {
      if (integer) return *integer;
      const auto whole = truncated(round_real(value.real(), 0));
      if (!whole) raise("cannot convert float NaN to integer");
      return *whole;
    }
    const int64_t digits = p.integer(0, 0);
    return integer ? Value(round_integer(*integer, digits)) : Value(round_real(value.real(), digits));
  }
  const auto precision = p[0] ? as_real(*p[0]) : 0.0;
  if (!precision) raise("round() needs a number as its precision, not '{}'", type_name(*p[0]));
  const double scale = std::pow(10.0, *precision);
  const double scaled = *as_real(value) * scale;
  if (!std::isfinite(scaled)) raise("cannot convert {} to an integer", scaled);
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

}  // namespace nibble::text::jinja
