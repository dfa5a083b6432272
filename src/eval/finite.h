// What is said of a model whose logits are no numbers.
#pragma once

#include <string>

#include "run/forward.h"

namespace nibble::eval {

/// Throws Error unless a value made of the model's logits on an input is finite: names the input and the
/// first tensor of the checkpoint that holds NaN or infinity, or says that there is none.
void check_finite(double value, run::Runner& model, const std::string& input);

}  // namespace nibble::eval
