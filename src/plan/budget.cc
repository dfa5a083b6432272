#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "plan/plan.h"

namespace nibble::plan {
namespace {

__extension__ using Wide = unsigned __int128;

/// A decimal number as digits / 10^decimals, exactly as written.
struct Decimal {
  Wide digits = 0;  // below 10^18
  Wide scale = 1;   // 10^decimals, at most 10^18
};

enum class Unit { percent, bytes, bits_per_weight };

struct UnitName {
  std::string_view name;  // in lower case
  Unit unit;
  int64_t bytes;  // of one, for Unit::bytes
};

constexpr std::array<UnitName, 9> kUnits = {{{"%", Unit::percent, 0},
                                             {"bpw", Unit::bits_per_weight, 0},
                                             {"b", Unit::bytes, 1},
                                             {"kib", Unit::bytes, int64_t{1} << 10},
                                             {"mib", Unit::bytes, int64_t{1} << 20},
                                             {"gib", Unit::bytes, int64_t{1} << 30},
                                             {"kb", Unit::bytes, 1'000},
                                             {"mb", Unit::bytes, 1'000'000},
                                             {"gb", Unit::bytes, 1'000'000'000}}};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// The digits with an optional fraction at the start of the text, which is cut off; nothing when the text
/// does not start so or has more than 18 digits that count.
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

const UnitName* find_unit(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  for (const auto& unit : kUnits)
    if (unit.name == lower) return &unit;
  return nullptr;
}

std::string exact_bytes(int64_t bytes) {
  return bytes < 1024 ? bytes_text(bytes) : fmt::format("{} ({} bytes)", bytes_text(bytes), bytes);
}

}  // namespace

int64_t parse_budget(std::string_view budget, const records::Inventory& inventory) {
  std::string_view rest = trim(budget);
  const auto number = take_decimal(rest);
  const UnitName* unit = number ? find_unit(trim(rest)) : nullptr;
  if (unit == nullptr)
    fail(
        "budget \"{}\": expected a share over all-4-bit (10%), a size (1.81GiB; also MiB, KiB, GB, MB, KB, "
        "B) "
        "or bits per weight (4.6bpw), of at most 18 digits",
        printable(budget));

  // Every product is below 2^62 * 10^18 < 2^122.
  const int64_t all4 = inventory.bytes_all4();
  Wide limit = 0;
  switch (unit->unit) {
    case Unit::percent:
      limit = static_cast<Wide>(all4) + static_cast<Wide>(all4) * number->digits / (100 * number->scale);
      break;
    case Unit::bytes:
      limit = static_cast<Wide>(unit->bytes) * number->digits / number->scale;
      break;
    case Unit::bits_per_weight:
      limit = static_cast<Wide>(inventory.parameters) * number->digits / (8 * number->scale);
      break;
  }
  const auto bytes =
      static_cast<int64_t>(std::min(limit, static_cast<Wide>(std::numeric_limits<int64_t>::max())));
  if (bytes < all4)
    fail("budget \"{}\": this model needs at least {} with every linear in 4 bits; the budget allows {}",
         budget, exact_bytes(all4), exact_bytes(bytes));
  return bytes;
}

}  // namespace nibble::plan
