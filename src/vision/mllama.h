// Llama 3.2 Vision's image processor: a canvas of square tiles, the picture resized into its upper left
// corner. Reference: transformers 4.57, models/mllama/image_processing_mllama.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/json.h"
#include "tensor/tensor.h"
#include "vision/image.h"
#include "vision/normalize.h"
#include "vision/processor.h"

namespace nibble::vision {

/// preprocessor_config.json of an mllama checkpoint. Missing keys take the class defaults. Pictures come as
/// RGB, so do_convert_rgb decides nothing; do_resize and do_pad must be on, as in the reference.
struct MllamaProcessor {
  int64_t tile_size = 224;  // height and width of a tile, which the reference wants equal
  int64_t max_image_tiles = 4;
  Normalization normalization{.mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.5, 0.5}};
  Resample resample = Resample::bilinear;

  /// Reads the published layout and transformers 5's (under "image_processor"). Throws Error naming `what`
  /// for fields of another type, tiles that are not square, do_resize or do_pad off.
  static MllamaProcessor parse(const io::Json& json, const std::string& what);
};

/// Tiles of a canvas along its height and its width.
struct TileGrid {
  int64_t height = 1, width = 1;
  bool operator==(const TileGrid&) const = default;
};

/// Every canvas of at most `max_image_tiles` tiles, by height, then by width. A canvas' aspect ratio id is
/// its place in this list counted from 1.
std::vector<TileGrid> supported_aspect_ratios(int64_t max_image_tiles);

/// The canvas for a picture: the one that it must be enlarged least to touch, or where it is larger than all,
/// the one that it must be shrunk least for; among equals the fewest tiles, then the first of the list.
TileGrid optimal_canvas(int64_t height, int64_t width, int64_t max_image_tiles, int64_t tile_size);

/// Height and width to resize a picture to. Each side aims at its own length, but at least a tile and at most
/// the canvas; the aspect ratio is kept by falling short of one aim, rounded down, at least 1.
Size fit_to_canvas(int64_t height, int64_t width, TileGrid canvas, int64_t tile_size);

/// One picture as the model takes it, without the reference's padding to max_image_tiles: there its
/// aspect_ratio_mask is 1 for the first num_tiles of max_image_tiles and 0 for the rest, whose pixels are 0.
struct MllamaTiles {
  Matrix pixels;  // (num_tiles, 3 * tile_size^2): tiles row by row, each (3, tile_size, tile_size)
  int64_t tiles_h = 0, tiles_w = 0, num_tiles = 0;  // num_tiles = tiles_h * tiles_w
  int64_t aspect_ratio_id = 0;                      // from 1; the reference pads with 0
};

/// Equal to MllamaImageProcessor(...)(images=[picture]) to the last bit: pixel_values of the real tiles,
/// aspect_ratio_ids. The canvas beyond the picture holds the value of a black pixel. Throws Error naming
/// `what` for a canvas of more than kMaxResizedPixels. Thread-safe, runs on several threads.
MllamaTiles preprocess(const Image& image, const MllamaProcessor& processor, const std::string& what);

}  // namespace nibble::vision
