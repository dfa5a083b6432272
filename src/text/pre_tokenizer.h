// The pre_tokenizer part of tokenizer.json: how a text is split into words.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "text/split_regex.h"

namespace nibble::text {

/// Split, ByteLevel, Digits, Punctuation, or a Sequence of them. Immutable, hence thread-safe.
class PreTokenizer {
 public:
  /// `json` may be null: then a text is one word. Throws Error naming `what` and the part that is not
  /// supported.
  PreTokenizer(const io::Json& json, const std::string& what);

  /// Splits one text into words at a time. Holds what the searches need; not thread-safe; must not outlive
  /// the pre-tokenizer.
  class Splitter {
   public:
    explicit Splitter(const PreTokenizer& pre_tokenizer);
    /// The words of a text, which is valid UTF-8; they hold until the next call.
    const std::vector<std::string_view>& words(std::string_view text);

   private:
    const PreTokenizer& pre_tokenizer_;
    std::deque<Finder> finders_;  // one for each stage that has a pattern
    std::deque<std::string> texts_;
    std::vector<std::string_view> words_, next_;
  };

 private:
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Stage {
    std::optional<SplitRegex> regex;
    Behavior behavior = Behavior::isolated;
    bool invert = false;
    bool prefix_space = false;
    bool byte_level = false;
  };

  void add(const io::Json& json, const std::string& what, int depth);
  static Behavior read_behavior(const io::Fields& fields);
  static void cut(std::string_view text, const Stage& stage, const std::vector<Span>& spans,
                  std::vector<std::string_view>& words);

  std::vector<Stage> stages_;
};

}  // namespace nibble::text
