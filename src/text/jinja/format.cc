// The % operator of strings and their method format.
#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "text/jinja/number_format.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

class PercentFormatter {
 public:
  PercentFormatter(Evaluator& ev, const Str& format, const Value& values)
      : ev_(ev), text_(format.text), markup_(format.markup), values_(values), out_(ev.heap()) {}

  std::string run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out_.append(std::string_view(text_).substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < text_.size()) conversion();
    }
    const bool object = values_.is(Kind::object) && values_.object().subscriptable();
    const bool mapping =
        values_.is(Kind::dict) || values_.is_list(ListType::list) || values_.undefined() || object;
    const size_t given = values_.is_any_tuple() ? values_.items().size() : 1;
    if (!mapping && used_ < given) raise("not all arguments converted during string formatting");
    return out_.take();
  }

 private:
  char current() const {
    if (at_ >= text_.size()) raise("incomplete format");
    return text_[at_];
  }

  Value next_value() {
    if (values_.is_any_tuple()) {
      if (used_ >= values_.items().size()) raise("not enough arguments for format string");
      return values_.items()[used_++];
    }
    if (used_++ > 0) raise("not enough arguments for format string");
    return values_;
  }

  /// A number in the format, or from the values for a star.
  int64_t count() {
    if (current() == '*') {
      ++at_;
      return need_integer(next_value(), "* in a format");
    }
    int64_t value = 0;
    for (; current() >= '0' && current() <= '9'; ++at_) {
      value = value * 10 + (current() - '0');
      ev_.heap().check_text(static_cast<uint64_t>(value));
    }
    return value;
  }

  Value key_value() {
    int depth = 1;
    const size_t begin = ++at_;
    for (; depth > 0; ++at_) depth += current() == '(' ? 1 : current() == ')' ? -1 : 0;
    if (!values_.is(Kind::dict)) raise("format requires a mapping");
    const std::string key = text_.substr(begin, at_ - 1 - begin);
    const Value* value = values_.dict().find(ev_.heap(), key);
    if (!value) raise("the format's key '{}' is not there", printable(key));
    used_ = 1;
    return *value;
  }

  void conversion() {
    Value value;
    if (current() == '(') value = key_value();
    FormatSpec spec;
    bool zero = false;
    for (;; ++at_) {
      const char c = current();
      if (c == '-')
        spec.align = '<';
      else if (c == '+' || (c == ' ' && spec.sign != '+'))
        spec.sign = c;
      else if (c == '#')
        spec.alternate = true;
      else if (c == '0')
        zero = true;
      else if (c != ' ')
        break;
    }
    spec.width = count();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (current() == '.') {
      ++at_;
      spec.precision = std::max<int64_t>(count(), 0);
    }
    if (std::string_view("hlL").find(current()) != std::string_view::npos) ++at_;
    const char type = current();
    ++at_;
    if (type == '%') return out_.append("%");
    if (value.missing()) value = next_value();
    if (zero && spec.align == '\0') {
      spec.fill = "0";
      spec.align = '=';
    }
    if (spec.align == '\0') spec.align = '>';
    out_.append(formatted(value, type, spec));
  }

  std::string formatted(const Value& value, char type, FormatSpec spec) {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = type == 's' ? str(ev_.heap(), value) : repr(ev_.heap(), value);
        if (type == 'a') text = to_ascii(text);
        if (markup_ && !(type == 's' && value.is_markup())) text = escape_html(text);
        return padded(text, spec);
      }
      case 'c': {
        if (value.is_string() && value.str().length == 1) return padded(value.text(), spec);
        spec.type = 'c';
        if (spec.align == '=') spec = {" ", '>', '-', false, spec.width, '\0', -1, 'c'};
        return format_integer(ev_.heap(), need_integer(value, "%c"), spec);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return integer(value, type, spec);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        need_defined(value);
        if (!is_number(value)) raise("must be real number, not {}", type_name(value));
        spec.type = type;
        return format_real(ev_.heap(), *as_real(value), spec);
      }
      default:
        raise("unsupported format character '{}'", printable(std::string(1, type)));
    }
  }

  std::string padded(const std::string& text, FormatSpec spec) {
    spec.fill = " ";
    spec.sign = '-';
    spec.alternate = false;
    if (spec.align == '=') spec.align = '>';
    return format_string(ev_.heap(), text, spec);
  }

  std::string integer(const Value& value, char type, FormatSpec spec) {
    need_defined(value);
    const bool decimal = type == 'd' || type == 'i' || type == 'u';
    auto whole = as_integer(value);
    if (!whole && decimal && value.is(Kind::real)) {
      if (!(std::fabs(value.real()) < 0x1p63)) raise("%{} cannot hold the number {}", type, value.real());
      whole = static_cast<int64_t>(value.real());
    }
    if (!whole) raise("%{} format: a number is required, not {}", type, type_name(value));
    spec.type = decimal ? 'd' : type;
    const int64_t least = std::exchange(spec.precision, -1);
    if (least < 0) return format_integer(ev_.heap(), *whole, spec);
    // The precision is the least number of digits.
    ev_.heap().check_text(static_cast<uint64_t>(least));
    std::string digits =
        format_integer(ev_.heap(), *whole, {" ", '>', spec.sign, spec.alternate, 0, '\0', -1, spec.type});
    size_t prefix = digits.find_first_not_of("+- ");
    if (spec.alternate && !decimal) prefix += 2;
    if (const auto have = static_cast<int64_t>(digits.size() - prefix); have < least)
      digits.insert(prefix, static_cast<size_t>(least - have), '0');
    if (spec.align == '=') {
      const auto length = static_cast<int64_t>(digits.size());
      if (length < spec.width) digits.insert(prefix, static_cast<size_t>(spec.width - length), '0');
    }
    return padded(digits, spec);
  }

  Evaluator& ev_;
  const std::string& text_;
  bool markup_;
  const Value& values_;
  Buffer out_;
  size_t at_ = 0;
  size_t used_ = 0;
};

class BraceFormatter {
 public:
  BraceFormatter(Evaluator& ev, const Str& format, const Args& args)
      : ev_(ev), markup_(format.markup), args_(args) {}

  std::string run(std::string_view text, int depth) {
    if (depth < 0) raise("Max string recursion exceeded");
    Buffer out(ev_.heap());
    for (size_t at = 0; at < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", at), text.size());
      out.append(text.substr(at, brace - at));
      if (brace == text.size()) break;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out.append(text.substr(brace, 1));
        at = brace + 2;
        continue;
      }
      if (text[brace] == '}') raise("Single '}}' encountered in format string");
      const size_t close = closing(text, brace + 1);
      out.append(field(text.substr(brace + 1, close - brace - 1), depth));
      at = close + 1;
    }
    return out.take();
  }

 private:
  static size_t closing(std::string_view text, size_t at) {
    int depth = 1;
    for (; at < text.size(); ++at) {
      if (text[at] == '[' && depth == 1) {  // braces in a subscript are text
        const size_t end = text.find_first_of("]}", at);
        if (end != std::string_view::npos && text[end] == ']') at = end;
      } else if (text[at] == '{') {
        ++depth;
      } else if (text[at] == '}' && --depth == 0) {
        return at;
      }
    }
    raise("expected '}}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    size_t name_end = 0;
    while (name_end < text.size() && text[name_end] != '!' && text[name_end] != ':') {
      if (text[name_end] == '{') raise("unexpected '{{' in field name");
      const size_t bracket = text[name_end] == '[' ? text.find(']', name_end) : std::string_view::npos;
      name_end = bracket == std::string_view::npos ? name_end + 1 : bracket;
    }
    std::string_view rest = text.substr(name_end);
    char conversion = '\0';
    if (rest.starts_with('!')) {
      if (rest.size() < 2) raise("end of string while looking for conversion specifier");
      conversion = rest[1];
      if (rest.size() > 2 && rest[2] != ':') raise("expected ':' after conversion specifier");
      rest.remove_prefix(2);
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    Value value = lookup(text.substr(0, name_end));
    if (conversion == 'r' || conversion == 'a') {
      const std::string shown = repr(ev_.heap(), value);
      value = ev_.heap().string(conversion == 'a' ? to_ascii(shown) : shown);
    } else if (conversion == 's') {
      value = ev_.heap().string(str(ev_.heap(), value));
    } else if (conversion != '\0') {
      raise("Unknown conversion specifier '{}'", printable(std::string(1, conversion)));
    }
    const std::string spec = run(rest, depth - 1);
    if (markup_ && value.is_markup() && !spec.empty()) raise("Unsupported format specification for Markup.");
    std::string out = format_value(ev_, value, spec);
    return markup_ && !value.is_markup() ? escape_html(out) : out;
  }

  Value lookup(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, end));
    for (size_t at = end; at < name.size();) {
      if (name[at] == '.') {
        const size_t next = std::min(name.find_first_of(".[", at + 1), name.size());
        if (next == at + 1) raise("Empty attribute in format string");
        value = get_attribute(ev_, value, name.substr(at + 1, next - at - 1));
        at = next;
      } else {
        const size_t close = name[at] == '[' ? name.find(']', at) : std::string_view::npos;
        if (close == std::string_view::npos || close == at + 1) raise("Empty attribute in format string");
        const std::string_view key = name.substr(at + 1, close - at - 1);
        const auto number = index(key);
        value = get_item(ev_, value, number ? Value(*number) : ev_.heap().string(std::string(key)));
        at = close + 1;
        if (at < name.size() && name[at] != '.' && name[at] != '[')
          raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static std::optional<int64_t> index(std::string_view text) {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
    return parse_integer(text, 10);
  }

  Value first(std::string_view name) {
    auto place = index(name);
    if (place || name.empty()) {
      if (numbering_ == (name.empty() ? Numbering::manual : Numbering::automatic))
        raise("cannot switch between manual field specification and automatic field numbering");
      numbering_ = name.empty() ? Numbering::automatic : Numbering::manual;
      if (!place) place = next_++;
      if (*place >= static_cast<int64_t>(args_.positional.size()))
        raise("Replacement index {} out of range for positional args tuple", *place);
      return args_.positional[static_cast<size_t>(*place)];
    }
    for (const auto& [key, value] : args_.keyword)
      if (key == name) return value;
    raise("format has no argument '{}'", printable(name));
  }

  enum class Numbering { unknown, automatic, manual };
  Evaluator& ev_;
  bool markup_;
  const Args& args_;
  Numbering numbering_ = Numbering::unknown;
  int64_t next_ = 0;
};

}  // namespace

std::string format_percent(Evaluator& ev, const Str& format, const Value& values) {
  return PercentFormatter(ev, format, values).run();
}

std::string format_braces(Evaluator& ev, const Str& format, const Args& args) {
  constexpr int kDepth = 2;  // a specification may have fields of its own, but no deeper
  return BraceFormatter(ev, format, args).run(format.text, kDepth);
}

}  // namespace nibble::text::jinja
