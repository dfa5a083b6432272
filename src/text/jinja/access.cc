// Iteration, attributes, items and slices.
#include <algorithm>
#include <array>

#include "base/text.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::text::jinja {
namespace {

class NoItems : public Iterator {
 public:
  bool next(Evaluator&, Value&) override { return false; }
};

class ListIterator : public Iterator {
 public:
  ListIterator(ListPtr list, bool backwards) : list_(std::move(list)), backwards_(backwards) {}
  bool next(Evaluator& ev, Value& item) override {
    const auto& items = list_->items;
    if (done_ == items.size()) return false;
    ev.heap().step();
    item = items[backwards_ ? items.size() - 1 - done_ : done_];
    ++done_;
    return true;
  }

 private:
  ListPtr list_;
  bool backwards_;
  size_t done_ = 0;
};

/// Items that are in no list of the template's.
class ItemsIterator : public Iterator {
 public:
  explicit ItemsIterator(std::vector<Value> items) : items_(std::move(items)) {}
  bool next(Evaluator& ev, Value& item) override {
    if (done_ == items_.size()) return false;
    ev.heap().step();
    item = items_[done_++];
    return true;
  }

 private:
  std::vector<Value> items_;
  size_t done_ = 0;
};

class StringIterator : public Iterator {
 public:
  StringIterator(Value text, bool backwards)
      : text_(std::move(text)), backwards_(backwards), at_(backwards ? text_.text().size() : 0) {}
  bool next(Evaluator& ev, Value& item) override {
    const std::string& text = text_.text();
    if (at_ == (backwards_ ? 0 : text.size())) return false;
    const size_t begin = backwards_ ? utf8_previous(text, at_) : at_;
    const size_t length = utf8_length(text[begin]);
    item = ev.heap().string(text.substr(begin, length));
    at_ = backwards_ ? begin : begin + length;
    return true;
  }

 private:
  Value text_;
  bool backwards_;
  size_t at_;
};

template <size_t N>
bool among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Names that every object, or every container, has in Python, which the sandbox denies.
bool is_internal(std::string_view name) {
  if (!name.starts_with("__")) return false;
  constexpr std::array<std::string_view, 36> kNames = {"__class__",        "__doc__",
                                                       "__init__",         "__new__",
                                                       "__repr__",         "__str__",
                                                       "__eq__",           "__ne__",
                                                       "__lt__",           "__le__",
                                                       "__gt__",           "__ge__",
                                                       "__hash__",         "__format__",
                                                       "__reduce__",       "__reduce_ex__",
                                                       "__getattribute__", "__setattr__",
                                                       "__delattr__",      "__dir__",
                                                       "__sizeof__",       "__init_subclass__",
                                                       "__subclasshook__", "__len__",
                                                       "__contains__",     "__getitem__",
                                                       "__iter__",         "__add__",
                                                       "__mul__",          "__rmul__",
                                                       "__getnewargs__",   "__setitem__",
                                                       "__delitem__",      "__iadd__",
                                                       "__imul__",         "__reversed__"};
  return among(kNames, name);
}

constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear",  "extend",  "insert",
                                                          "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};
/// Attributes that Python has and we do not.
constexpr std::array<std::string_view, 4> kStringOthers = {"encode", "maketrans", "translate", "format_map"};
constexpr std::array<std::string_view, 11> kNumberOthers = {
    "conjugate", "as_integer_ratio", "bit_length", "bit_count",  "to_bytes", "from_bytes", "is_integer",
    "hex",       "fromhex",          "numerator",  "denominator"};

/// "dict object" as the messages of undefined values have it.
std::string type_text(const Value& value) {
  if (value.none()) return "None";
  if (value.is_markup()) return "markupsafe.Markup object";
  if (value.is_list(ListType::group)) return "jinja2.filters._GroupTuple object";
  const char* module = value.is(Kind::object) ? value.object().module() : "";
  return fmt::format("{}{} object", module, type_name(value));
}

Value no_attribute(const Value& value, std::string_view name) {
  return Heap::undefined(fmt::format("'{}' has no attribute {}", type_text(value), quote(printable(name))));
}

Value unsafe(const Value& value, std::string_view name) {
  return Heap::undefined(fmt::format("access to attribute {} of '{}' object is unsafe.",
                                     quote(printable(name)), type_name(value)));
}

[[noreturn]] void unsupported(const Value& value, std::string_view name) {
  raise("the attribute {} of '{}' is not supported; --raw takes a prompt as it is", name, type_name(value));
}

std::optional<Value> method(Evaluator& ev, const Value& value, Method::Run run) {
  if (!run) return std::nullopt;
  return ev.heap().share<Method>(value, run);
}

std::optional<Value> list_attribute(Evaluator& ev, const Value& value, std::string_view name) {
  if (value.is_list(ListType::group) && (name == "grouper" || name == "list"))
    return value.items()[name == "list" ? 1 : 0];
  if (value.is_list(ListType::list) && among(kListChanges, name)) return unsafe(value, name);
  if (value.is_any_tuple() && name == "copy") return std::nullopt;
  return method(ev, value, find_list_method(name));
}

/// What Python's getattr finds, or an unsafe undefined value for what the sandbox denies.
std::optional<Value> python_attribute(Evaluator& ev, const Value& value, std::string_view name) {
  if (is_internal(name)) return unsafe(value, name);
  switch (value.kind()) {
    case Kind::string:
      if (among(kStringOthers, name)) unsupported(value, name);
      return method(ev, value, find_string_method(name));
    case Kind::boolean:
    case Kind::integer:
    case Kind::real:
      if (name == "real") return value.is(Kind::boolean) ? Value(*as_integer(value)) : value;
      if (name == "imag") return value.is(Kind::real) ? Value(0.0) : Value(int64_t{0});
      if (among(kNumberOthers, name)) unsupported(value, name);
      return std::nullopt;
    case Kind::list:
      return list_attribute(ev, value, name);
    case Kind::dict:
      if (among(kDictChanges, name)) return unsafe(value, name);
      if (name == "fromkeys") unsupported(value, name);
      return method(ev, value, find_dict_method(name));
    case Kind::object: {
      auto found = value.object().attribute(ev, name);
      if (found && name.starts_with('_')) return unsafe(value, name);
      return found;
    }
    default:
      return std::nullopt;
  }
}

/// value[key] where Python finds one.
std::optional<Value> python_item(Evaluator& ev, const Value& value, const Value& key) {
  switch (value.kind()) {
    case Kind::string: {
      const auto place = place_of(key, static_cast<int64_t>(value.str().length));
      if (!place) return std::nullopt;
      const size_t at = byte_of(value.str(), static_cast<size_t>(*place));
      ev.heap().work(at);
      return ev.heap().string(value.text().substr(at, utf8_length(value.text()[at])), value.is_markup());
    }
    case Kind::list: {
      const auto place = place_of(key, static_cast<int64_t>(value.items().size()));
      if (!place) return std::nullopt;
      return value.items()[static_cast<size_t>(*place)];
    }
    case Kind::dict: {
      const Value* found = hashable(key) ? value.dict().find(ev.heap(), key) : nullptr;
      if (!found) return std::nullopt;
      return *found;
    }
    case Kind::object:
      return value.object().item(ev, key);
    default:
      return std::nullopt;
  }
}

/// A slice's bounds, made to fit a sequence: count items from `first` on, every `step` of them.
struct Span {
  int64_t first, count, step;
};

Span fit(int64_t length, const Value& start, const Value& stop, const Value& step_value) {
  const auto bound = [](const Value& value) -> std::optional<int64_t> {
    if (value.missing() || value.none()) return std::nullopt;
    const auto i = as_integer(value);
    if (!i) raise("slice indices must be integers or None or have an __index__ method");
    return i;
  };
  const int64_t step = bound(step_value).value_or(1);
  if (step == 0) raise("slice step cannot be zero");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  const auto clamp = [&](std::optional<int64_t> i, int64_t fallback) {
    if (!i) return fallback;
    return *i < 0 ? std::max(*i + length, low) : std::min(*i, high);
  };
  const int64_t first = clamp(bound(start), step > 0 ? low : high);
  const int64_t end = clamp(bound(stop), step > 0 ? high : low);
  const auto stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const int64_t span = step > 0 ? end - first : first - end;
  return {first, span <= 0 ? 0 : static_cast<int64_t>((static_cast<uint64_t>(span) - 1) / stride) + 1, step};
}

Value string_slice(Evaluator& ev, const Value& value, const Span& span) {
  const Str& str = value.str();
  ev.heap().work(str.text.size());
  if (span.count == 0) return ev.heap().string("", str.markup);
  if (span.step == 1) {
    const size_t begin = byte_of(str, static_cast<size_t>(span.first));
    const size_t end = byte_of(str, static_cast<size_t>(span.first + span.count));
    return ev.heap().string(str.text.substr(begin, end - begin), str.markup);
  }
  const auto parts = code_points(str.text);
  ev.heap().step(parts.size());
  std::string text;
  for (int64_t i = 0; i < span.count; ++i) text += parts[static_cast<size_t>(span.first + i * span.step)];
  return ev.heap().string(std::move(text), str.markup);
}

/// Null for what cannot be iterated over in that direction.
IteratorPtr iterate_if_possible(Evaluator& ev, const Value& value, bool backwards) {
  switch (value.kind()) {
    case Kind::undefined:
      return std::make_unique<NoItems>();
    case Kind::string:
      return std::make_unique<StringIterator>(value, backwards);
    case Kind::list:
      return std::make_unique<ListIterator>(value.list_ptr(), backwards);
    case Kind::dict: {
      DictView keys(value.dict_ptr(), DictView::Part::keys);
      return backwards ? keys.iterate_backwards(ev) : keys.iterate(ev);
    }
    case Kind::object:
      return backwards ? value.object().iterate_backwards(ev) : value.object().iterate(ev);
    default:
      return nullptr;
  }
}

}  // namespace

std::optional<int64_t> place_of(const Value& index, int64_t length) {
  const auto i = as_integer(index);
  if (!i || *i >= length || *i < -length) return std::nullopt;
  return *i < 0 ? *i + length : *i;
}

Value generator(Evaluator& ev, IteratorPtr items) {
  return Heap::refer(ev.heap().make<Generator>("generator", std::move(items)));
}

IteratorPtr iterate_items(std::vector<Value> items) {
  return std::make_unique<ItemsIterator>(std::move(items));
}

IteratorPtr iterate(Evaluator& ev, const Value& value) {
  if (IteratorPtr items = iterate_if_possible(ev, value, false)) return items;
  raise("'{}' object is not iterable", type_name(value));
}

IteratorPtr iterate_backwards(Evaluator& ev, const Value& value) {
  if (IteratorPtr items = iterate_if_possible(ev, value, true)) return items;
  raise("'{}' object is not reversible", type_name(value));
}

bool iterable(Evaluator& ev, const Value& value) {
  if (value.is(Kind::object)) return value.object().iterate(ev) != nullptr;
  return value.undefined() || value.is_string() || value.is(Kind::list) || value.is(Kind::dict);
}

std::vector<Value> to_vector(Evaluator& ev, const Value& value) {
  if (value.is(Kind::list)) {
    ev.heap().step(1 + value.items().size() / 4);
    return value.items();
  }
  std::vector<Value> items;
  const IteratorPtr iterator = iterate(ev, value);
  for (Value item; iterator->next(ev, item);) {
    ev.heap().check_items(items.size() + 1);
    items.push_back(std::move(item));
  }
  return items;
}

std::optional<int64_t> length(Evaluator& ev, const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return static_cast<int64_t>(value.str().length);
    case Kind::list:
      return static_cast<int64_t>(value.items().size());
    case Kind::dict:
      return static_cast<int64_t>(value.dict().items.size());
    case Kind::object:
      return value.object().length(ev);
    default:
      return std::nullopt;
  }
}

Value get_attribute(Evaluator& ev, const Value& value, std::string_view name) {
  if (!is_internal(name)) need_defined(value);
  if (auto found = python_attribute(ev, value, name)) return *found;
  if (value.is(Kind::dict))
    if (const Value* found = value.dict().find(ev.heap(), name)) return *found;
  return no_attribute(value, name);
}

Value only_attribute(Evaluator& ev, const Value& value, std::string_view name) {
  need_defined(value);
  if (auto found = python_attribute(ev, value, name)) return *found;
  return no_attribute(value, name);
}

Value get_item(Evaluator& ev, const Value& value, const Value& key) {
  need_defined(value);
  if (auto found = python_item(ev, value, key)) return *found;
  if (key.is_string()) {
    if (auto found = python_attribute(ev, value, key.text())) return *found;
    return no_attribute(value, key.text());
  }
  return Heap::undefined(
      fmt::format("{} has no element {}", type_text(value), printable(repr(ev.heap(), key))));
}

Value get_slice(Evaluator& ev, const Value& value, const Value& start, const Value& stop, const Value& step) {
  need_defined(value);
  if (value.is(Kind::dict)) raise("unhashable type: 'slice'");
  const auto* range = value.as<Range>();
  if (!range && !value.is_string() && !value.is(Kind::list))
    raise("'{}' object is not subscriptable", type_name(value));
  const Span span = fit(*length(ev, value), start, stop, step);
  if (value.is_string()) return string_slice(ev, value, span);
  if (range) return ev.heap().share<Range>(range->slice(span.first, span.count, span.step));
  std::vector<Value> items;
  for (int64_t i = 0; i < span.count; ++i)
    items.push_back(value.items()[static_cast<size_t>(span.first + i * span.step)]);
  return ev.heap().list(std::move(items), value.is_list(ListType::list) ? ListType::list : ListType::tuple);
}

}  // namespace nibble::text::jinja
