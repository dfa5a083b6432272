#include "text/jinja/lexer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_base_digit(char c, int base) {
  if (base == 16) return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  return c >= '0' && c < '0' + base;
}

/// \r\n and \r as \n, and without one \n at the end.
std::string with_line_feeds(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string source, std::string_view what)
      : source_(std::move(source)), text_(source_), what_(what) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) data();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void problem(std::string_view text) const { fail_at(what_, line_, text); }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  /// Moves on, counting lines.
  void go_to(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                         text_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  bool looking_at(std::string_view word, size_t at) const { return text_.substr(at).starts_with(word); }

  size_t after_spaces(size_t at) const {
    while (at < text_.size() && is_space(code_point_at(text_, at))) at += utf8_length(text_[at]);
    return at;
  }

  /// Text up to `end`, where a tag with this sign begins. Without a sign, white space between the last line
  /// end and a tag (not a print) goes.
  void emit_data(size_t end, char sign, bool strip_line) {
    std::string_view text = text_.substr(at_, end - at_);
    if (sign == '-') {
      text = strip(text, Side::right);
    } else if (sign != '+' && strip_line) {
      const size_t line_begin = text.rfind('\n') + 1;
      const bool begins_line = line_begin > 0 || at_ == 0 || text_[at_ - 1] == '\n';
      if (begins_line && strip(text.substr(line_begin), Side::both).empty())
        text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(TokenKind::data, std::string(text));
    go_to(end);
  }

  /// Where the next "{%", "{{" or "{#" begins.
  size_t find_opening() const {
    for (size_t at = at_; (at = text_.find('{', at)) != npos; ++at)
      if (at + 1 < text_.size() && std::string_view("%{#").find(text_[at + 1]) != npos) return at;
    return npos;
  }

  /// Data and the construct after it.
  void data() {
    const size_t open = find_opening();
    if (open == npos) return emit_data(text_.size(), '+', false);
    const char kind = text_[open + 1];
    size_t inside = open + 2;
    const char sign =
        inside < text_.size() && (text_[inside] == '-' || text_[inside] == '+') ? text_[inside] : 0;
    if (sign != 0) ++inside;
    emit_data(open, sign, kind != '{');
    if (kind == '#') return comment(inside);
    if (kind == '%')
      if (const size_t body = raw_body(inside); body != npos) return raw(body);
    add(kind == '{' ? TokenKind::print_begin : TokenKind::tag_begin, "");
    go_to(inside);
    code(kind == '{' ? "}}" : "%}");
  }

  /// Behind the end of a tag or comment whose closing mark begins at `close`, perhaps after a sign.
  size_t behind(size_t close, char sign) const {
    const size_t end = close + 2;
    if (sign == '-') return after_spaces(end);
    return sign != '+' && end < text_.size() && text_[end] == '\n' ? end + 1 : end;
  }

  void comment(size_t inside) {
    const size_t close = text_.find("#}", inside);
    if (close == npos && inside == text_.size()) return go_to(inside);  // as jinja2 does, no comment
    if (close == npos) problem("a comment is not closed by #}");
    go_to(behind(close, close > inside ? text_[close - 1] : '\0'));
  }

  /// Where the text of a raw block begins when the tag whose inside begins there opens one.
  size_t raw_body(size_t inside) const {
    size_t at = after_spaces(inside);
    if (!looking_at("raw", at)) return npos;
    at = after_spaces(at + 3);
    if (looking_at("%}", at)) return at + 2;
    return looking_at("-%}", at) ? after_spaces(at + 3) : npos;
  }

  void raw(size_t body) {
    go_to(body);
    for (size_t open = body; (open = text_.find("{%", open)) != npos; ++open) {
      size_t at = open + 2;
      const char sign = at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : 0;
      at = after_spaces(at + (sign != 0));
      if (!looking_at("endraw", at)) continue;
      at = after_spaces(at + 6);
      const char end_sign = at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : 0;
      at += end_sign != 0;
      if (!looking_at("%}", at)) continue;
      emit_data(open, sign, true);
      return go_to(behind(at, end_sign));
    }
    if (body != text_.size()) problem("a raw block is not closed by endraw");
  }

  /// Tokens up to the closing mark.
  void code(std::string_view close) {
    const bool tag = close == "%}";
    std::string open_brackets;
    while (at_ < text_.size()) {
      if (open_brackets.empty()) {
        const char sign = text_[at_] == '-' || (tag && text_[at_] == '+') ? text_[at_] : '\0';
        const size_t mark = at_ + (sign != 0);
        if (looking_at(close, mark)) {
          add(tag ? TokenKind::tag_end : TokenKind::print_end, "");
          // trim_blocks is about tags only.
          return go_to(behind(mark, tag || sign == '-' ? sign : '+'));
        }
      }
      if (const size_t next = after_spaces(at_); next != at_)
        go_to(next);
      else if (!number() && !name() && !string())
        operation(open_brackets);
    }
  }

  /// Behind the digits that begin there, single underscores between them; the same place when there are none.
  size_t after_digits(size_t at, int base = 10) const {
    const auto digit = [&](size_t i) { return i < text_.size() && is_base_digit(text_[i], base); };
    if (!digit(at)) return at;
    while (digit(at) || (at < text_.size() && text_[at] == '_' && digit(at + 1))) ++at;
    return at;
  }

  /// Behind a float that begins here, or here.
  size_t after_real() const {
    const size_t whole = after_digits(at_);
    if (whole == at_ || (at_ > 0 && text_[at_ - 1] == '.')) return at_;
    size_t end = whole;
    if (end < text_.size() && text_[end] == '.') {
      end = after_digits(end + 1);
      if (end == whole + 1) return at_;
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (const size_t behind_it = after_digits(exponent); behind_it != exponent) return behind_it;
    }
    return end == whole ? at_ : end;
  }

  /// Behind an integer that begins here, or here.
  size_t after_integer() const {
    if (!is_digit(text_[at_])) return at_;
    if (text_[at_] != '0') return after_digits(at_);
    if (at_ + 2 < text_.size()) {
      const char prefix = static_cast<char>(text_[at_ + 1] | 0x20);
      const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
      const size_t digits = at_ + 2 + (text_[at_ + 2] == '_');
      if (base != 0 && after_digits(digits, base) != digits) return after_digits(digits, base);
    }
    return after_digits(at_, 1);  // zeros
  }

  bool number() {
    if (!is_digit(text_[at_])) return false;
    if (const size_t end = after_real(); end != at_) {
      std::string digits(text_.substr(at_, end - at_));
      std::erase(digits, '_');
      add(TokenKind::real, digits);
      tokens_.back().real = std::strtod(digits.c_str(), nullptr);
      go_to(end);
      return true;
    }
    const size_t end = after_integer();
    const std::string digits(text_.substr(at_, end - at_));
    add(TokenKind::integer, digits);
    try {
      tokens_.back().integer = parse_integer(digits, 0).value();
    } catch (const Failure& failure) {
      problem(failure.text());
    }
    go_to(end);
    return true;
  }

  bool name() {
    size_t end = at_;
    while (end < text_.size()) {
      const auto c = static_cast<UChar32>(code_point_at(text_, end));
      if (c != '_' && !u_hasBinaryProperty(c, UCHAR_XID_CONTINUE)) break;
      end += utf8_length(text_[end]);
    }
    if (end == at_) return false;
    const std::string_view text = text_.substr(at_, end - at_);
    if (!is_identifier(text)) problem(fmt::format("\"{}\" is no name", printable(text)));
    add(TokenKind::name, std::string(text));
    go_to(end);
    return true;
  }

  bool string() {
    const char quote = text_[at_];
    if (quote != '\'' && quote != '"') return false;
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) problem("a string is not closed by its quote");
    add(TokenKind::string, unescaped(text_.substr(at_ + 1, end - at_ - 1)));
    go_to(end + 1);
    return true;
  }

  void operation(std::string& open_brackets) {
    constexpr std::array<std::string_view, 6> kPairs = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view kSingles = "+-*/%~[](){}<>=.:|,;";
    const std::string_view two = text_.substr(at_, 2);
    if (std::find(kPairs.begin(), kPairs.end(), two) != kPairs.end()) {
      add(TokenKind::op, std::string(two));
      return go_to(at_ + 2);
    }
    const char c = text_[at_];
    if (kSingles.find(c) == npos)
      problem(fmt::format("\"{}\" does not belong there", printable(text_.substr(at_, utf8_length(c)))));
    if (c == '(' || c == '[' || c == '{') open_brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open_brackets.empty() || open_brackets.back() != c)
        problem(fmt::format("\"{}\" closes nothing", c));
      open_brackets.pop_back();
    }
    add(TokenKind::op, std::string(1, c));
    go_to(at_ + 1);
  }

  /// A string literal's value: Python's escapes. A backslash before a code point outside of ASCII stays, and
  /// that one is spelled as Python's backslashreplace does, as jinja2 has it.
  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      if (text[at] != '\\') {
        out += text[at++];
        continue;
      }
      ++at;
      const char c = text[at];
      constexpr std::string_view kLetters = "\\'\"abfnrtv";
      constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t simple = kLetters.find(c); simple != npos) {
        out += kValues[simple];
        ++at;
      } else if (c == '\n') {
        ++at;
      } else if (c >= '0' && c <= '7') {
        char32_t value = 0;
        for (int i = 0; i < 3 && at < text.size() && text[at] >= '0' && text[at] <= '7'; ++i)
          value = value * 8 + static_cast<char32_t>(text[at++] - '0');
        append_utf8(out, value);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_utf8(out, hexadecimal(text, at));
      } else if (c == 'N') {
        append_utf8(out, named(text, at));
      } else if (static_cast<unsigned char>(c) >= 0x80) {
        const auto code = static_cast<uint32_t>(code_point_at(text, at));
        out += code < 0x100     ? fmt::format("\\x{:02x}", code)
               : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                : fmt::format("\\U{:08x}", code);
        at += utf8_length(c);
      } else {
        out += '\\';
        out += c;
        ++at;
      }
    }
    return out;
  }

  /// The code point of \xXX, \uXXXX or \UXXXXXXXX at the letter, and moves behind it.
  char32_t hexadecimal(std::string_view text, size_t& at) const {
    const size_t digits = text[at] == 'x' ? 2 : text[at] == 'u' ? 4 : 8;
    const std::string_view number = text.substr(at + 1, digits);
    const bool valid = number.size() == digits &&
                       std::all_of(number.begin(), number.end(), [](char c) { return is_base_digit(c, 16); });
    const auto value =
        static_cast<char32_t>(valid ? std::strtoul(std::string(number).c_str(), nullptr, 16) : 0);
    if (!valid || value > 0x10ffff) problem(fmt::format("\"\\{}\" in a string is no escape", text[at]));
    if (value >= 0xd800 && value < 0xe000)
      problem("half a surrogate pair in a string is not supported: write the character itself");
    at += 1 + digits;
    return value;
  }

  /// The code point of \N{NAME} at the letter, and moves behind it.
  char32_t named(std::string_view text, size_t& at) const {
    const size_t close = text.find('}', at);
    if (close != npos && text.substr(at).starts_with("N{")) {
      const std::string wanted(text.substr(at + 2, close - at - 2));
      for (const UCharNameChoice choice : {U_UNICODE_CHAR_NAME, U_CHAR_NAME_ALIAS}) {
        UErrorCode status = U_ZERO_ERROR;
        const UChar32 c = u_charFromName(choice, wanted.c_str(), &status);
        if (U_FAILURE(status)) continue;
        at = close + 1;
        return static_cast<char32_t>(c);
      }
    }
    problem("\"\\N\" in a string names no character");
  }

  std::string source_;
  std::string_view text_;
  std::string_view what_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

void fail_at(std::string_view what, int line, std::string_view problem) {
  fail("{}: line {}: {}", what, line, problem);
}

std::vector<Token> tokenize(std::string_view source, std::string_view what) {
  if (!valid_utf8(source)) fail("{}: is not UTF-8", what);
  return Lexer(with_line_feeds(source), what).run();
}

}  // namespace nibble::text::jinja
