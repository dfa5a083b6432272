// Decimal numbers and sizes as people write them: "0.5", "1.81GiB", "500 MB".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

/// Wide enough for the product of two 18-digit numbers.
__extension__ using Wide = unsigned __int128;

/// A decimal number as digits / scale, exactly as written.
struct Decimal {
  Wide digits = 0;  // below 10^18
  Wide scale = 1;   // 10^decimals, at most 10^18
};

/// Cuts digits with an optional fraction off the start of the text; nothing when the text does not start so
/// or has more than 18 digits that count.
std::optional<Decimal> take_decimal(std::string_view& text);

/// The text without spaces and tabs around it.
std::string_view trim(std::string_view text);

/// The bytes of one unit: B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, in any case; nothing for another text.
std::optional<int64_t> bytes_of_unit(std::string_view unit);

/// A size such as "4GiB", "0.5 MB" or "1000" (bytes), rounded down to whole bytes; nothing for a text that is
/// none, is below one byte or beyond 2^62.
std::optional<int64_t> parse_size(std::string_view text);

}  // namespace nibble
