// Which variable a name means.
#pragma once

#include "text/jinja/ast.h"

namespace nibble::text::jinja {

/// Binds every name of the program to a slot, as jinja2 scopes them when it compiles: each for, with, macro,
/// call, filter block and set block is a frame. A name that a frame assigns anywhere is the frame's own from
/// its begin (with the value of the variable outside, where there is one); other names are those of the
/// frames around it or of the context. Also finds the filters and tests. Throws Error for an unknown filter
/// or test outside of an if, for break and continue outside of a loop, and for an assignment to loop inside
/// of one.
void bind(Program& program);

}  // namespace nibble::text::jinja
