// Weight and activation error of every linear in NF4, layer by layer, forward only.
#pragma once

#include <set>
#include <string>

#include "measure/journal.h"
#include "records/measurements.h"

namespace nibble::measure {

struct Options {
  records::Rounding rounding;  // the codes to measure beside those of plain rounding
  bool fuse = true;            // see records::Measurements
  bool allow_nonfinite = false;
  Journal* journal = nullptr;  // for an interrupted run to go on from
};

/// Runs the 16-bit model over the walk's items and measures every linear: |W - Q(W)| / |W|, and
/// |X W' - X Q(W)'| / |X W'| for each modality, from products with all rows X of the linear's tap or from
/// their Gram matrices X'X, whatever takes less (Frobenius norms; Q is NF4 with double quantization, decoded
/// as a reader does; in bf16, products are the model's own), for plain codes and for those of
/// options.rounding, which go to `store` (not null unless the rounding is plain). Linears that no input
/// reached are rounded plainly; of codes that were chosen by a diagonal alone (records::Rounding::widest),
/// activation errors are those of plain codes as far as the diagonal tells the two apart. Sizes in the
/// inventory become exact. Throws Error for a weight that is not finite, unless allowed: it is left out then.
/// The same bits for any number of threads.
records::Measurements measure(Walk& walk, const std::string& model, const Options& options,
                              RoundedStore* store);

/// Rounds the named linears as measure() does, but for those that the store has, and nothing else. Weights
/// that are not finite are left out.
void round_linears(Walk& walk, const records::Rounding& rounding, const std::set<std::string>& names,
                   RoundedStore& store, Journal* journal = nullptr);

}  // namespace nibble::measure
