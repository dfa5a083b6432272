#include "text/unicode.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <iterator>
#include <set>

#include "base/error.h"

namespace nibble::text {
namespace {

using icu::UnicodeSet;
using icu::UnicodeString;

/// Code points that are classified since Unicode 14.0, or otherwise since.
struct Delta {
  char32_t first, last;
  const char* category;
  const char* script;
};

constexpr Delta kDelta[] = {
#include "text/unicode_delta.inc"
};

void check(UErrorCode status) {
  NIBBLE_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
}

UnicodeSet from_pattern(const char* pattern) {
  UErrorCode status = U_ZERO_ERROR;
  UnicodeSet set(UnicodeString::fromUTF8(pattern), status);
  check(status);
  return set;
}

const UnicodeSet& delta_set() {
  static const UnicodeSet set = [] {
    UnicodeSet all;
    for (const Delta& d : kDelta) all.add(d.first, d.last);
    all.freeze();
    return all;
  }();
  return set;
}

/// What ICU says about the code points that the table has nothing about.
UnicodeSet settled(UProperty property, int32_t value) {
  UErrorCode status = U_ZERO_ERROR;
  UnicodeSet set;
  set.applyIntPropertyValue(property, value, status);
  check(status);
  static const UnicodeSet old = from_pattern("[:age=14.0:]");
  set.retainAll(old);
  set.removeAll(delta_set());
  return set;
}

UnicodeSet category_set(int32_t mask) {
  const bool unassigned = (mask & U_GC_CN_MASK) != 0;
  UnicodeSet set = settled(UCHAR_GENERAL_CATEGORY_MASK, mask & ~U_GC_CN_MASK);
  for (const Delta& d : kDelta)
    if ((u_getPropertyValueEnum(UCHAR_GENERAL_CATEGORY_MASK, d.category) & mask) != 0)
      set.add(d.first, d.last);
  if (unassigned) {
    UnicodeSet assigned = category_set(0x3fffffff & ~U_GC_CN_MASK);
    set.addAll(assigned.complement());
  }
  return set;
}

UnicodeSet script_set(int32_t script) {
  UnicodeSet set = settled(UCHAR_SCRIPT, script);
  for (const Delta& d : kDelta)
    if (*d.script != '\0' && u_getPropertyValueEnum(UCHAR_SCRIPT, d.script) == script)
      set.add(d.first, d.last);
  return set;
}

UnicodeSet frozen(UnicodeSet set) {
  set.freeze();
  return set;
}

/// Letters, marks, digits and connectors, and what else is alphabetic.
UnicodeSet make_word_set() {
  UnicodeSet set = category_set(U_GC_L_MASK | U_GC_M_MASK | U_GC_ND_MASK | U_GC_NL_MASK | U_GC_PC_MASK);
  set.addAll(settled(UCHAR_ALPHABETIC, 1));
  return set;
}

}  // namespace

std::optional<UnicodeSet> property_set(std::string_view name) {
  const std::string text(name);
  const int32_t mask = u_getPropertyValueEnum(UCHAR_GENERAL_CATEGORY_MASK, text.c_str());
  if (mask != UCHAR_INVALID_CODE) return category_set(mask);
  const int32_t script = u_getPropertyValueEnum(UCHAR_SCRIPT, text.c_str());
  if (script != UCHAR_INVALID_CODE) return script_set(script);
  return std::nullopt;
}

const UnicodeSet& space_set() {
  static const UnicodeSet set = frozen(from_pattern("[[:White_Space:]&[:age=14.0:]]"));
  return set;
}

const UnicodeSet& class_word_set() {
  static const UnicodeSet set = frozen(make_word_set());
  return set;
}

const UnicodeSet& word_set() {
  static const UnicodeSet set =
      frozen(make_word_set().addAll(from_pattern("[\\u00B2\\u00B3\\u00B9\\u00BC-\\u00BE]")));
  return set;
}

const UnicodeSet& added_token_word_set() {
  static const UnicodeSet set = frozen(make_word_set().addAll(from_pattern("[\\u200C\\u200D]")));
  return set;
}

const UnicodeSet& digit_set() {
  // The two ranges came after 16.0.
  static const UnicodeSet set = frozen(category_set(U_GC_N_MASK).add(0x11DE0, 0x11DE9).add(0x16FF4, 0x16FF6));
  return set;
}

const UnicodeSet& punctuation_set() {
  // Two code points were moved out of P since.
  static const UnicodeSet set =
      frozen(from_pattern("[[[:P:]&[:age=8.0:]][!-/:-@\\[-`\\{-~]\\u166D\\U000111C9]"));
  return set;
}

const UnicodeSet& normalizable_set() {
  static const UnicodeSet set = frozen(from_pattern("[:age=9.0:]"));
  return set;
}

std::optional<UnicodeSet> case_closure(const UnicodeSet& set) {
  UnicodeSet closed(set);
  closed.closeOver(USET_CASE_INSENSITIVE);
  if (closed.hasStrings()) return std::nullopt;
  return closed;
}

bool folds_to_one(const UnicodeString& text) {
  // Foldings of single code points that are longer than one.
  static const std::set<UnicodeString> foldings = [] {
    std::set<UnicodeString> all;
    const UnicodeSet folding = from_pattern("[:Changes_When_Casefolded:]");
    for (int32_t i = 0; i < folding.size(); ++i) {
      UnicodeString folded(folding.charAt(i));
      folded.foldCase();
      if (folded.countChar32() > 1) all.insert(folded);
    }
    return all;
  }();
  UnicodeString folded(text);
  folded.foldCase();
  return foldings.contains(folded);
}

std::string set_pattern(const UnicodeSet& set) {
  if (set.getRangeCount() == 0) return "(?:(?!))";
  std::string pattern = "[";
  for (int32_t i = 0; i < set.getRangeCount(); ++i)
    fmt::format_to(std::back_inserter(pattern), "\\x{{{:x}}}-\\x{{{:x}}}", set.getRangeStart(i),
                   set.getRangeEnd(i));
  return pattern + "]";
}

}  // namespace nibble::text
