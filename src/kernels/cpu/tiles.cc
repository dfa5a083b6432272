#include "kernels/cpu/tiles.h"

#include <algorithm>

#include "base/threads.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

// Tiles are made smaller, down to one panel and kMinRows rows, until there are kTasks of them to share out.
constexpr int64_t kMinRows = 64, kTasks = 128;
// They get more panels if they have fewer multiplications than this: tens of microseconds.
constexpr int64_t kTaskWork = 1 << 18;

int64_t parts(int64_t n, int64_t size) {
  return (n + size - 1) / size;
}

}  // namespace

void for_each_tile(int64_t rows, int64_t panels, int64_t in, TileLimits limits,
                   const std::function<void(const Tile&)>& f) {
  int64_t height = limits.rows, width = limits.panels;
  const auto few = [&] { return parts(rows, height) * parts(panels, width) < kTasks; };
  while (width > 1 && few()) width /= 2;
  while (height > kMinRows && few()) height = std::max(kMinRows, height / 2);
  height = std::min(height, rows);
  width = std::max(width, kTaskWork / std::max<int64_t>(1, height * in * kPanel));
  const int64_t across = parts(panels, width);
  parallel_for(parts(rows, height) * across, [&](int64_t task) {
    const int64_t first = task / across * height, begin = task % across * width;
    f({first, std::min(height, rows - first), begin, std::min(panels, begin + width)});
  });
}

}  // namespace nibble::kernels
