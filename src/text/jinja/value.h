// The values that templates compute with: Python's, as far as templates see them.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::text::jinja {

/// What went wrong while a template ran, without the template's name and line: render() adds them.
class Failure : public std::exception {
 public:
  explicit Failure(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// Throws Failure with a formatted text.
template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(fmt::format(format, std::forward<Args>(args)...));
}

class Heap;

/// Bytes counted against a heap's limit for as long as this lives.
class Charge {
 public:
  Charge() = default;
  /// Throws Failure when the heap would hold too much; a null heap counts nothing.
  Charge(Heap* heap, size_t bytes);
  Charge(Charge&& other) noexcept
      : heap_(std::exchange(other.heap_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge();
  /// Counts more bytes.
  void grow(size_t bytes);

 private:
  Heap* heap_ = nullptr;
  size_t bytes_ = 0;
};

/// A string of valid UTF-8. `markup` is a string that escape or safe made: what it is joined with by + or %
/// gets escaped.
struct Str {
  Str(std::string text, bool markup, Charge charge);
  std::string text;
  size_t length;  // in code points
  bool markup;
  Charge charge;
  bool ascii() const { return length == text.size(); }
};

struct List;
struct Dict;
class Object;
using StrPtr = std::shared_ptr<const Str>;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;
using ObjectPtr = std::shared_ptr<Object>;

/// A variable that was never assigned, or not yet: reading it gives an undefined value.
struct Missing {};
struct None {};
/// An undefined value and what to say when it is used.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

enum class Kind { missing, undefined, none, boolean, integer, real, string, list, dict, object };

/// Lists, tuples and what groupby yields (a tuple whose parts are called grouper and list) share a type.
enum class ListType { list, tuple, group };

class Value {
 public:
  Value() = default;
  // Out of line: inlined, they make GCC 12 warn of members of the variant that are not there.
  Value(const Value&);
  Value(Value&&) noexcept;
  Value& operator=(const Value&);
  Value& operator=(Value&&) noexcept;
  ~Value();
  Value(None v) : data_(v) {}
  Value(Undefined v) : data_(std::move(v)) {}
  template <typename T>
  requires std::same_as<T, bool> Value(T v) : data_(v) {}
  Value(int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(StrPtr v) : data_(std::move(v)) {}
  Value(ListPtr v) : data_(std::move(v)) {}
  Value(DictPtr v) : data_(std::move(v)) {}
  Value(ObjectPtr v) : data_(std::move(v)) {}

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool missing() const { return is(Kind::missing); }
  bool undefined() const { return is(Kind::undefined); }
  bool none() const { return is(Kind::none); }
  bool is_string() const { return is(Kind::string); }
  bool is_markup() const;
  /// Of that type, and not of another of the list types.
  bool is_list(ListType type) const;
  bool is_any_tuple() const;

  // The content; the kind must fit.
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return std::get<int64_t>(data_); }
  double real() const { return std::get<double>(data_); }
  const Str& str() const { return *std::get<StrPtr>(data_); }
  const std::string& text() const { return str().text; }
  const List& list() const { return *std::get<ListPtr>(data_); }
  const ListPtr& list_ptr() const { return std::get<ListPtr>(data_); }
  const std::vector<Value>& items() const;
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  const DictPtr& dict_ptr() const { return std::get<DictPtr>(data_); }
  Object& object() const { return *std::get<ObjectPtr>(data_); }
  const std::string& undefined_message() const { return *std::get<Undefined>(data_).message; }
  /// The object when it is one of that class.
  template <typename T>
  T* as() const {
    return is(Kind::object) ? dynamic_cast<T*>(&object()) : nullptr;
  }

  /// The same object in memory, as Python's `is`; equal numbers of a type count as the same.
  bool same_as(const Value& other) const;

 private:
  std::variant<Missing, Undefined, None, bool, int64_t, double, StrPtr, ListPtr, DictPtr, ObjectPtr> data_;
};

/// Deeper nested values are refused, so that walking one never overflows the stack.
constexpr int kMaxDepth = 200;

struct List {
  List(std::vector<Value> items, ListType type, Charge charge);
  std::vector<Value> items;
  ListType type;
  int depth;
  Charge charge;
};

/// An integer, or a bool as one.
std::optional<int64_t> as_integer(const Value& value);
/// Any number as a double.
std::optional<double> as_real(const Value& value);
bool is_number(const Value& value);

/// A hash for keys: equal numbers of different types have equal hashes. Throws Failure for a value that
/// cannot be a key (a list, a dict).
size_t hash(Heap& heap, const Value& value);
bool hashable(const Value& value);
/// Python's ==, counted as work.
bool equal(Heap& heap, const Value& a, const Value& b);
enum class Order { less, less_equal, greater, greater_equal };
/// Python's <, <=, > and >=, counted as work. Throws Failure for types that have no order.
bool compare(Heap& heap, const Value& a, Order order, const Value& b);

/// Keys in the order of their insertion.
struct Dict {
  using Items = std::vector<std::pair<Value, Value>>;
  /// A later item replaces the value of an earlier one with an equal key. Throws Failure for a key that
  /// cannot be hashed.
  Dict(Heap& heap, Items all);
  Items items;
  int depth = 1;
  Charge charge;
  /// The value of a key, or null. Throws Failure for a key that cannot be hashed.
  const Value* find(Heap& heap, const Value& key) const;
  const Value* find(Heap& heap, std::string_view key) const;

 private:
  std::unordered_multimap<size_t, size_t> index_;  // hash to place in items, for all but small dicts
};

class Evaluator;
class Printer;

/// What a call passes.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// Goes through the items of a value once.
class Iterator {
 public:
  virtual ~Iterator() = default;
  /// Puts the next item into `item`; false at the end. Throws Failure where Python raises.
  virtual bool next(Evaluator& ev, Value& item) = 0;
};
using IteratorPtr = std::unique_ptr<Iterator>;

/// Whatever is no plain data: ranges, views of dicts, iterators, functions, macros, loops, namespaces. What a
/// class does not override, Python's object of that kind cannot do.
class Object {
 public:
  virtual ~Object() = default;
  /// The name of the Python type, as in "'range' object is not callable".
  virtual const char* type_name() const = 0;
  /// The module of the type with a point behind it, empty for builtins.
  virtual const char* module() const { return ""; }
  /// How deep values are nested in it.
  virtual int depth() const { return 1; }
  virtual bool equals(Heap&, const Object& other) const { return this == &other; }
  virtual bool hashable() const { return true; }
  virtual bool truth(Evaluator&) { return true; }
  virtual bool callable() const { return false; }
  virtual Value call(Evaluator&, Args&);
  virtual std::optional<Value> attribute(Evaluator&, std::string_view) { return std::nullopt; }
  /// By subscript, where the key fits.
  virtual std::optional<Value> item(Evaluator&, const Value&) { return std::nullopt; }
  virtual bool subscriptable() const { return false; }
  virtual std::optional<int64_t> length(Evaluator&) { return std::nullopt; }
  /// Null for an object that cannot be iterated over.
  virtual IteratorPtr iterate(Evaluator&) { return nullptr; }
  /// Null for an object that cannot be iterated over backwards.
  virtual IteratorPtr iterate_backwards(Evaluator&) { return nullptr; }
  /// By `in`; nothing where the items have to be searched.
  virtual std::optional<bool> contains(Evaluator&, const Value&) { return std::nullopt; }
  /// Python's repr. By default an error, as that would be an address in memory.
  virtual void print(Printer&) const;
};

/// The Python type's name: "str", "NoneType", "dict_items".
const char* type_name(const Value& value);
/// Throws the error of using an undefined value if this is one.
void need_defined(const Value& value);
/// How deep lists and dicts are nested: 0 for a number.
int depth_of(const Value& value);

}  // namespace nibble::text::jinja
