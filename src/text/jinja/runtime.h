// What expressions do: operators, subscripts, iteration, and how built-ins take their arguments.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/eval.h"
#include "text/jinja/objects.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// +, -, *, /, //, % and **. Throws Failure where Python raises, and where an integer does not fit in 64
/// bits.
Value arithmetic(Evaluator& ev, Operator op, const Value& a, const Value& b);
/// - and +.
Value sign(Operator op, const Value& value);
/// `item in container`.
bool contains(Evaluator& ev, const Value& container, const Value& item);

/// Iteration as for does it: strings by code point, dicts by key. Throws Failure for what cannot be iterated
/// over.
IteratorPtr iterate(Evaluator& ev, const Value& value);
IteratorPtr iterate_backwards(Evaluator& ev, const Value& value);
bool iterable(Evaluator& ev, const Value& value);
std::vector<Value> to_vector(Evaluator& ev, const Value& value);
/// The value of a lazy filter.
Value generator(Evaluator& ev, IteratorPtr items);
/// Over items at hand.
IteratorPtr iterate_items(std::vector<Value> items);
/// len(); nothing where Python has none.
std::optional<int64_t> length(Evaluator& ev, const Value& value);

/// value.name: the Python attribute or method, else the item of that name, else undefined.
Value get_attribute(Evaluator& ev, const Value& value, std::string_view name);
/// value[key]: the item, else for a string the attribute of that name, else undefined.
Value get_item(Evaluator& ev, const Value& value, const Value& key);
/// The attribute alone, undefined where there is none, as the filter attr.
Value only_attribute(Evaluator& ev, const Value& value, std::string_view name);
/// value[start:stop:step]; a missing bound is one that was left out.
Value get_slice(Evaluator& ev, const Value& value, const Value& start, const Value& stop, const Value& step);
/// The place that an index means in a sequence of that length: negative ones count from the end.
std::optional<int64_t> place_of(const Value& index, int64_t length);

/// The method of a string, list or dict; null for a name that is none.
Method::Run find_string_method(std::string_view name);
Method::Run find_list_method(std::string_view name);
Method::Run find_dict_method(std::string_view name);

/// The arguments of a built-in by parameter.
class Params {
 public:
  /// Throws Failure unless the arguments fit the parameters, of which the first `required` have no default.
  /// Names that begin with "/" are only given by place.
  Params(std::string_view function, const Args& args, std::initializer_list<std::string_view> names,
         size_t required);
  /// The argument, or null where it was not passed.
  const Value* operator[](size_t i) const { return values_[i]; }
  /// With Python's conversions; None is refused unless it is the default itself.
  int64_t integer(size_t i, int64_t fallback) const;
  bool boolean(Evaluator& ev, size_t i, bool fallback) const;
  /// Throws Failure for anything but a string.
  const Value& string(size_t i) const;

 private:
  std::string_view function_;
  std::vector<const Value*> values_;
};

/// Takes a keyword argument out; missing where it was not passed.
Value pop_keyword(Args& args, std::string_view name);

/// The row of a table with that name, or null.
template <typename Row, size_t N>
const Row* find_named(const Row (&table)[N], std::string_view name) {
  const Row* const it =
      std::find_if(std::begin(table), std::end(table), [&](const Row& row) { return row.name == name; });
  return it == std::end(table) ? nullptr : it;
}

/// An integer where Python wants one (a bool is one). Throws Failure otherwise, naming what it is for.
int64_t need_integer(const Value& value, std::string_view what);

/// "%d and %s" % values.
std::string format_percent(Evaluator& ev, const Str& format, const Value& values);
/// "{} and {name}".format(...).
std::string format_braces(Evaluator& ev, const Str& format, const Args& args);

/// A function of the global names; missing for a name that is none.
Value find_global(std::string_view name);

}  // namespace nibble::text::jinja
