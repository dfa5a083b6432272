// How the product of a linear is shared out: tiles of rows by panels of output columns (weight.h).
#pragma once

#include <cstdint>
#include <functional>

namespace nibble::kernels {

/// What one task multiplies: rows [first, first + rows) by panels [begin, end), none of them empty.
struct Tile {
  int64_t first = 0, rows = 0, begin = 0, end = 0;
};

/// The most rows and panels of a tile where there are enough of both.
struct TileLimits {
  int64_t rows = 512, panels = 1;
};

/// Calls f for tiles that cover `rows` >= 1 rows by `panels` panels, on nibble's threads; the cut depends on
/// the arguments alone. Tiles of the same rows follow each other: the rows stay in a cache while panels,
/// which lie in one piece, stream past. First rows are multiples of 16 if limits.rows is one of 64. A tile of
/// few multiplications has more panels than the limit. in: inputs, the depth of the product.
void for_each_tile(int64_t rows, int64_t panels, int64_t in, TileLimits limits,
                   const std::function<void(const Tile&)>& f);

}  // namespace nibble::kernels
