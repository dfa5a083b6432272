// Filters about text and JSON.
#include <algorithm>

#include "base/text.h"
#include "text/jinja/filters.h"
#include "text/jinja/number_filters.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

/// A string as it is, anything else as str() shows it.
Value soft_string(Evaluator& ev, const Value& value) {
  return value.is_string() ? value : ev.heap().string(str(ev.heap(), value));
}

/// The method of that name of the value as a string.
Value call_method(Evaluator& ev, const Value& value, std::string_view name, Args args) {
  return find_string_method(name)(ev, soft_string(ev, value), args);
}

Value capitalize_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("capitalize", args, {}, 0);
  return call_method(ev, value, "capitalize", {});
}

Value lower_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("lower", args, {}, 0);
  return call_method(ev, value, "lower", {});
}

Value upper_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("upper", args, {}, 0);
  return call_method(ev, value, "upper", {});
}

Value center_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("center", args, {"width"}, 0);
  return call_method(ev, value, "center", {{p[0] ? *p[0] : Value(int64_t{80})}, {}});
}

Value trim_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("trim", args, {"chars"}, 0);
  return call_method(ev, value, "strip", {{p[0] ? *p[0] : Value(None())}, {}});
}

/// Words begin behind white space and - ( { [ <.
Value title_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("title", args, {}, 0);
  const std::string text = str(ev.heap(), value);
  ev.heap().work(text.size());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto splits = [&](size_t i) {
      return std::string_view("-({[<").find(text[i]) != std::string_view::npos ||
             is_space(code_point_at(text, i));
    };
    size_t end = at;
    while (end < text.size() && !splits(end)) end += utf8_length(text[end]);
    if (end > at) {
      const size_t first = utf8_length(text[at]);
      out += upper(text.substr(at, first)) + lower(text.substr(at + first, end - at - first));
    }
    for (at = end; at < text.size() && splits(at); at += utf8_length(text[at]))
      out += text.substr(at, utf8_length(text[at]));
  }
  return ev.heap().string(std::move(out));
}

Value escape_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("escape", args, {}, 0);
  if (value.is_markup()) return value;
  return ev.heap().string(escape_html(str(ev.heap(), value)), true);
}

Value force_escape_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("forceescape", args, {}, 0);
  return ev.heap().string(escape_html(str(ev.heap(), value)), true);
}

Value safe_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("safe", args, {}, 0);
  return ev.heap().string(str(ev.heap(), value), true);
}

Value string_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("string", args, {}, 0);
  return soft_string(ev, value);
}

Value replace_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("replace", args, {"old", "new", "count"}, 2);
  const int64_t limit = p[2] && !p[2]->none() ? p.integer(2, -1) : -1;
  const Value text = ev.heap().string(str(ev.heap(), value));
  return ev.heap().string(
      replace(ev.heap(), text.str(), str(ev.heap(), *p[0]), str(ev.heap(), *p[1]), limit));
}

Value format_filter(Evaluator& ev, const Value& value, Args& args) {
  if (!args.positional.empty() && !args.keyword.empty())
    raise("can't handle positional and keyword arguments at the same time");
  Value values;
  if (args.keyword.empty()) {
    values = ev.heap().tuple(std::move(args.positional));
  } else {
    Dict::Items items;
    for (auto& [name, item] : args.keyword) items.emplace_back(ev.heap().string(name), item);
    values = ev.heap().dict(std::move(items));
  }
  return arithmetic(ev, Operator::modulo, soft_string(ev, value), values);
}

Value indent_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("indent", args, {"width", "first", "blank"}, 0);
  if (!value.is_string()) {
    need_defined(value);
    raise("indent() needs a string, not '{}'", type_name(value));
  }
  std::string indent;
  if (p[0] && p[0]->is_string()) {
    indent = p[0]->text();
  } else {
    const int64_t width = std::max<int64_t>(p.integer(0, 4), 0);
    ev.heap().check_text(static_cast<uint64_t>(width));
    indent.assign(static_cast<size_t>(width), ' ');
  }
  const bool first = p.boolean(ev, 1, false), blank = p.boolean(ev, 2, false);
  // Of a text that is made to end with a line end, as that one begins no line.
  const std::string text = value.text() + "\n";
  Buffer out(ev.heap());
  bool begins = true;
  for (const std::string_view line : split_lines(text, false)) {
    if (!begins) out.append("\n");
    if (begins ? first : blank || !line.empty()) out.append(indent);
    out.append(line);
    begins = false;
  }
  return ev.heap().string(out.take(), value.is_markup());
}

Value truncate_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("truncate", args, {"length", "killwords", "end", "leeway"}, 0);
  const int64_t most = p.integer(0, 255);
  const Value end = p[2] ? *p[2] : ev.heap().string("...");
  const int64_t leeway = p[3] && !p[3]->none() ? p.integer(3, 5) : 5;
  const auto end_length = length(ev, end), have = length(ev, value);
  if (!end_length || !have) raise("truncate() needs a string, not '{}'", type_name(have ? end : value));
  if (most < *end_length) raise("expected length >= {}, got {}", *end_length, most);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  if (*have <= most || *have - most <= leeway) return value;
  Value kept = get_slice(ev, value, Value(), most - *end_length, Value());
  if (!p.boolean(ev, 1, false)) {
    if (!kept.is_string()) raise("truncate() needs a string, not '{}'", type_name(value));
    const auto parts = split_right(kept.text(), " ", 1);
    kept = ev.heap().string(std::string(parts.front()), kept.is_markup());
  }
  return arithmetic(ev, Operator::add, kept, end);
}

Value wordcount_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("wordcount", args, {}, 0);
  const std::string text = str(ev.heap(), value);
  ev.heap().work(text.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const bool word = is_word(code_point_at(text, at));
    words += word && !inside;
    inside = word;
  }
  return words;
}

Value urlencode_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("urlencode", args, {}, 0);
  Heap& heap = ev.heap();
  if (value.is_string() || !iterable(ev, value)) return heap.string(url_quote(str(heap, value), false));
  std::vector<Value> pairs;
  if (value.is(Kind::dict))
    for (const auto& [key, item] : value.dict().items) pairs.push_back(heap.tuple({key, item}));
  else
    pairs = to_vector(ev, value);
  Buffer out(heap);
  for (const Value& pair : pairs) {
    const std::vector<Value> parts = to_vector(ev, pair);
    if (parts.size() != 2) raise("urlencode() needs pairs, found {} items", parts.size());
    if (out.size() > 0) out.append("&");
    out.append(url_quote(str(heap, parts[0]), true) + "=" + url_quote(str(heap, parts[1]), true));
  }
  return heap.string(out.take());
}

Value xmlattr_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("xmlattr", args, {"autospace"}, 0);
  need_defined(value);
  if (!value.is(Kind::dict)) raise("xmlattr() needs a mapping, not '{}'", type_name(value));
  const bool space = p.boolean(ev, 0, true);
  Buffer out(ev.heap());
  const auto escaped = [&](const Value& v) {
    return v.is_markup() ? v.text() : escape_html(str(ev.heap(), v));
  };
  for (const auto& [key, item] : value.dict().items) {
    if (item.none() || item.undefined()) continue;
    if (!key.is_string()) raise("xmlattr() needs strings as keys, not '{}'", type_name(key));
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      raise("Invalid character in attribute name: {}", quote(printable(key.text())));
    if (out.size() > 0 || space) out.append(" ");
    out.append(escaped(key) + "=\"" + escaped(item) + "\"");
  }
  return ev.heap().string(out.take());
}

Value tojson_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ascii = p.boolean(ev, 0, false);
  if (p[1] && !p[1]->none()) {
    style.lines = true;
    style.item_separator = ",";
    if (p[1]->is_string()) {
      style.indent = p[1]->text();
    } else {
      const int64_t width = std::max<int64_t>(p.integer(1, 0), 0);
      ev.heap().check_text(static_cast<uint64_t>(width));
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (p[2] && !p[2]->none()) {
    const std::vector<Value> separators = to_vector(ev, *p[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      raise("the separators of tojson() must be two strings");
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  style.sort_keys = p.boolean(ev, 3, false);
  return ev.heap().string(to_json(ev.heap(), value, style));
}

Value default_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("default", args, {"default_value", "boolean"}, 0);
  if (!value.undefined() && !(p.boolean(ev, 1, false) && !ev.truth(value))) return value;
  return p[0] ? *p[0] : ev.heap().string("");
}

Value attr_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("attr", args, {"name"}, 1);
  return only_attribute(ev, value, p.string(0).text());
}

constexpr Filter kFilters[] = {
    {"abs", abs_filter},
    {"attr", attr_filter},
    {"capitalize", capitalize_filter},
    {"center", center_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"filesizeformat", filesizeformat_filter},
    {"float", float_filter},
    {"forceescape", force_escape_filter},
    {"format", format_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"lower", lower_filter},
    {"replace", replace_filter},
    {"round", round_filter},
    {"safe", safe_filter},
    {"string", string_filter},
    {"title", title_filter},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"truncate", truncate_filter},
    {"upper", upper_filter},
    {"urlencode", urlencode_filter},
    {"wordcount", wordcount_filter},
    {"xmlattr", xmlattr_filter},
};

}  // namespace

const Filter* find_text_filter(std::string_view name) {
  return find_named(kFilters, name);
}

}  // namespace nibble::text::jinja
