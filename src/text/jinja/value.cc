#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "text/jinja/heap.h"

namespace nibble::text::jinja {
namespace {

/// Dicts up to this size are searched without an index.
constexpr size_t kSmallDict = 8;

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

int nested(int deepest) {
  if (deepest >= kMaxDepth) raise("nests lists and dicts deeper than {} levels", kMaxDepth);
  return deepest + 1;
}

/// A bijection that scatters neighbouring numbers.
size_t scatter(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<size_t>(x ^ (x >> 31));
}

/// Three-way comparison of numbers, exact between integers and floats; nothing for NaN.
std::optional<int> compare_numbers(const Value& a, const Value& b) {
  const auto ia = as_integer(a), ib = as_integer(b);
  if (ia && ib) return *ia < *ib ? -1 : *ia > *ib;
  const long double ra = ia ? static_cast<long double>(*ia) : a.real();
  const long double rb = ib ? static_cast<long double>(*ib) : b.real();
  if (std::isnan(ra) || std::isnan(rb)) return std::nullopt;
  return ra < rb ? -1 : ra > rb;
}

bool holds(int sign, Order order) {
  switch (order) {
    case Order::less:
      return sign < 0;
    case Order::less_equal:
      return sign <= 0;
    case Order::greater:
      return sign > 0;
    case Order::greater_equal:
      return sign >= 0;
  }
  return false;
}

bool same_list_type(const Value& a, const Value& b) {
  return (a.list().type == ListType::list) == (b.list().type == ListType::list);
}

bool equal_lists(Heap& heap, const List& a, const List& b) {
  if (&a == &b) return true;
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i)
    if (!equal(heap, a.items[i], b.items[i])) return false;
  return true;
}

bool equal_dicts(Heap& heap, const Dict& a, const Dict& b) {
  if (&a == &b) return true;
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.find(heap, key);
    if (!other || !equal(heap, value, *other)) return false;
  }
  return true;
}

}  // namespace

Str::Str(std::string t, bool m, Charge c)
    : text(std::move(t)), length(count_code_points(text)), markup(m), charge(std::move(c)) {}

List::List(std::vector<Value> all, ListType t, Charge c)
    : items(std::move(all)), type(t), depth(1), charge(std::move(c)) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, depth_of(item));
  depth = nested(deepest);
}

Dict::Dict(Heap& heap, Items all) : charge(&heap, sizeof(Dict) + all.size() * 2 * sizeof(Value)) {
  const bool indexed = all.size() > kSmallDict;
  if (indexed) charge.grow(all.size() * 4 * sizeof(void*));
  int deepest = 0;
  for (auto& [key, value] : all) {
    heap.step();
    deepest = std::max({deepest, depth_of(key), depth_of(value)});
    if (Value* old = const_cast<Value*>(find(heap, key))) {
      *old = std::move(value);
      continue;
    }
    if (indexed) index_.emplace(hash(heap, key), items.size());
    items.emplace_back(std::move(key), std::move(value));
  }
  depth = nested(deepest);
}

const Value* Dict::find(Heap& heap, const Value& key) const {
  const size_t code = hash(heap, key);
  if (index_.empty()) {
    for (const auto& [k, v] : items)
      if (equal(heap, k, key)) return &v;
    return nullptr;
  }
  const auto [first, last] = index_.equal_range(code);
  for (auto it = first; it != last; ++it)
    if (equal(heap, items[it->second].first, key)) return &items[it->second].second;
  return nullptr;
}

const Value* Dict::find(Heap& heap, std::string_view key) const {
  if (!index_.empty()) return find(heap, heap.string(std::string(key)));
  for (const auto& [k, v] : items)
    if (k.is_string() && k.text() == key) return &v;
  return nullptr;
}

Value Object::call(Evaluator&, Args&) {
  raise("'{}' object is not callable", type_name());
}

void Object::print(Printer&) const {
  raise("prints a {}, which Python shows as an address in memory; is a call or |list missing?", type_name());
}

Value::Value(const Value&) = default;
Value::Value(Value&&) noexcept = default;
Value& Value::operator=(const Value&) = default;
Value& Value::operator=(Value&&) noexcept = default;
Value::~Value() = default;

bool Value::is_markup() const {
  return is_string() && str().markup;
}

bool Value::is_list(ListType type) const {
  return is(Kind::list) && list().type == type;
}

bool Value::is_any_tuple() const {
  return is(Kind::list) && list().type != ListType::list;
}

const std::vector<Value>& Value::items() const {
  return list().items;
}

bool Value::same_as(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::list:
      return &list() == &other.list() || (is_any_tuple() && items().empty() && other.items().empty());
    case Kind::dict:
      return &dict() == &other.dict();
    case Kind::object:
      return &object() == &other.object();
    case Kind::undefined:
      return std::get<Undefined>(data_).message == std::get<Undefined>(other.data_).message;
    case Kind::boolean:
      return boolean() == other.boolean();
    case Kind::integer:
      return integer() == other.integer();
    case Kind::real:
      return real() == other.real();
    case Kind::string:
      return &str() == &other.str();
    default:
      return true;
  }
}

std::optional<int64_t> as_integer(const Value& value) {
  if (value.is(Kind::integer)) return value.integer();
  if (value.is(Kind::boolean)) return value.boolean();
  return std::nullopt;
}

std::optional<double> as_real(const Value& value) {
  if (value.is(Kind::real)) return value.real();
  if (const auto i = as_integer(value)) return static_cast<double>(*i);
  return std::nullopt;
}

bool is_number(const Value& value) {
  return value.is(Kind::boolean) || value.is(Kind::integer) || value.is(Kind::real);
}

bool hashable(const Value& value) {
  if (value.is_any_tuple()) return std::all_of(value.items().begin(), value.items().end(), hashable);
  if (value.is(Kind::object)) return value.object().hashable();
  return !value.is(Kind::list) && !value.is(Kind::dict);
}

size_t hash(Heap& heap, const Value& value) {
  switch (value.kind()) {
    case Kind::boolean:
      return scatter(value.boolean());
    case Kind::integer:
      return scatter(static_cast<uint64_t>(value.integer()));
    case Kind::real: {
      const double v = value.real();
      if (std::trunc(v) == v && std::fabs(v) < 0x1p63)
        return scatter(static_cast<uint64_t>(static_cast<int64_t>(v)));
      return std::hash<double>()(v);
    }
    case Kind::string:
      heap.work(value.text().size());
      return std::hash<std::string>()(value.text());
    case Kind::list: {
      if (!value.is_any_tuple()) break;
      heap.step(value.items().size());
      size_t code = 1;
      for (const Value& item : value.items()) code = scatter(code ^ hash(heap, item));
      return code;
    }
    case Kind::dict:
      break;
    case Kind::object:
      if (!value.object().hashable()) break;
      return scatter(static_cast<uint64_t>(std::hash<std::string_view>()(value.object().type_name())));
    default:
      return static_cast<size_t>(value.kind());
  }
  raise("unhashable type: '{}'", type_name(value));
}

bool equal(Heap& heap, const Value& a, const Value& b) {
  heap.step();
  if (is_number(a) && is_number(b)) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::string:
      heap.work(std::min(a.text().size(), b.text().size()));
      return a.text() == b.text();
    case Kind::list:
      return same_list_type(a, b) && equal_lists(heap, a.list(), b.list());
    case Kind::dict:
      return equal_dicts(heap, a.dict(), b.dict());
    case Kind::object:
      return a.object().equals(heap, b.object());
    default:
      return true;
  }
}

bool compare(Heap& heap, const Value& a, Order order, const Value& b) {
  heap.step();
  if (is_number(a) && is_number(b)) {
    const auto sign = compare_numbers(a, b);
    return sign && holds(*sign, order);
  }
  if (a.is_string() && b.is_string()) {
    heap.work(std::min(a.text().size(), b.text().size()));
    return holds(a.text().compare(b.text()), order);
  }
  if (a.is(Kind::list) && b.is(Kind::list) && same_list_type(a, b)) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(heap, x[i], y[i])) return compare(heap, x[i], order, y[i]);
    return holds(x.size() < y.size() ? -1 : x.size() > y.size(), order);
  }
  need_defined(a);
  need_defined(b);
  constexpr const char* kSigns[] = {"<", "<=", ">", ">="};
  raise("'{}' not supported between instances of '{}' and '{}'", kSigns[static_cast<int>(order)],
        type_name(a), type_name(b));
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return value.is_markup() ? "Markup" : "str";
    case Kind::list:
      return value.is_list(ListType::list)    ? "list"
             : value.is_list(ListType::tuple) ? "tuple"
                                              : "_GroupTuple";
    case Kind::dict:
      return "dict";
    case Kind::object:
      return value.object().type_name();
    default:
      return "Undefined";
  }
}

void need_defined(const Value& value) {
  if (value.undefined()) raise("{}", value.undefined_message());
}

int depth_of(const Value& value) {
  switch (value.kind()) {
    case Kind::list:
      return value.list().depth;
    case Kind::dict:
      return value.dict().depth;
    case Kind::object:
      return value.object().depth();
    default:
      return 0;
  }
}

}  // namespace nibble::text::jinja
