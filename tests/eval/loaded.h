// The shipped model with all that belongs to it.
#pragma once

#include <string>

#include "data/prompts.h"
#include "run/forward.h"

namespace nibble::testing {

struct Loaded {
  model::Binding binding{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  data::PromptMaker maker{binding};
  run::Weights weights{binding, kernels::Compute::f32};
  run::Runner runner{weights};
};

/// Puts zeros in place of a linear, so that the model is another one.
inline void damage(Loaded& model, const std::string& name) {
  for (const model::Linear* l : model::linears(model.binding.spec()))
    if (l->name == name)
      model.weights.replace(
          name, kernels::Weight::pack(Matrix::zeros(l->out, l->in).tensor(), kernels::Compute::f32));
}

}  // namespace nibble::testing
