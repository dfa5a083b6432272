// The tests behind `is`.
#pragma once

#include <string_view>

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

struct Test {
  std::string_view name;
  bool (*run)(Evaluator& ev, const Value& input, Args& args);
};

/// Null for a name that is none. Thread-safe.
const Test* find_test(std::string_view name);

}  // namespace nibble::text::jinja
