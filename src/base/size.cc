#include "base/size.h"

#include <array>
#include <string>
#include <utility>

namespace nibble {
namespace {

constexpr std::array<std::pair<std::string_view, int64_t>, 9> kUnits = {{{"b", 1},
                                                                         {"kib", int64_t{1} << 10},
                                                                         {"mib", int64_t{1} << 20},
                                                                         {"gib", int64_t{1} << 30},
                                                                         {"tib", int64_t{1} << 40},
                                                                         {"kb", 1'000},
                                                                         {"mb", 1'000'000},
                                                                         {"gb", 1'000'000'000},
                                                                         {"tb", 1'000'000'000'000}}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

std::optional<Decimal> take_decimal(std::string_view& text) {
  const auto end_of_digits = [&text](size_t from) {
    while (from < text.size() && is_digit(text[from])) ++from;
    return from;
  };
  const size_t whole_end = end_of_digits(0);
  if (whole_end == 0) return std::nullopt;
  std::string_view whole = text.substr(0, whole_end), fraction;
  size_t end = whole_end;
  if (end < text.size() && text[end] == '.') {
    end = end_of_digits(whole_end + 1);
    if (end == whole_end + 1) return std::nullopt;
    fraction = text.substr(whole_end + 1, end - whole_end - 1);
  }
  text.remove_prefix(end);
  whole.remove_prefix(std::min(whole.find_first_not_of('0'), whole.size()));
  fraction.remove_suffix(fraction.size() - (fraction.find_last_not_of('0') + 1));
  if (whole.size() + fraction.size() > 18) return std::nullopt;
  Decimal decimal;
  for (const char c : whole) decimal.digits = decimal.digits * 10 + static_cast<Wide>(c - '0');
  for (const char c : fraction) {
    decimal.digits = decimal.digits * 10 + static_cast<Wide>(c - '0');
    decimal.scale *= 10;
  }
  return decimal;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<int64_t> bytes_of_unit(std::string_view unit) {
  std::string lower(unit);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  for (const auto& [name, bytes] : kUnits)
    if (name == lower) return bytes;
  return std::nullopt;
}

std::optional<int64_t> parse_size(std::string_view text) {
  std::string_view rest = trim(text);
  const auto number = take_decimal(rest);
  rest = trim(rest);
  const auto unit = rest.empty() ? std::optional<int64_t>(1) : bytes_of_unit(rest);
  if (!number || !unit) return std::nullopt;
  const Wide bytes = static_cast<Wide>(*unit) * number->digits / number->scale;
  if (bytes == 0 || bytes > static_cast<Wide>(int64_t{1} << 62)) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

}  // namespace nibble
