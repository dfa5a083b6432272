// Python's format specifications for numbers and strings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=', or none given
  char sign = '-';
  bool alternate = false;
  int64_t width = 0;
  char grouping = '\0';
  int64_t precision = -1;
  char type = '\0';
};

/// Throws Failure for a specification that is none.
FormatSpec parse_format_spec(std::string_view text);

std::string format_integer(Heap& heap, int64_t value, const FormatSpec& spec);
std::string format_real(Heap& heap, double value, const FormatSpec& spec);
std::string format_string(Heap& heap, std::string_view value, const FormatSpec& spec);

/// Python's format(value, spec).
std::string format_value(Evaluator& ev, const Value& value, std::string_view spec);

/// A string with what ASCII lacks as escapes, as Python's ascii() has it.
std::string to_ascii(std::string_view text);

}  // namespace nibble::text::jinja
