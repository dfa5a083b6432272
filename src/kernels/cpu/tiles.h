// How the product of a linear is shared out: tiles of rows by panels of output columns (weight.h).
#pragma once

#include <cstdint>
#include <functional>

namespace nibble::kernels {

/// The largest number of rows of a tile.
inline constexpr int64_t kMaxTileRows = 512;

/// Calls f(first row, rows, panel) once for every tile of `rows` >= 1 rows by `panels` panels, on nibble's
/// threads; the cut depends on the shape alone. First rows are multiples of 64. in: inputs, the depth of the
/// product.
void for_each_tile(int64_t rows, int64_t panels, int64_t in,
                   const std::function<void(int64_t first, int64_t rows, int64_t panel)>& f);

}  // namespace nibble::kernels
