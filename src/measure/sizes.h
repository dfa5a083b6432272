// The exact bytes that linears take in 4 bits, from their weights alone.
#pragma once

#include <set>
#include <string>

#include "model/binding.h"

namespace nibble::measure {

/// Makes bytes4 of the named linears of a 16-bit model's inventory exact by one look at their weights, piece
/// by piece and without rounding them. A weight that is not finite stays as it is when that is allowed, and
/// counts so; otherwise Error.
void exact_sizes(const model::Binding& binding, records::Inventory& inventory,
                 const std::set<std::string>& names, bool allow_nonfinite);
/// The same for all of them.
void exact_sizes(const model::Binding& binding, records::Inventory& inventory, bool allow_nonfinite);

}  // namespace nibble::measure
