#include "eval/finite.h"

#include <cmath>

#include "base/error.h"

namespace nibble::eval {

void check_finite(double value, run::Runner& model, const std::string& input) {
  if (std::isfinite(value)) return;
  const io::Checkpoint& checkpoint = model.weights().binding().checkpoint();
  const std::string what =
      fmt::format("{}: the logits on {} are NaN or infinite", checkpoint.folder().string(), input);
  for (const auto& [name, info] : checkpoint.tensors()) {
    const TensorView view = checkpoint.tensor(name);
    if (!is_float(view.dtype)) continue;
    if (const auto at = quant::find_nonfinite(view))
      fail("{}: tensor {} of {} holds NaN or infinity at element {}; repair the checkpoint", what, name,
           checkpoint.file_of(name).string(), *at);
  }
  fail("{}, though no weight is: an activation overflows; leave this input out, or look with nibble trace",
       what);
}

}  // namespace nibble::eval
