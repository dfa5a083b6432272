// Case mappings and classes of characters, by ICU.
#include <unicode/casemap.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

icu::UnicodeString wide(std::string_view text) {
  return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string narrow(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

/// The title case of one code point, which may be several.
void append_title(std::string& out, std::string_view c) {
  const icu::UnicodeString source = wide(c);
  constexpr int32_t kRoom = 16;  // the longest mapping of one code point has three
  char16_t room[kRoom];
  UErrorCode status = U_ZERO_ERROR;
  const int32_t length = icu::CaseMap::toTitle(
      "", U_TITLECASE_WHOLE_STRING | U_TITLECASE_NO_BREAK_ADJUSTMENT | U_TITLECASE_NO_LOWERCASE, nullptr,
      source.getBuffer(), source.length(), room, kRoom, nullptr, status);
  NIBBLE_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
  icu::UnicodeString(room, length).toUTF8String(out);
}

bool has(char32_t c, UProperty property) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), property);
}

uint32_t category(char32_t c) {
  return U_GET_GC_MASK(static_cast<UChar32>(c));
}

bool is_title(char32_t c) {
  return (category(c) & U_GC_LT_MASK) != 0;
}

bool is_upper(char32_t c) {
  return has(c, UCHAR_UPPERCASE);
}

bool is_lower(char32_t c) {
  return has(c, UCHAR_LOWERCASE);
}

bool is_cased(char32_t c) {
  return has(c, UCHAR_CASED);
}

bool is_alpha(char32_t c) {
  return (category(c) & U_GC_L_MASK) != 0;
}

bool is_decimal(char32_t c) {
  return (category(c) & U_GC_ND_MASK) != 0;
}

int32_t numeric_type(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
}

bool is_digit(char32_t c) {
  return numeric_type(c) == U_NT_DECIMAL || numeric_type(c) == U_NT_DIGIT;
}

bool is_numeric(char32_t c) {
  return numeric_type(c) != U_NT_NONE;
}

bool is_alnum(char32_t c) {
  return is_alpha(c) || is_numeric(c);
}

/// The lower case of the code point at a place. That of a capital sigma is a final one at the end of a word:
/// Final_Sigma of the Unicode standard, section 3.13.
std::string lower_at(std::string_view text, size_t at) {
  const size_t next = at + utf8_length(text[at]);
  if (code_point_at(text, at) != U'\u03a3') return lower(text.substr(at, next - at));
  const auto ignorable = [&](size_t i) { return has(code_point_at(text, i), UCHAR_CASE_IGNORABLE); };
  size_t before = at;
  while (before > 0 && ignorable(utf8_previous(text, before))) before = utf8_previous(text, before);
  if (before == 0 || !is_cased(code_point_at(text, utf8_previous(text, before)))) return "\u03c3";
  size_t after = next;
  while (after < text.size() && ignorable(after)) after += utf8_length(text[after]);
  return after < text.size() && is_cased(code_point_at(text, after)) ? "\u03c3" : "\u03c2";
}

using ClassTest = bool (*)(char32_t);

/// True when the text is not empty and every code point passes.
bool all(std::string_view text, ClassTest test) {
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at]))
    if (!test(code_point_at(text, at))) return false;
  return !text.empty();
}

/// No code point of the other cases, and at least one of this.
bool one_case(std::string_view text, ClassTest wanted, ClassTest other) {
  bool any = false;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = code_point_at(text, at);
    if (other(c) || is_title(c)) return false;
    any |= wanted(c);
  }
  return any;
}

/// Words begin with an upper case letter and go on in lower case.
bool is_titled(std::string_view text) {
  bool any = false, after_cased = false;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = code_point_at(text, at);
    if (is_upper(c) || is_title(c)) {
      if (after_cased) return false;
      any = after_cased = true;
    } else if (is_lower(c)) {
      if (!after_cased) return false;
      any = true;
    } else {
      after_cased = false;
    }
  }
  return any;
}

}  // namespace

std::string upper(std::string_view text) {
  return narrow(wide(text).toUpper(icu::Locale::getRoot()));
}

std::string lower(std::string_view text) {
  return narrow(wide(text).toLower(icu::Locale::getRoot()));
}

std::string casefold(std::string_view text) {
  return narrow(wide(text).foldCase());
}

std::string swapcase(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = code_point_at(text, at);
    const size_t next = at + utf8_length(text[at]);
    if (is_upper(c))
      out += lower_at(text, at);
    else if (is_lower(c))
      out += upper(text.substr(at, next - at));
    else
      out += text.substr(at, next - at);
    at = next;
  }
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool after_cased = false;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    if (after_cased)
      out += lower_at(text, at);
    else
      append_title(out, text.substr(at, utf8_length(text[at])));
    after_cased = is_cased(code_point_at(text, at));
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    if (at > 0)
      out += lower_at(text, at);
    else
      append_title(out, text.substr(0, utf8_length(text[0])));
  }
  return out;
}

bool string_test(std::string_view name, std::string_view text) {
  if (name == "isalpha") return all(text, is_alpha);
  if (name == "isdecimal") return all(text, is_decimal);
  if (name == "isdigit") return all(text, is_digit);
  if (name == "isnumeric") return all(text, is_numeric);
  if (name == "isalnum") return all(text, is_alnum);
  if (name == "isspace") return all(text, is_space);
  if (name == "isprintable") return text.empty() || all(text, is_printable);
  if (name == "isidentifier") return is_identifier(text);
  if (name == "isascii") return is_ascii(text);
  if (name == "isupper") return one_case(text, is_upper, is_lower);
  if (name == "islower") return one_case(text, is_lower, is_upper);
  NIBBLE_CHECK(name == "istitle", "no test of strings is called {}", name);
  return is_titled(text);
}

}  // namespace nibble::text::jinja
