// Finds the matches of a pattern in a text.
#pragma once

#include <unicode/regex.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

/// A part of a text in bytes, and whether the pattern matched it.
struct Span {
  size_t begin, end;
  bool match;
};

/// A compiled pattern. Immutable: threads may share it, each with its own Finder.
class SplitRegex {
 public:
  /// A pattern in ICU's syntax, as made by icu_pattern() and its like. Throws Error beginning with `what`
  /// where ICU refuses it.
  SplitRegex(std::string_view icu_pattern, std::string what);

 private:
  friend class Finder;
  std::string what_;
  std::unique_ptr<icu::RegexPattern> pattern_;
};

/// The state of searches with one pattern. Not thread-safe; must not outlive the pattern.
class Finder {
 public:
  explicit Finder(const SplitRegex& regex);
  ~Finder();
  Finder(const Finder&) = delete;
  Finder& operator=(const Finder&) = delete;

  /// Matches of the pattern, leftmost first, and what lies between them, in order and without gaps; there may
  /// be empty matches. The text must be valid UTF-8 of less than 2^30 bytes and not empty. Throws Error when
  /// the pattern takes far more steps than a pattern that splits words ever would.
  const std::vector<Span>& spans(std::string_view text);

 private:
  static UBool U_CALLCONV count_steps(const void* finder, int32_t steps);
  bool find(int32_t from);

  const SplitRegex& regex_;
  std::unique_ptr<icu::RegexMatcher> matcher_;
  icu::UnicodeString utf16_;
  std::vector<Span> spans_;
  mutable int64_t steps_left_ = 0;  // ICU hands our callback a const pointer
};

}  // namespace nibble::text
