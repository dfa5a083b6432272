// Weight and activation error of every linear in NF4, layer by layer, forward only.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "data/prompts.h"
#include "records/measurements.h"
#include "run/weights.h"

namespace nibble::measure {

/// Runs the 16-bit model over the items (prompts with their answers) and measures every linear:
/// |W - Q(W)| / |W|, and |X W' - X Q(W)'| / |X W'| for each modality from the Gram matrices X'X of the
/// linear's tap (Frobenius norms; Q is NF4 with double quantization, decoded as a reader does). One block's
/// weights and Gram matrices are in memory at a time, and the hidden states of all items. Sizes in the
/// inventory become exact. Loaded weights are released on the way. Throws Error for a weight that is not
/// finite, unless allowed. The same bits for any number of threads.
records::Measurements measure(run::Weights& weights, std::span<const data::Item> items,
                              const std::string& model, bool allow_nonfinite);

/// Makes bytes4 of every linear of the inventory exact by looking at the weights.
/// A weight that is not finite
/// stays as it is when that is allowed, and counts so; otherwise Error.
void exact_sizes(const model::Binding& binding, records::Inventory& inventory, bool allow_nonfinite);

}  // namespace nibble::measure
