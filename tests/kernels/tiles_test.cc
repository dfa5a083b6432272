#include "kernels/cpu/tiles.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace nibble::kernels {
namespace {

struct Shape {
  int64_t rows, panels, in;
  TileLimits limits;
};

const Shape kShapes[] = {{1, 1, 1, {}},
                         {1, 500, 1536, {192, 4}},
                         {7, 3, 64, {512, 1}},
                         {65, 24, 8960, {192, 4}},
                         {193, 140, 1536, {192, 4}},
                         {577, 128, 2080, {192, 4}},
                         {4244, 24, 8960, {512, 4}},
                         {4244, 4, 1536, {192, 4}},
                         {3, 1000, 1, {512, 4}}};

TEST(TilesTest, CoverEachPlaceOnce) {
  for (const Shape& s : kShapes) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(s.rows * s.panels));
    for_each_tile(s.rows, s.panels, s.in, s.limits, [&](const Tile& tile) {
      EXPECT_EQ(tile.first % 16, 0);
      EXPECT_GE(tile.rows, 1);
      EXPECT_LE(tile.rows, s.limits.rows);
      EXPECT_LT(tile.begin, tile.end);
      for (int64_t r = tile.first; r < tile.first + tile.rows; ++r)
        for (int64_t p = tile.begin; p < tile.end; ++p) ++seen[static_cast<size_t>(r * s.panels + p)];
    });
    for (const auto& count : seen) ASSERT_EQ(count, 1) << s.rows << " rows, " << s.panels << " panels";
  }
}

TEST(TilesTest, AreTallAndWideWhereThereIsEnough) {
  std::atomic<int> largest = 0, tiles = 0;
  for_each_tile(4244, 140, 1536, {192, 4}, [&](const Tile& tile) {
    largest += tile.rows == 192 && tile.end - tile.begin == 4;
    ++tiles;
  });
  EXPECT_EQ(tiles, 23 * 35);
  EXPECT_EQ(largest, 22 * 35);
}

// A product of few rows is shared out by panels, but not in pieces that take no time.
TEST(TilesTest, AreWiderWhereTheyAreLow) {
  for_each_tile(1, 1000, 64, {512, 1}, [](const Tile& tile) {
    if (tile.end == 1000) return;
    EXPECT_EQ(tile.end - tile.begin, 64);
  });
}

}  // namespace
}  // namespace nibble::kernels
