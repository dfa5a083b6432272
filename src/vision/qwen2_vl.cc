#include "vision/qwen2_vl.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "base/threads.h"

namespace nibble::vision {
namespace {

/// Beyond it a quotient of two areas would not be exact in double, and no picture is as large.
constexpr int64_t kMaxArea = int64_t{1} << 52;

/// One limit of the picture's area, at least `least`: min_pixels or max_pixels where given, else the edge of
/// `size`.
int64_t parse_limit(const io::Fields& fields, const char* key, const char* edge, int64_t least,
                    int64_t fallback) {
  int64_t limit = fallback;
  if (fields.has(key)) {
    limit = fields.integer(key);
  } else if (fields.has("size")) {
    const io::Fields size = fields.object("size");
    if (!size.has(edge)) fail("{}: size must have shortest_edge and longest_edge", fields.what());
    limit = size.integer(edge);
  }
  if (limit < least || limit > kMaxArea)
    fail("{}: {} must be from {} to {}, not {}", fields.what(), key, least, kMaxArea, limit);
  return limit;
}

Image resize_for_patches(Image image, const Qwen2VlProcessor& processor, const std::string& what) {
  const int64_t factor = processor.patch_size * processor.merge_size;
  if (!processor.do_resize) {
    if (image.height % factor != 0 || image.width % factor != 0) {
      fail("{}: {} x {} pixels are no multiple of {}, and do_resize is off", what, image.width, image.height,
           factor);
    }
    return image;
  }
  Size size;
  try {
    size = smart_resize(image.height, image.width, factor, processor.min_pixels, processor.max_pixels);
  } catch (const Error& error) {
    fail("{}: {}", what, error.what());
  }
  return resize_within_limits(image, size, processor.resample, what);
}

}  // namespace

Qwen2VlProcessor Qwen2VlProcessor::parse(const io::Json& json, const std::string& what) {
  constexpr int64_t kMaxSide = 1 << 12;
  const io::Fields fields = image_processor_fields(json, what);
  Qwen2VlProcessor result;
  result.min_pixels = parse_limit(fields, "min_pixels", "shortest_edge", 0, result.min_pixels);
  result.max_pixels = parse_limit(fields, "max_pixels", "longest_edge", 1, result.max_pixels);
  result.patch_size = fields.dimension("patch_size", result.patch_size, kMaxSide);
  result.temporal_patch_size = fields.dimension("temporal_patch_size", result.temporal_patch_size, kMaxSide);
  result.merge_size = fields.dimension("merge_size", result.merge_size, kMaxSide);
  const Normalization normalization = parse_normalization(fields);
  result.mean = normalization.mean;
  result.std = normalization.std;
  result.rescale_factor = normalization.rescale_factor;
  result.do_rescale = normalization.do_rescale;
  result.do_normalize = normalization.do_normalize;
  result.do_resize = fields.boolean("do_resize", result.do_resize);
  result.do_convert_rgb = fields.boolean("do_convert_rgb", result.do_convert_rgb);
  result.resample = parse_resample(fields, result.resample);
  return result;
}

Size smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels, int64_t max_pixels) {
  NIBBLE_CHECK(height >= 1 && width >= 1 && factor >= 1 && max_pixels >= 1);
  const auto area = checked_mul(height, width);
  if (!area || *area > kMaxArea) fail("picture of {} x {} pixels is too large", width, height);
  const auto h = static_cast<double>(height), w = static_cast<double>(width), f = static_cast<double>(factor);
  if (std::max(h, w) / std::min(h, w) > 200) {
    fail("aspect ratio must be at most 200, picture has {} x {} pixels", width, height);
  }
  // Doubles hold all of these integers exactly; std::nearbyint rounds half to even as Python's round does.
  double h_bar = std::nearbyint(h / f) * f, w_bar = std::nearbyint(w / f) * f;
  if (h_bar * w_bar > static_cast<double>(max_pixels)) {
    const double beta = std::sqrt(h * w / static_cast<double>(max_pixels));
    h_bar = std::max(f, std::floor(h / beta / f) * f);
    w_bar = std::max(f, std::floor(w / beta / f) * f);
  } else if (h_bar * w_bar < static_cast<double>(min_pixels)) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / (h * w));
    h_bar = std::ceil(h * beta / f) * f;
    w_bar = std::ceil(w * beta / f) * f;
  }
  return {static_cast<int64_t>(h_bar), static_cast<int64_t>(w_bar)};
}

Patches preprocess(const Image& image, const Qwen2VlProcessor& processor, const std::string& what) {
  NIBBLE_CHECK(image.width >= 1 && image.height >= 1);
  const Image resized = resize_for_patches(with_guessed_channels(image, what), processor, what);
  const PixelValues values = pixel_values({.do_rescale = processor.do_rescale,
                                           .do_normalize = processor.do_normalize,
                                           .rescale_factor = processor.rescale_factor,
                                           .mean = processor.mean,
                                           .std = processor.std});
  const int64_t patch = processor.patch_size, merge = processor.merge_size,
                frames = processor.temporal_patch_size;
  Patches patches;
  patches.grid_h = resized.height / patch;
  patches.grid_w = resized.width / patch;
  const auto frame_floats = checked_mul(3 * frames, patch * patch);
  const auto floats =
      frame_floats ? checked_mul(patches.grid_h * patches.grid_w, *frame_floats) : std::nullopt;
  if (!floats || *floats > 8 * 3 * kMaxResizedPixels) {
    fail("{}: {} patches of {} frames are too many", what, patches.grid_h * patches.grid_w, frames);
  }
  patches.pixels = Matrix(patches.grid_h * patches.grid_w, *frame_floats);

  // Rows of the matrix: blocks of (merge, merge) patches, block by block along the rows of blocks.
  const int64_t blocks_w = patches.grid_w / merge;
  parallel_ranges(patches.pixels.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t block = row / (merge * merge), within = row % (merge * merge);
      const int64_t top = (block / blocks_w * merge + within / merge) * patch;
      const int64_t left = (block % blocks_w * merge + within % merge) * patch;
      float* out = patches.pixels.row(row);  // (3, frames, patch, patch)
      for (int64_t c = 0; c < 3; ++c) {
        const float* first_frame = out;
        out = copy_box(resized, values, c, top, left, {patch, patch}, out);
        for (int64_t frame = 1; frame < frames; ++frame) out = std::copy_n(first_frame, patch * patch, out);
      }
    }
  });
  return patches;
}

}  // namespace nibble::vision
