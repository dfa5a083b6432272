// Regular expressions as tokenizer.json has them, rewritten for ICU.
#pragma once

#include <string>
#include <string_view>

namespace nibble::text {

/// A pattern in Oniguruma's syntax (6.9.10, the engine of the reference, default syntax) as a pattern for ICU
/// without any flags that finds the same matches. Every class and every literal is written out as code
/// points, so that neither ICU's Unicode version nor its notion of \s, \w, case or line ends matters.
///
/// Taken: literals and escapes, classes with ranges, nesting and &&, \s \S \d \D \w \W \h \H \p{..} \P{..},
/// `.`, groups of every kind, look-around, alternatives, all quantifiers, ^ $ \A \z \Z \b \B, the options i
/// and m. Throws Error beginning with `what` for a wrong pattern and, by name, for anything else.
std::string icu_pattern(std::string_view pattern, std::string_view what);

/// A pattern for ICU that matches the text and nothing else.
std::string icu_literal(std::string_view text);

}  // namespace nibble::text
