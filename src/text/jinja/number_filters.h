// Filters about numbers.
#pragma once

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

Value abs_filter(Evaluator& ev, const Value& value, Args& args);
Value filesizeformat_filter(Evaluator& ev, const Value& value, Args& args);
Value float_filter(Evaluator& ev, const Value& value, Args& args);
Value int_filter(Evaluator& ev, const Value& value, Args& args);
Value round_filter(Evaluator& ev, const Value& value, Args& args);

}  // namespace nibble::text::jinja
