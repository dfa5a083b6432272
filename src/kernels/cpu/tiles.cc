#include "kernels/cpu/tiles.h"

#include <algorithm>

#include "base/threads.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

// Rows of a task, halved (to kMinRows) until there are kTasks tasks to share out.
constexpr int64_t kMinRows = 64, kTasks = 128;
// A task takes several panels if one has fewer multiplications than this: tens of microseconds.
constexpr int64_t kTaskWork = 1 << 18;

}  // namespace

void for_each_tile(int64_t rows, int64_t panels, int64_t in,
                   const std::function<void(int64_t first, int64_t rows, int64_t panel)>& f) {
  int64_t tile = kMaxTileRows;
  while (tile > kMinRows && (rows + tile - 1) / tile * panels < kTasks) tile /= 2;
  tile = std::min(tile, rows);
  const int64_t row_tiles = (rows + tile - 1) / tile;
  const int64_t group = std::max<int64_t>(1, kTaskWork / std::max<int64_t>(1, tile * in * kPanel));
  // Tasks of one panel follow each other, so that it is read from memory once.
  parallel_for(row_tiles * ((panels + group - 1) / group), [&](int64_t task) {
    const int64_t first = task % row_tiles * tile, begin = task / row_tiles * group;
    for (int64_t p = begin; p < std::min(panels, begin + group); ++p)
      f(first, std::min(tile, rows - first), p);
  });
}

}  // namespace nibble::kernels
