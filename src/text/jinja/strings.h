// Python's operations on strings, for valid UTF-8. Positions are bytes unless a name says code points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

bool valid_utf8(std::string_view text);

/// Python's str.isspace of one code point, which is also \s of its regular expressions.
bool is_space(char32_t c);
/// Python's str.isprintable of one code point.
bool is_printable(char32_t c);
/// \w of Python's regular expressions.
bool is_word(char32_t c);
/// The value of a decimal digit of any script, or -1.
int digit_value(char32_t c);
/// Python's str.isidentifier.
bool is_identifier(std::string_view text);

/// Which ends strip takes from.
enum class Side { left, right, both };
/// Without white space, or the code points of `chars`, at its ends.
std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> chars = std::nullopt);

/// The byte at which code point `index` begins; the end of the text for the first index behind it.
size_t byte_of(const Str& text, size_t index);
/// Code points before a byte.
size_t code_points_before(const Str& text, size_t byte);
std::vector<std::string_view> code_points(std::string_view text);

// Case, with the full mappings of Unicode and no locale, as Python's methods of these names.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string swapcase(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);

/// Python's str.isalpha and its like, by name: "isalpha", "isupper"; every name of kStringTests.
bool string_test(std::string_view name, std::string_view text);

/// Lines at Python's line ends: \n, \r\n, \r, \v, \f, \x1c to \x1e, U+0085, U+2028, U+2029.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
/// Words between white space (no separator), at most `limit` splits where that is not negative.
std::vector<std::string_view> split(std::string_view text, int64_t limit);
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit);
/// The same from the right.
std::vector<std::string_view> split_right(std::string_view text, int64_t limit);
std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit);

/// Where `part` is first at or after `from`, or last; npos where it is not. In linear time.
size_t find_first(std::string_view text, std::string_view part, size_t from = 0);
size_t find_last(std::string_view text, std::string_view part);

/// How often `part` is in the text without overlap; one more than code points for an empty part.
size_t count(const Str& text, std::string_view part);

/// At most `limit` occurrences of `old` replaced, all where that is negative; an empty one stands between all
/// code points.
std::string replace(Heap& heap, const Str& text, std::string_view old, std::string_view with, int64_t limit);

enum class Padding { before, around, after };
/// Filled up to a width in code points. Around: the odd one stands where Python's center puts it.
std::string centered(Heap& heap, const Str& text, int64_t width, std::string_view fill, Padding padding);

/// With &, <, >, " and ' as entities.
std::string escape_html(std::string_view text);
/// Python's repr of a string: in quotes, with escapes for what cannot be printed.
std::string quote(std::string_view text);
/// Percent-encoded UTF-8; slashes stay and spaces are %20, or for a query slashes too are encoded and spaces
/// are +.
std::string url_quote(std::string_view text, bool query);

/// Python's int() of a text in a base of 2 to 36, or 0 for what its prefix says. Nothing where Python raises
/// ValueError; throws Failure where the number does not fit in 64 bits.
std::optional<int64_t> parse_integer(std::string_view text, int base);
/// Python's float() of a text; nothing where it raises ValueError.
std::optional<double> parse_real(std::string_view text);

}  // namespace nibble::text::jinja
