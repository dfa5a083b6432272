// Qwen2-VL's image processor: smart_resize, normalisation, patches of 14 in merge order.
// Reference: transformers 4.57, models/qwen2_vl/image_processing_qwen2_vl.py (the slow processor).
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "io/json.h"
#include "tensor/tensor.h"
#include "vision/image.h"
#include "vision/normalize.h"
#include "vision/processor.h"

namespace nibble::vision {

/// preprocessor_config.json of a Qwen2-VL checkpoint. Missing keys take the class defaults.
struct Qwen2VlProcessor {
  int64_t min_pixels = 56 * 56, max_pixels = 28 * 28 * 1280;
  int64_t patch_size = 14, temporal_patch_size = 2, merge_size = 2;
  std::array<double, 3> mean = kClipMean, std = kClipStd;
  double rescale_factor = 1.0 / 255;
  bool do_resize = true, do_rescale = true, do_normalize = true, do_convert_rgb = true;
  Resample resample = Resample::bicubic;

  /// Reads the published layout (min_pixels, max_pixels) and transformers 5's (size: shortest_edge,
  /// longest_edge), also under "image_processor"; where both stand min_pixels and max_pixels count. Throws
  /// Error naming `what`.
  static Qwen2VlProcessor parse(const io::Json& json, const std::string& what);
};

/// Height and width to resize to: multiples of `factor`, area within [min_pixels, max_pixels], aspect ratio
/// kept. Python's round (half to even). A side of less than half a factor becomes 0 unless min_pixels lifts
/// it, as in the reference. Throws Error for an aspect ratio above 200.
Size smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels, int64_t max_pixels);

/// Patches of one picture as the model takes them.
struct Patches {
  Matrix pixels;                               // (t*h*w, 3 * temporal_patch_size * patch_size^2)
  int64_t grid_t = 1, grid_h = 0, grid_w = 0;  // in patches
};

/// Equal to Qwen2VLImageProcessor(...)(images=[picture])["pixel_values"] to the last bit. Like the reference
/// it reads a picture exactly three pixels high as if its rows were channels. Throws Error naming `what` for
/// a picture one pixel high, an aspect ratio above 200, and with do_resize off for sides that patches do not
/// fill.
Patches preprocess(const Image& image, const Qwen2VlProcessor& processor, const std::string& what);

}  // namespace nibble::vision
