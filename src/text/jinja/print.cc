#include "text/jinja/print.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/text.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

class JsonPrinter {
 public:
  JsonPrinter(Heap& heap, const JsonStyle& style) : heap_(heap), style_(style), out_(heap) {}

  void value(const Value& v, int level) {
    switch (v.kind()) {
      case Kind::none:
        return out_.append("null");
      case Kind::boolean:
        return out_.append(v.boolean() ? "true" : "false");
      case Kind::integer:
        return out_.append(std::to_string(v.integer()));
      case Kind::real:
        return out_.append(number(v.real()));
      case Kind::string:
        return string(v.text());
      case Kind::list:
        return list(v.items(), level);
      case Kind::dict:
        return dict(v.dict().items, level);
      default:
        raise("Object of type {} is not JSON serializable", type_name(v));
    }
  }

  std::string take() { return out_.take(); }

 private:
  static std::string number(double v) {
    if (std::isnan(v)) return "NaN";
    if (std::isinf(v)) return v > 0 ? "Infinity" : "-Infinity";
    return python_repr(v);
  }

  void new_line(int level) {
    if (!style_.lines) return;
    out_.append("\n");
    for (int i = 0; i < level; ++i) out_.append(style_.indent);
  }

  void list(const std::vector<Value>& items, int level) {
    if (items.empty()) return out_.append("[]");
    out_.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      value(items[i], level + 1);
    }
    new_line(level);
    out_.append("]");
  }

  void dict(Dict::Items items, int level) {
    if (items.empty()) return out_.append("{}");
    if (style_.sort_keys) {
      heap_.step(items.size());
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return compare(heap_, a.first, Order::less, b.first);
      });
    }
    out_.append("{");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      string(key(items[i].first));
      out_.append(style_.key_separator);
      value(items[i].second, level + 1);
    }
    new_line(level);
    out_.append("}");
  }

  std::string key(const Value& k) const {
    switch (k.kind()) {
      case Kind::string:
        return k.text();
      case Kind::none:
        return "null";
      case Kind::boolean:
        return k.boolean() ? "true" : "false";
      case Kind::integer:
        return std::to_string(k.integer());
      case Kind::real:
        return number(k.real());
      default:
        raise("keys must be str, int, float, bool or None, not {}", type_name(k));
    }
  }

  void string(std::string_view text) {
    std::string out = "\"";
    for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
      const char32_t c = code_point_at(text, at);
      constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b";
      constexpr std::string_view kLetters = "\"\\nrtfb";
      const size_t special = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : std::string_view::npos;
      if (special != std::string_view::npos)
        out.append("\\").push_back(kLetters[special]);
      else if (c < 0x20 || (style_.ascii && c >= 0x7f))
        escape(out, static_cast<uint32_t>(c));
      else
        out += text.substr(at, utf8_length(text[at]));
    }
    out_.append(out + "\"");
  }

  /// As UTF-16 code units.
  static void escape(std::string& out, uint32_t c) {
    if (c >= 0x10000) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", 0xd800 + ((c - 0x10000) >> 10));
      c = 0xdc00 + (c & 0x3ff);
    }
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
  }

  Heap& heap_;
  const JsonStyle& style_;
  Buffer out_;
};

}  // namespace

void Printer::str(const Value& value) {
  if (value.is_string())
    append(value.text());
  else if (!value.undefined())
    repr(value);
}

void Printer::pairs(const std::vector<std::pair<Value, Value>>& items) {
  append("{");
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) append(", ");
    repr(items[i].first);
    append(": ");
    repr(items[i].second);
  }
  append("}");
}

void Printer::attributes(const Object& owner, const std::vector<std::pair<Value, Value>>& items) {
  if (std::find(open_.begin(), open_.end(), &owner) != open_.end()) return append("{...}");
  open_.push_back(&owner);
  pairs(items);
  open_.pop_back();
}

void Printer::repr(const Value& value) {
  switch (value.kind()) {
    case Kind::none:
      return append("None");
    case Kind::boolean:
      return append(value.boolean() ? "True" : "False");
    case Kind::integer:
      return append(std::to_string(value.integer()));
    case Kind::real:
      return append(python_repr(value.real()));
    case Kind::string:
      if (value.is_markup()) append("Markup(");
      append(quote(value.text()));
      if (value.is_markup()) append(")");
      return;
    case Kind::list:
    case Kind::dict:
    case Kind::object:
      return nested(value);
    default:
      return append("Undefined");
  }
}

void Printer::nested(const Value& value) {
  constexpr int kDepth = 1000;  // namespaces may hold each other without end
  if (++depth_ > kDepth) raise("prints values nested deeper than {} levels", kDepth);
  if (value.is(Kind::dict)) {
    pairs(value.dict().items);
  } else if (value.is(Kind::object)) {
    value.object().print(*this);
  } else {
    const bool list = value.is_list(ListType::list);
    append(list ? "[" : "(");
    for (size_t i = 0; i < value.items().size(); ++i) {
      if (i > 0) append(", ");
      repr(value.items()[i]);
    }
    if (!list && value.items().size() == 1) append(",");
    append(list ? "]" : ")");
  }
  --depth_;
}

std::string str(Heap& heap, const Value& value) {
  if (value.is_string()) return value.text();
  Printer printer(heap);
  printer.str(value);
  return printer.take();
}

std::string repr(Heap& heap, const Value& value) {
  Printer printer(heap);
  printer.repr(value);
  return printer.take();
}

std::string to_json(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonPrinter printer(heap, style);
  printer.value(value, 0);
  return printer.take();
}

}  // namespace nibble::text::jinja
