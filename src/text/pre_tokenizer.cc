#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/byte_level.h"
#include "text/oniguruma.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxStages = 64;  // each goes over the whole text

/// How ByteLevel splits with use_regex: the pattern of GPT-2.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The pattern of a Split, {"Regex": ..} or {"String": ..}, for ICU.
std::string read_pattern(const io::Fields& pattern) {
  const bool regex = pattern.has("Regex");
  if (regex == pattern.has("String")) fail("{} must have either a Regex or a String", pattern.what());
  if (!regex) return icu_literal(pattern.string("String"));
  return icu_pattern(pattern.string("Regex"), pattern.what());
}

}  // namespace

PreTokenizer::PreTokenizer(const io::Json& json, const std::string& what) {
  if (!json.is_null()) add(json, what, 0);
}

PreTokenizer::Behavior PreTokenizer::read_behavior(const io::Fields& fields) {
  const std::string name = fields.string("behavior");
  constexpr std::pair<std::string_view, Behavior> kNames[] = {
      {"Removed", Behavior::removed},
      {"Isolated", Behavior::isolated},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous},
  };
  for (const auto& [known, behavior] : kNames)
    if (name == known) return behavior;
  fail("{}: the behavior {} is none of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
       fields.what(), printable(name, 40));
}

void PreTokenizer::add(const io::Json& json, const std::string& what, int depth) {
  const io::Fields fields(json, what);
  const std::string type = fields.string("type");
  Stage stage;
  if (type == "Sequence") {
    if (depth >= kMaxDepth) fail("{}: is nested deeper than {} levels", what, kMaxDepth);
    const io::Json& parts = fields.array("pretokenizers");
    for (size_t i = 0; i < parts.size(); ++i)
      add(parts[i], fmt::format("{}.pretokenizers[{}]", what, i), depth + 1);
    return;
  }
  if (type == "Split") {
    stage.behavior = read_behavior(fields);
    stage.invert = fields.boolean("invert");
    stage.regex.emplace(read_pattern(fields.object("pattern")), what);
  } else if (type == "ByteLevel") {
    // Each doubles what is no ASCII letter.
    if (std::any_of(stages_.begin(), stages_.end(), [](const Stage& s) { return s.byte_level; }))
      fail("{}: a second ByteLevel is not supported", what);
    stage.byte_level = true;
    stage.prefix_space = fields.boolean("add_prefix_space");
    if (fields.boolean("use_regex", true)) stage.regex.emplace(icu_pattern(kByteLevelPattern, what), what);
  } else if (type == "Digits") {
    stage.behavior = fields.boolean("individual_digits") ? Behavior::isolated : Behavior::contiguous;
    stage.regex.emplace(set_pattern(digit_set()), what);
  } else if (type == "Punctuation") {
    if (fields.has("behavior")) stage.behavior = read_behavior(fields);
    stage.regex.emplace(set_pattern(punctuation_set()), what);
  } else {
    fail(
        "{}: pre-tokenizers of type {} are not supported, only Split, ByteLevel, Digits, Punctuation and "
        "Sequence",
        what, printable(type, 40));
  }
  if (stages_.size() == kMaxStages)
    fail("{}: more than {} pre-tokenizers are not supported", what, kMaxStages);
  stages_.push_back(std::move(stage));
}

void PreTokenizer::cut(std::string_view text, const Stage& stage, const std::vector<Span>& spans,
                       std::vector<std::string_view>& words) {
  std::vector<Span> kept;
  kept.reserve(spans.size());
  // The first match has no match before it, and the last none after it.
  bool previous = false;
  const auto join = [&](const Span& span, bool joins, bool backwards) {
    if (!joins || kept.empty())
      kept.push_back(span);
    else if (backwards)
      kept.back().begin = span.begin;
    else
      kept.back().end = span.end;
    previous = span.match != stage.invert;
  };
  if (stage.behavior == Behavior::merged_with_next) {
    for (auto it = spans.rbegin(); it != spans.rend(); ++it)
      join(*it, it->match != stage.invert && !previous, true);
    std::reverse(kept.begin(), kept.end());
  } else {
    for (const Span& span : spans) {
      const bool match = span.match != stage.invert;
      if (stage.behavior == Behavior::removed && match) continue;
      const bool joins = stage.behavior == Behavior::contiguous             ? match == previous
                         : stage.behavior == Behavior::merged_with_previous ? match && !previous
                                                                            : false;
      join(span, joins, false);
    }
  }
  for (const Span& span : kept)
    if (span.begin < span.end) words.push_back(text.substr(span.begin, span.end - span.begin));
}

PreTokenizer::Splitter::Splitter(const PreTokenizer& pre_tokenizer) : pre_tokenizer_(pre_tokenizer) {
  for (const Stage& stage : pre_tokenizer.stages_)
    if (stage.regex) finders_.emplace_back(*stage.regex);
}

const std::vector<std::string_view>& PreTokenizer::Splitter::words(std::string_view text) {
  texts_.clear();
  words_.assign(text.empty() ? 0 : 1, text);
  auto finder = finders_.begin();
  for (const Stage& stage : pre_tokenizer_.stages_) {
    if (stage.prefix_space)
      for (std::string_view& word : words_)
        if (!word.starts_with(' ')) word = texts_.emplace_back(1, ' ').append(word);
    if (stage.regex) {
      next_.clear();
      for (const std::string_view word : words_) cut(word, stage, finder->spans(word), next_);
      words_.swap(next_);
      ++finder;
    }
    if (stage.byte_level) {
      // One buffer for all words: it has room for them (a byte becomes at most two), so that views into it
      // hold.
      size_t bytes = 0;
      for (const std::string_view word : words_) bytes += word.size();
      std::string& mapped = texts_.emplace_back();
      mapped.reserve(2 * bytes);
      for (std::string_view& word : words_) {
        const size_t begin = mapped.size();
        append_byte_level(mapped, word);
        word = std::string_view(mapped).substr(begin);
      }
    }
  }
  return words_;
}

}  // namespace nibble::text
