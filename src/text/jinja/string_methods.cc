// The methods of strings.
#include <algorithm>
#include <array>

#include "base/text.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

/// A result of a method: of markup, markup.
Value made(Evaluator& ev, const Value& self, std::string text) {
  return ev.heap().string(std::move(text), self.is_markup());
}

Value made(Evaluator& ev, const Value& self, std::string_view text) {
  return made(ev, self, std::string(text));
}

Value made(Evaluator& ev, const Value& self, const std::vector<std::string_view>& parts) {
  ev.heap().check_items(parts.size());
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(made(ev, self, part));
  return ev.heap().list(std::move(items));
}

void no_arguments(std::string_view name, const Args& args) {
  Params(name, args, {}, 0);
}

/// Mapping and classifying code points takes longer than copying them, about so many times.
constexpr uint64_t kUnicodeWork = 8;

template <std::string (*Map)(std::string_view)>
Value mapped(Evaluator& ev, const Value& self, Args& args) {
  no_arguments("a method", args);
  ev.heap().work(self.text().size() * kUnicodeWork);
  return made(ev, self, Map(self.text()));
}

template <Side side>
Value stripped(Evaluator& ev, const Value& self, Args& args) {
  const Params p("strip", args, {"/chars"}, 0);
  ev.heap().work(self.text().size());
  if (!p[0] || p[0]->none()) return made(ev, self, strip(self.text(), side));
  return made(ev, self, strip(self.text(), side, p.string(0).text()));
}

template <bool right>
Value split_at(Evaluator& ev, const Value& self, Args& args) {
  const Params p("split", args, {"sep", "maxsplit"}, 0);
  const int64_t limit = p.integer(1, -1);
  ev.heap().work(self.text().size());
  if (!p[0] || p[0]->none())
    return made(ev, self, right ? split_right(self.text(), limit) : split(self.text(), limit));
  const std::string& separator = p.string(0).text();
  if (separator.empty()) raise("empty separator");
  return made(ev, self,
              right ? split_right(self.text(), separator, limit) : split(self.text(), separator, limit));
}

Value lines_method(Evaluator& ev, const Value& self, Args& args) {
  const Params p("splitlines", args, {"keepends"}, 0);
  ev.heap().work(self.text().size());
  return made(ev, self, split_lines(self.text(), p.boolean(ev, 0, false)));
}

/// The part of the text that the optional bounds `first` and `first + 1` leave; nothing when they are no
/// range of it, and the code points before it.
struct Window {
  std::string_view text;
  int64_t before;
};

std::optional<Window> window(const Value& self, const Params& p, size_t first) {
  const Str& str = self.str();
  const auto length = static_cast<int64_t>(str.length);
  const auto bound = [&](size_t i, int64_t fallback) {
    if (!p[i] || p[i]->none()) return fallback;
    const int64_t value = need_integer(*p[i], "a slice");
    return value < 0 ? std::max<int64_t>(value + length, 0) : value;
  };
  const int64_t begin = bound(first, 0), end = std::min(bound(first + 1, length), length);
  if (begin > end) return std::nullopt;
  const size_t from = byte_of(str, static_cast<size_t>(begin)), to = byte_of(str, static_cast<size_t>(end));
  return Window{std::string_view(str.text).substr(from, to - from), begin};
}

template <bool starts>
Value has_affix(Evaluator& ev, const Value& self, Args& args) {
  const Params p("startswith", args, {"/affix", "/start", "/end"}, 1);
  const auto has = [&](const Value& affix) {
    if (!affix.is_string()) raise("startswith and endswith need strings, not '{}'", type_name(affix));
    ev.heap().work(affix.text().size());
    const auto part = window(self, p, 1);
    return part && (starts ? part->text.starts_with(affix.text()) : part->text.ends_with(affix.text()));
  };
  if (p[0]->is_any_tuple()) return std::any_of(p[0]->items().begin(), p[0]->items().end(), has);
  return has(*p[0]);
}

template <bool last>
int64_t find_in(Evaluator& ev, const Value& self, const Args& args) {
  const Params p("find", args, {"/sub", "/start", "/end"}, 1);
  const std::string& wanted = p.string(0).text();
  ev.heap().work(self.text().size() + wanted.size());
  const auto part = window(self, p, 1);
  if (!part) return -1;
  const size_t at = last ? find_last(part->text, wanted) : find_first(part->text, wanted);
  if (at == std::string_view::npos) return -1;
  const Str before(std::string(part->text.substr(0, at)), false, Charge());
  return part->before + static_cast<int64_t>(before.length);
}

template <bool last>
Value find_method(Evaluator& ev, const Value& self, Args& args) {
  return find_in<last>(ev, self, args);
}

template <bool last>
Value index_method(Evaluator& ev, const Value& self, Args& args) {
  const int64_t at = find_in<last>(ev, self, args);
  if (at < 0) raise("substring not found");
  return at;
}

Value count_method(Evaluator& ev, const Value& self, Args& args) {
  const Params p("count", args, {"/sub", "/start", "/end"}, 1);
  const std::string& wanted = p.string(0).text();
  ev.heap().work(self.text().size() + wanted.size());
  const auto part = window(self, p, 1);
  if (!part) return int64_t{0};
  const Str text(std::string(part->text), false, Charge());
  const size_t found = count(text, wanted);
  ev.heap().step(found / 16);
  return static_cast<int64_t>(found);
}

Value replace_method(Evaluator& ev, const Value& self, Args& args) {
  const Params p("replace", args, {"/old", "/new", "/count"}, 2);
  std::string with = p.string(1).text();
  if (self.is_markup() && !p.string(1).is_markup()) with = escape_html(with);
  return made(ev, self, replace(ev.heap(), self.str(), p.string(0).text(), with, p.integer(2, -1)));
}

Value join_method(Evaluator& ev, const Value& self, Args& args) {
  const Params p("join", args, {"/iterable"}, 1);
  Buffer text(ev.heap());
  const IteratorPtr items = iterate(ev, *p[0]);
  bool first = true;
  for (Value item; items->next(ev, item);) {
    if (!std::exchange(first, false)) text.append(self.text());
    if (self.is_markup()) {
      const std::string shown = str(ev.heap(), item);
      text.append(item.is_markup() ? shown : escape_html(shown));
      continue;
    }
    if (!item.is_string()) raise("join() needs strings, found '{}'", type_name(item));
    text.append(item.text());
  }
  return made(ev, self, text.take());
}

enum class Place { left, center, right };

template <Place place>
Value justified(Evaluator& ev, const Value& self, Args& args) {
  const Params p("justify", args, {"/width", "/fillchar"}, 1);
  const int64_t width = p.integer(0, 0);
  std::string fill = " ";
  if (p[1]) {
    if (p.string(1).str().length != 1) raise("the fill character must be exactly one character long");
    fill = p.string(1).text();
    if (self.is_markup() && escape_html(fill) != fill)
      raise("the fill character must be exactly one character long");
  }
  return made(ev, self,
              centered(ev.heap(), self.str(), width, fill,
                       place == Place::left    ? Padding::after
                       : place == Place::right ? Padding::before
                                               : Padding::around));
}

Value zero_filled(Evaluator& ev, const Value& self, Args& args) {
  const Params p("zfill", args, {"/width"}, 1);
  const int64_t width = p.integer(0, 0), missing = width - static_cast<int64_t>(self.str().length);
  if (missing <= 0) return made(ev, self, self.text());
  ev.heap().check_text(static_cast<uint64_t>(width));
  std::string text = self.text();
  text.insert(text.starts_with('+') || text.starts_with('-') ? 1 : 0, static_cast<size_t>(missing), '0');
  return made(ev, self, std::move(text));
}

template <bool prefix>
Value without_affix(Evaluator& ev, const Value& self, Args& args) {
  const Params p("removeprefix", args, {"/affix"}, 1);
  const std::string& affix = p.string(0).text();
  std::string_view text = self.text();
  if (prefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!prefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return made(ev, self, text);
}

template <bool last>
Value partitioned(Evaluator& ev, const Value& self, Args& args) {
  const Params p("partition", args, {"/sep"}, 1);
  const std::string& separator = p.string(0).text();
  if (separator.empty()) raise("empty separator");
  const std::string_view text = self.text();
  ev.heap().work(text.size());
  const size_t at = last ? find_last(text, separator) : find_first(text, separator);
  const std::string_view empty;
  std::array<std::string_view, 3> parts = {text, empty, empty};
  if (at != std::string_view::npos)
    parts = {text.substr(0, at), text.substr(at, separator.size()), text.substr(at + separator.size())};
  else if (last)
    parts = {empty, empty, text};
  return ev.heap().tuple({made(ev, self, parts[0]), made(ev, self, parts[1]), made(ev, self, parts[2])});
}

Value expand_tabs(Evaluator& ev, const Value& self, Args& args) {
  const Params p("expandtabs", args, {"tabsize"}, 0);
  const int64_t size = p.integer(0, 8);
  Buffer out(ev.heap());
  int64_t column = 0;
  for (const std::string_view c : code_points(self.text())) {
    if (c == "\t") {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      ev.heap().check_text(static_cast<uint64_t>(spaces));
      out.append(std::string(static_cast<size_t>(spaces), ' '));
      column += spaces;
    } else {
      out.append(c);
      column = c == "\n" || c == "\r" ? 0 : column + 1;
    }
  }
  return made(ev, self, out.take());
}

Value format_method(Evaluator& ev, const Value& self, Args& args) {
  return made(ev, self, format_braces(ev, self.str(), args));
}

/// isalpha and its like; the name stands in the table beside it.
template <size_t N>
struct MethodName {
  constexpr MethodName(const char (&text)[N]) { std::copy_n(text, N, name); }
  char name[N];
};

template <MethodName name>
Value tested(Evaluator& ev, const Value& self, Args& args) {
  no_arguments(name.name, args);
  ev.heap().work(self.text().size() * kUnicodeWork);
  return string_test(name.name, self.text());
}

struct Entry {
  std::string_view name;
  Method::Run run;
};

constexpr Entry kMethods[] = {
    {"capitalize", mapped<capitalize>},
    {"casefold", mapped<casefold>},
    {"center", justified<Place::center>},
    {"count", count_method},
    {"endswith", has_affix<false>},
    {"expandtabs", expand_tabs},
    {"find", find_method<false>},
    {"format", format_method},
    {"index", index_method<false>},
    {"isalnum", tested<"isalnum">},
    {"isalpha", tested<"isalpha">},
    {"isascii", tested<"isascii">},
    {"isdecimal", tested<"isdecimal">},
    {"isdigit", tested<"isdigit">},
    {"isidentifier", tested<"isidentifier">},
    {"islower", tested<"islower">},
    {"isnumeric", tested<"isnumeric">},
    {"isprintable", tested<"isprintable">},
    {"isspace", tested<"isspace">},
    {"istitle", tested<"istitle">},
    {"isupper", tested<"isupper">},
    {"join", join_method},
    {"ljust", justified<Place::left>},
    {"lower", mapped<lower>},
    {"lstrip", stripped<Side::left>},
    {"partition", partitioned<false>},
    {"removeprefix", without_affix<true>},
    {"removesuffix", without_affix<false>},
    {"replace", replace_method},
    {"rfind", find_method<true>},
    {"rindex", index_method<true>},
    {"rjust", justified<Place::right>},
    {"rpartition", partitioned<true>},
    {"rsplit", split_at<true>},
    {"rstrip", stripped<Side::right>},
    {"split", split_at<false>},
    {"splitlines", lines_method},
    {"startswith", has_affix<true>},
    {"strip", stripped<Side::both>},
    {"swapcase", mapped<swapcase>},
    {"title", mapped<title>},
    {"upper", mapped<upper>},
    {"zfill", zero_filled},
};

}  // namespace

Method::Run find_string_method(std::string_view name) {
  const Entry* entry = find_named(kMethods, name);
  return entry ? entry->run : nullptr;
}

}  // namespace nibble::text::jinja
