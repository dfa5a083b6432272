// What filters look up in items and order them by.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// Finds an attribute of an item: "a.0.b" is a path, an integer an index, None the item itself.
class AttributeGetter {
 public:
  /// `fallback` stands in for an undefined part of the path unless it is None.
  explicit AttributeGetter(Evaluator& ev, const Value& attribute, Value fallback = None());
  Value operator()(Evaluator& ev, const Value& item) const;

 private:
  std::vector<Value> parts_;
  Value fallback_;
};

/// The lower case of a string; other values as they are.
Value ignore_case(Evaluator& ev, const Value& value);

struct Keyed {
  Value key, item;
};
/// The items by their keys, stable; backwards keeps equal ones in their order as well. Throws Failure for
/// keys that have no order.
std::vector<Value> sorted(Evaluator& ev, std::vector<Keyed> items, bool backwards);

}  // namespace nibble::text::jinja
