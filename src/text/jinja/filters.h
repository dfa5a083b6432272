// The filters.
#pragma once

#include <string_view>

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

struct Filter {
  std::string_view name;
  Value (*run)(Evaluator& ev, const Value& input, Args& args);
};

/// Null for a name that is none, or none of ours. Thread-safe.
const Filter* find_filter(std::string_view name);

/// Filters about text and numbers, about sequences, and those that pick or order items (one file each).
const Filter* find_text_filter(std::string_view name);
const Filter* find_sequence_filter(std::string_view name);
const Filter* find_selection_filter(std::string_view name);

}  // namespace nibble::text::jinja
