#include "vision/mllama.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "base/threads.h"

namespace nibble::vision {
namespace {

/// Limits that keep the list of canvases and their areas small; published models have 4 tiles of 560.
constexpr int64_t kMaxTiles = 1 << 10, kMaxTileSize = 1 << 12;

/// How much a picture grows until it touches the canvas' nearer border.
double scale_to(TileGrid canvas, int64_t height, int64_t width, int64_t tile_size) {
  const double scale_h = static_cast<double>(canvas.height * tile_size) / static_cast<double>(height);
  const double scale_w = static_cast<double>(canvas.width * tile_size) / static_cast<double>(width);
  return std::min(scale_h, scale_w);
}

/// True when a canvas that scales by `a` is to be preferred to one that scales by `b`: any enlargement to any
/// shrinking, the least of either.
bool fits_better(double a, double b) {
  if ((a >= 1) != (b >= 1)) return a >= 1;
  return a >= 1 ? a < b : a > b;
}

}  // namespace

MllamaProcessor MllamaProcessor::parse(const io::Json& json, const std::string& what) {
  const io::Fields fields = image_processor_fields(json, what);
  MllamaProcessor result;
  for (const char* key : {"do_resize", "do_pad"}) {
    if (!fields.boolean(key, true))
      fail("{}: {} is false, which mllama does not support", fields.what(), key);
  }
  if (fields.has("size")) {
    const io::Fields size = fields.object("size");
    result.tile_size = size.dimension("height", kMaxTileSize);
    const int64_t width = size.dimension("width", kMaxTileSize);
    if (width != result.tile_size) {
      fail("{}: height and width must be equal, not {} and {}", size.what(), result.tile_size, width);
    }
  }
  result.max_image_tiles = fields.dimension("max_image_tiles", result.max_image_tiles, kMaxTiles);
  result.normalization = parse_normalization(fields, result.normalization);
  result.resample = parse_resample(fields, result.resample);
  return result;
}

std::vector<TileGrid> supported_aspect_ratios(int64_t max_image_tiles) {
  std::vector<TileGrid> grids;
  for (int64_t height = 1; height <= max_image_tiles; ++height) {
    for (int64_t width = 1; width <= max_image_tiles / height; ++width) grids.push_back({height, width});
  }
  return grids;
}

TileGrid optimal_canvas(int64_t height, int64_t width, int64_t max_image_tiles, int64_t tile_size) {
  NIBBLE_CHECK(height >= 1 && width >= 1 && max_image_tiles >= 1 && tile_size >= 1);
  TileGrid best;
  double best_scale = scale_to(best, height, width, tile_size);
  for (const TileGrid grid : supported_aspect_ratios(max_image_tiles)) {
    const double scale = scale_to(grid, height, width, tile_size);
    const bool fewer = grid.height * grid.width < best.height * best.width;
    if (fits_better(scale, best_scale) || (scale == best_scale && fewer)) {
      best = grid;
      best_scale = scale;
    }
  }
  return best;
}

Size fit_to_canvas(int64_t height, int64_t width, TileGrid canvas, int64_t tile_size) {
  NIBBLE_CHECK(height >= 1 && width >= 1 && canvas.height >= 1 && canvas.width >= 1 && tile_size >= 1);
  const int64_t target_h = std::clamp(height, tile_size, canvas.height * tile_size);
  const int64_t target_w = std::clamp(width, tile_size, canvas.width * tile_size);
  const double scale_h = static_cast<double>(target_h) / static_cast<double>(height);
  const double scale_w = static_cast<double>(target_w) / static_cast<double>(width);
  const auto scaled = [](int64_t side, double scale, int64_t limit) {
    const auto floor = static_cast<int64_t>(std::floor(static_cast<double>(side) * scale));
    return std::clamp<int64_t>(floor, 1, limit);
  };
  if (scale_w < scale_h) return {scaled(height, scale_w, target_h), target_w};
  return {target_h, scaled(width, scale_h, target_w)};
}

MllamaTiles preprocess(const Image& image, const MllamaProcessor& processor, const std::string& what) {
  NIBBLE_CHECK(image.width >= 1 && image.height >= 1);
  const int64_t tile = processor.tile_size;
  const TileGrid canvas = optimal_canvas(image.height, image.width, processor.max_image_tiles, tile);
  MllamaTiles tiles;
  tiles.tiles_h = canvas.height;
  tiles.tiles_w = canvas.width;
  tiles.num_tiles = canvas.height * canvas.width;
  const auto pixels = checked_mul(tiles.num_tiles, tile * tile);
  if (!pixels || *pixels > kMaxResizedPixels) {
    fail("{}: a canvas of {} x {} tiles of {} pixels is too large", what, canvas.width, canvas.height, tile);
  }
  const std::vector<TileGrid> grids = supported_aspect_ratios(processor.max_image_tiles);
  tiles.aspect_ratio_id = std::find(grids.begin(), grids.end(), canvas) - grids.begin() + 1;

  const Size size = fit_to_canvas(image.height, image.width, canvas, tile);
  const Image resized = resize_within_limits(image, size, processor.resample, what);
  const PixelValues values = pixel_values(processor.normalization);
  tiles.pixels = Matrix(tiles.num_tiles, 3 * tile * tile);
  parallel_for(tiles.num_tiles * 3, [&](int64_t plane) {
    const int64_t index = plane / 3, channel = plane % 3;
    const int64_t top = index / canvas.width * tile, left = index % canvas.width * tile;
    copy_box(resized, values, channel, top, left, {tile, tile},
             tiles.pixels.row(index) + channel * tile * tile);
  });
  return tiles;
}

}  // namespace nibble::vision
