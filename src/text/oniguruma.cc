#include "text/oniguruma.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

using icu::UnicodeSet;
using icu::UnicodeString;

constexpr size_t kMaxPattern = size_t{1} << 16;
constexpr size_t kMaxResult = size_t{1} << 24;
constexpr int kMaxDepth = 100;
constexpr int kMaxRepeat = 100000;

std::string escaped(char32_t c) {
  return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(c));
}

/// A quantifier for ICU, greedy or lazy; whether its repetitions as a whole may be left out, and whether they
/// are kept once they matched.
struct Repeat {
  std::string text;
  bool optional = false;
  bool possessive = false;
};

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view what) : pattern_(pattern), what_(what) {}

  std::string translate() {
    if (pattern_.size() > kMaxPattern) wrong("is longer than 65536 bytes");
    std::string result = alternatives({}, 0);
    if (!done()) wrong("has a ')' without its '('");
    return result;
  }

 private:
  struct Options {
    bool ignore_case = false;
    bool dot_all = false;
  };

  /// One thing that a quantifier may follow.
  struct Atom {
    std::string text;
    std::optional<char32_t> literal;  // the code point, where it is just that
    bool repeatable = true;
  };

  [[noreturn]] void wrong(std::string_view problem) const {
    fail("{}: the pattern \"{}\" {} (near byte {})", what_, printable(pattern_), printable(problem), at_);
  }

  bool done() const { return at_ >= pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }

  char32_t take_code_point(std::string_view where) {
    if (done()) wrong(fmt::format("ends inside {}", where));
    const char32_t c = code_point_at(pattern_, at_);
    at_ += utf8_length(pattern_[at_]);
    return c;
  }

  /// Everything up to the ')' of the group or the end.
  std::string alternatives(Options options, int depth) {
    if (depth > kMaxDepth) wrong("is nested too deep");
    std::string result = sequence(options, depth);
    while (take("|")) result.append("|").append(sequence(options, depth));
    if (result.size() > kMaxResult) wrong("is too large");
    return result;
  }

  std::string sequence(Options options, int depth) {
    std::string result;
    UnicodeString run;  // the literals just before, for foldings of several code points
    while (!done() && !next_is("|") && !next_is(")")) {
      if (take("(?#")) {
        while (take_code_point("a comment") != ')') continue;
        continue;
      }
      if (const auto changed = isolated_options(options)) {
        // They hold to the end of the group, alternatives included.
        return result + "(?:" + alternatives(*changed, depth + 1) + ")";
      }
      Atom atom = one(options, depth);
      const bool repeated = quantify(atom);
      result += atom.text;
      if (result.size() > kMaxResult) wrong("is too large");
      if (!options.ignore_case || !atom.literal) {
        run.remove();
        continue;
      }
      run.append(static_cast<UChar32>(*atom.literal));
      check_run(run);
      if (repeated) run.remove();
    }
    return result;
  }

  /// Refuses literals that, but for case, are equal to a text of another number of code points.
  void check_run(UnicodeString& run) const {
    if (run.countChar32() > 3) run.remove(0, run.moveIndex32(0, 1));
    for (int32_t i = 0; i < run.length(); i = run.moveIndex32(i, 1))
      if (folds_to_one(run.tempSubString(i)))
        wrong("ignores case where several characters are equal to one; that is not supported");
  }

  /// "(?i)", "(?m-i)" and the like; nothing (and nothing taken) for any other text.
  std::optional<Options> isolated_options(Options options) {
    const size_t begin = at_;
    if (take("(?") && read_options(options) && take(")")) return options;
    at_ = begin;
    return std::nullopt;
  }

  /// Reads letters of options; false when there is none.
  bool read_options(Options& options) {
    bool on = true;
    const size_t begin = at_;
    for (;; ++at_) {
      if (next_is("-"))
        on = false;
      else if (next_is("i"))
        options.ignore_case = on;
      else if (next_is("m"))
        options.dot_all = on;
      else
        return at_ > begin;
    }
  }

  Atom one(Options options, int depth) {
    if (take("(")) return group(options, depth);
    if (take("[")) return of_set(class_set(options, depth + 1));
    if (take("\\")) return escape(options);
    if (take(".")) {
      UnicodeSet any(0, 0x10ffff);
      if (!options.dot_all) any.remove('\n');
      return of_set(any);
    }
    // A line begins at the begin of the text and after a line feed that is not its last character.
    if (take("^")) return anchor("(?:\\A|(?<=\\x{a})(?!\\z))");
    if (take("$")) return anchor("(?:\\z|(?=\\x{a}))");
    if (quantifier()) wrong("has a quantifier after nothing");
    return of_literal(take_code_point("a literal"), options);
  }

  Atom group(Options options, int depth) {
    std::string open = "(?:";
    bool repeatable = true;
    for (const std::string_view kind : {"?=", "?!", "?<=", "?<!"})
      if (repeatable && take(kind)) {
        open = fmt::format("({}", kind);
        repeatable = false;
      }
    if (!repeatable || take("?:")) {
      // The options stay as they are.
    } else if (take("?>")) {
      open = "(?>";
    } else if (next_is("?<") || next_is("?'")) {
      const char end = pattern_[at_ + 1] == '<' ? '>' : '\'';
      at_ += 2;
      const char32_t first = take_code_point("the name of a group");
      if (first == static_cast<char32_t>(end) || (first >= '0' && first <= '9') || first == '-')
        wrong("has a group whose name is none");
      while (take_code_point("the name of a group") != static_cast<char32_t>(end)) continue;
    } else if (take("?")) {
      if (!read_options(options) || !take(":")) wrong("has a group of a kind that is not supported");
    }
    std::string text = open + alternatives(options, depth + 1) + ")";
    if (!take(")")) wrong("has a '(' without its ')'");
    return {.text = std::move(text), .literal = {}, .repeatable = repeatable};
  }

  Atom of_set(const UnicodeSet& set) const { return {.text = set_pattern(set), .literal = {}}; }

  Atom anchor(std::string text) const {
    return {.text = std::move(text), .literal = {}, .repeatable = false};
  }

  Atom of_literal(char32_t c, Options options) const {
    if (!options.ignore_case) return {.text = escaped(c), .literal = c};
    const auto closed = case_closure(UnicodeSet(static_cast<UChar32>(c), static_cast<UChar32>(c)));
    if (!closed) wrong("ignores case where several characters are equal to one; that is not supported");
    return {.text = set_pattern(*closed), .literal = c};
  }

  /// What follows a backslash outside of classes.
  Atom escape(Options options) {
    if (done()) wrong("ends with a backslash");
    if (take("A")) return anchor("\\A");
    if (take("z")) return anchor("\\z");
    if (take("Z")) return anchor("(?=\\x{a}?\\z)");
    if (next_is("b") || next_is("B")) {
      const std::string word = set_pattern(word_set());
      if (take("B")) return anchor(fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word));
      take("b");
      return anchor(fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word));
    }
    if (const auto set = shorthand(options, word_set())) return of_set(*set);
    return of_literal(escaped_code_point(), options);
  }

  UnicodeSet closure(const UnicodeSet& set) const {
    auto closed = case_closure(set);
    if (!closed) wrong("ignores case where several characters are equal to one; that is not supported");
    return *std::move(closed);
  }

  /// \s, \p{..} and their like, after the backslash; nothing (and nothing taken) for any other escape.
  std::optional<UnicodeSet> shorthand(Options options, const UnicodeSet& word) {
    const char letter = pattern_[at_];
    bool negative = letter >= 'A' && letter <= 'Z';
    UnicodeSet set;
    switch (letter) {
      case 's':
      case 'S':
        set.addAll(space_set());
        break;
      case 'w':
      case 'W':
        set.addAll(word);
        break;
      case 'd':
      case 'D':
        set.addAll(*property_set("Nd"));
        break;
      case 'h':
      case 'H':
        set.add('0', '9').add('a', 'f').add('A', 'F');
        break;
      case 'p':
      case 'P':
        break;
      default:
        return std::nullopt;
    }
    ++at_;
    if (letter == 'p' || letter == 'P') {
      set = property(negative);
      if (options.ignore_case) set = closure(set);  // the others are closed as they are
    }
    if (negative) set.complement();
    return set;
  }

  /// "{Name}" or "{^Name}" after \p or \P.
  UnicodeSet property(bool& negative) {
    if (!take("{")) wrong("has \\p without a name in braces");
    if (take("^")) negative = !negative;
    const size_t end = pattern_.find('}', at_);
    const std::string_view name = pattern_.substr(at_, end == std::string_view::npos ? end : end - at_);
    const bool plain = name.find_first_not_of(
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_- ") == name.npos;
    auto set = end != std::string_view::npos && plain ? property_set(name) : std::nullopt;
    if (!set)
      wrong(fmt::format("asks for the property {}, which is no general category and no script",
                        printable(name, 40)));
    at_ = end + 1;
    return *std::move(set);
  }

  /// A code point written as an escape, after the backslash.
  char32_t escaped_code_point() {
    const char32_t c = take_code_point("an escape");
    switch (c) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'a':
        return '\a';
      case 'e':
        return 0x1b;
      case '0':
        return number(8, 0, 2);
      case 'x':
        if (take("{")) {
          const char32_t value = number(16, 1, 8);
          if (!take("}")) wrong("has \\x{ without its }");
          return value;
        }
        return ascii(number(16, 1, 2));
      case 'u':
        return number(16, 4, 4);
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
          wrong(fmt::format("has \\{}, which is not supported", static_cast<char>(c)));
        return c;
    }
  }

  char32_t ascii(char32_t c) const {
    if (c > 0x7f) wrong("has \\x for a byte above 7f; write \\x{..} for a code point");
    return c;
  }

  /// A number of at least `least` and at most `most` digits that is a code point.
  char32_t number(int base, int least, int most) {
    char32_t value = 0;
    int n = 0;
    for (; n < most && !done(); ++n, ++at_) {
      const char c = pattern_[at_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : base;
      if (digit >= base) break;
      value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
    }
    if (n < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
      wrong("has an escape that is no code point");
    return value;
  }

  /// A class after its '[', to its ']'.
  UnicodeSet class_set(Options options, int depth) {
    if (depth > kMaxDepth) wrong("is nested too deep");
    const bool negative = take("^");
    UnicodeSet set;
    std::optional<UnicodeSet> both;  // what the parts before a && have in common
    bool first = true;
    for (; first || !next_is("]"); first = false) {
      if (done()) wrong("has a '[' without its ']'");
      if (take("&&")) {
        if (both) set.retainAll(*both);
        both = set;
        set.clear();
        continue;
      }
      if (next_is("[:")) wrong("has a [:name:] in a class, which is not supported; write \\p{..}");
      if (take("[")) {
        if (options.ignore_case) wrong("ignores case in a nested class, which is not supported");
        set.addAll(class_set(options, depth + 1));
        continue;
      }
      class_item(set);
    }
    take("]");
    if (both) set.retainAll(*both);
    if (options.ignore_case) set = closure(set);
    if (negative) set.complement();
    return set;
  }

  /// One character, range or shorthand of a class.
  void class_item(UnicodeSet& set) {
    bool literal = true;
    const auto item = [&]() -> char32_t {
      if (!take("\\")) return take_code_point("a class");
      if (done()) wrong("ends with a backslash");
      if (take("b")) return '\b';
      if (const auto part = shorthand(Options{}, class_word_set())) {
        set.addAll(*part);
        literal = false;
        return 0;
      }
      return escaped_code_point();
    };
    const char32_t low = item();
    // Oniguruma drops both characters.
    if (next_is("-[")) wrong("has a range that ends with a nested class");
    const bool range = next_is("-") && !next_is("-]") && !next_is("-&&");
    if (!literal) {
      if (range) wrong("has a range that begins with a class");
      return;
    }
    if (!range) {
      set.add(static_cast<UChar32>(low));
      return;
    }
    take("-");
    const char32_t high = item();
    if (!literal) wrong("has a range that ends with a class");
    if (high < low) wrong("has a range that ends before it begins");
    set.add(static_cast<UChar32>(low), static_cast<UChar32>(high));
    // A '-' after a range stands for itself.
    if (next_is("-") && !next_is("-]")) {
      take("-");
      set.add('-');
    }
  }

  /// Applies the quantifiers that follow to the atom; false when there is none.
  bool quantify(Atom& atom) {
    int n = 0;
    for (auto repeat = quantifier(); repeat; repeat = quantifier()) {
      if (!atom.repeatable) wrong("repeats something without length");
      if (++n > kMaxDepth) wrong("is nested too deep");
      atom.text = (n > 1 ? "(?:" + atom.text + ")" : atom.text) + repeat->text;
      if (repeat->optional) atom.text = "(?:" + atom.text + ")?";
      // ICU's own possessive loops do not end where what they repeat matches nothing.
      if (repeat->possessive) atom.text = "(?>" + atom.text + ")";
    }
    return n > 0;
  }

  /// Takes one quantifier; nothing (and nothing taken) for any other text. Intervals have no possessive form,
  /// so that a '+' after one is a quantifier of its own.
  std::optional<Repeat> quantifier() {
    for (const std::string_view sign : {"*", "+", "?"})
      if (take(sign)) {
        const bool lazy = take("?");
        return Repeat{fmt::format("{}{}", sign, lazy ? "?" : ""), false, !lazy && take("+")};
      }
    return next_is("{") ? interval() : std::nullopt;
  }

  /// "{2}", "{2,}", "{,3}" or "{2,3}"; nothing (and nothing taken) for any other text, which stands for
  /// itself.
  std::optional<Repeat> interval() {
    const size_t begin = at_;
    take("{");
    const auto low = count();
    const bool comma = take(",");
    const auto high = comma ? count() : low;
    if (!take("}") || (!low && !high)) {
      at_ = begin;
      return std::nullopt;
    }
    if (std::max(low.value_or(0), high.value_or(0)) > kMaxRepeat) wrong("repeats more than 100000 times");
    if (high && *high < low.value_or(0)) wrong("has a {low,high} with low above high");
    // {n}? is not lazy: it makes the n repetitions optional. {n,n}? is lazy.
    if (!comma) return Repeat{fmt::format("{{{}}}", *low), take("?"), false};
    const std::string end = high ? fmt::to_string(*high) : "";
    return Repeat{fmt::format("{{{},{}}}{}", low.value_or(0), end, take("?") ? "?" : "")};
  }

  std::optional<int> count() {
    std::optional<int> n;
    for (; !done() && pattern_[at_] >= '0' && pattern_[at_] <= '9'; ++at_)
      n = std::min(n.value_or(0) * 10 + (pattern_[at_] - '0'), kMaxRepeat + 1);
    return n;
  }

  std::string_view pattern_, what_;
  size_t at_ = 0;
};

}  // namespace

std::string icu_pattern(std::string_view pattern, std::string_view what) {
  return Translator(pattern, what).translate();
}

std::string icu_literal(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at]))
    result += escaped(code_point_at(text, at));
  return result;
}

}  // namespace nibble::text
