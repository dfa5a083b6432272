// Sets of code points as the reference's engines have them, whatever the Unicode version of the ICU in use.
#pragma once

#include <unicode/uniset.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

/// Code points of a property in Unicode 16.0, the version of the reference's regular expressions: a general
/// category ("L", "Lu", "Uppercase_Letter") or a script ("Han", "Hira"). Case, spaces, '-' and '_' in the
/// name do not matter. Nothing for a name that is neither. Thread-safe.
std::optional<icu::UnicodeSet> property_set(std::string_view name);

/// \s of the regular expressions, and what lstrip and rstrip of added tokens take for a space. Thread-safe.
const icu::UnicodeSet& space_set();

/// \w of the regular expressions, where it stands inside of a class. Thread-safe.
const icu::UnicodeSet& class_word_set();

/// \w of the regular expressions elsewhere, and what \b is about: Oniguruma takes its superscript digits and
/// fractions from Latin-1 there. Thread-safe.
const icu::UnicodeSet& word_set();

/// What single_word of added tokens takes for a part of a word: \w of UTS 18. Thread-safe.
const icu::UnicodeSet& added_token_word_set();

/// What the Digits pre-tokenizer takes for a digit: the numbers of Unicode 17.0. Thread-safe.
const icu::UnicodeSet& digit_set();

/// What the Punctuation pre-tokenizer splits at: ASCII punctuation and P of Unicode 8.0. Thread-safe.
const icu::UnicodeSet& punctuation_set();

/// Code points that Unicode 9.0, the version of the reference's normalizers, had assigned. Thread-safe.
const icu::UnicodeSet& normalizable_set();

/// Every code point equal to one of the set's but for case, by simple folding; nothing when a sequence of
/// several code points is equal to one of them, too ("ss" and the sharp s).
std::optional<icu::UnicodeSet> case_closure(const icu::UnicodeSet& set);

/// True where a text of several code points is equal to a single one but for case: "ss", "fi".
bool folds_to_one(const icu::UnicodeString& text);

/// The set in the syntax of ICU's regular expressions, naming code points only: "[\x{30}-\x{39}]".
std::string set_pattern(const icu::UnicodeSet& set);

}  // namespace nibble::text
