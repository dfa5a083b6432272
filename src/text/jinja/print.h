// Values as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/heap.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// Builds the text that Python's str and repr give.
class Printer {
 public:
  explicit Printer(Heap& heap) : out_(heap) {}
  void append(std::string_view text) { out_.append(text); }
  void str(const Value& value);
  void repr(const Value& value);
  /// The attributes of a namespace, {...} inside of itself.
  void attributes(const Object& owner, const std::vector<std::pair<Value, Value>>& items);
  std::string take() { return out_.take(); }

 private:
  void pairs(const std::vector<std::pair<Value, Value>>& items);
  void nested(const Value& value);
  Buffer out_;
  int depth_ = 0;
  std::vector<const Object*> open_;  // namespaces being printed
};

/// Python's str() and repr().
std::string str(Heap& heap, const Value& value);
std::string repr(Heap& heap, const Value& value);

/// How tojson writes: Python's json.dumps.
struct JsonStyle {
  bool ascii = false;
  bool lines = false;  // each item on a line of its own, behind `indent` for each level
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
/// Throws Failure for what JSON cannot hold.
std::string to_json(Heap& heap, const Value& value, const JsonStyle& style);

}  // namespace nibble::text::jinja
