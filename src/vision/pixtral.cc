#include "vision/pixtral.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace nibble::vision {
namespace {

constexpr int64_t kMaxPatch = 1 << 12;

int64_t parse_patch_size(const io::Fields& fields, int64_t fallback) {
  if (!fields.has("patch_size")) return fallback;
  const io::Json& json = fields.json().at("patch_size");
  if (!json.is_array() && !json.is_object()) return fields.dimension("patch_size", kMaxPatch);
  if (json.is_array() && json.size() != 2) fail("{}: patch_size must hold height and width", fields.what());
  const io::Json sides = json.is_array() ? io::Json{{"height", json[0]}, {"width", json[1]}} : json;
  const io::Fields size(sides, fields.what() + ": patch_size");
  const int64_t height = size.dimension("height", kMaxPatch), width = size.dimension("width", kMaxPatch);
  if (height != width) fail("{}: height and width must be equal, not {} and {}", size.what(), height, width);
  return height;
}

Size parse_limit(const io::Fields& fields, Size fallback) {
  if (!fields.has("size")) return fallback;
  const io::Fields size = fields.object("size");
  if (size.has("longest_edge")) {
    const int64_t edge = size.dimension("longest_edge");
    return {edge, edge};
  }
  if (!size.has("height") || !size.has("width")) {
    fail("{}: must have longest_edge, or height and width", size.what());
  }
  return {size.dimension("height"), size.dimension("width")};
}

}  // namespace

PixtralProcessor PixtralProcessor::parse(const io::Json& json, const std::string& what) {
  const io::Fields fields = image_processor_fields(json, what);
  PixtralProcessor result;
  result.do_resize = fields.boolean("do_resize", result.do_resize);
  if (result.do_resize) result.limit = parse_limit(fields, result.limit);
  result.patch_size = parse_patch_size(fields, result.patch_size);
  result.normalization = parse_normalization(fields, result.normalization);
  result.resample = parse_resample(fields, result.resample);
  if (&fields.json() != &json) result.use_processor_config(json, what);
  return result;
}

void PixtralProcessor::use_processor_config(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  const int64_t patch = fields.dimension("patch_size", 16, kMaxPatch);
  const int64_t merge = fields.dimension("spatial_merge_size", 1, kMaxPatch);
  if (patch * merge > kMaxPatch) {
    fail("{}: patch_size * spatial_merge_size is {}, more than {}", what, patch * merge, kMaxPatch);
  }
  patch_size = patch * merge;
}

Size pixtral_size(Size picture, Size limit, int64_t patch_size) {
  NIBBLE_CHECK(picture.height >= 1 && picture.width >= 1 && limit.height >= 1 && limit.width >= 1 &&
               patch_size >= 1);
  const auto height = static_cast<double>(picture.height), width = static_cast<double>(picture.width);
  const double ratio =
      std::max(height / static_cast<double>(limit.height), width / static_cast<double>(limit.width));
  if (ratio > 1) {
    picture = {static_cast<int64_t>(std::floor(height / ratio)),
               static_cast<int64_t>(std::floor(width / ratio))};
  }
  const auto rounded_up = [&](int64_t side) { return (side + patch_size - 1) / patch_size * patch_size; };
  return {rounded_up(picture.height), rounded_up(picture.width)};
}

PixtralImage preprocess(const Image& image, const PixtralProcessor& processor, const std::string& what) {
  NIBBLE_CHECK(image.width >= 1 && image.height >= 1);
  const int64_t patch = processor.patch_size;
  Image resized = with_guessed_channels(image, what);
  if (processor.do_resize) {
    const Size size = pixtral_size({resized.height, resized.width}, processor.limit, patch);
    resized = resize_within_limits(resized, size, processor.resample, what);
  }
  PixtralImage result;
  result.grid_h = resized.height / patch;
  result.grid_w = resized.width / patch;
  if (result.grid_h < 1 || result.grid_w < 1) {
    fail("{}: {} x {} pixels are less than a patch of {}, and do_resize is off", what, resized.width,
         resized.height, patch);
  }
  const PixelValues values = pixel_values(processor.normalization);
  result.pixels = Matrix(result.grid_h * result.grid_w, 3 * patch * patch);
  parallel_ranges(result.pixels.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t top = row / result.grid_w * patch, left = row % result.grid_w * patch;
      float* out = result.pixels.row(row);  // (3, patch, patch)
      for (int64_t c = 0; c < 3; ++c) out = copy_box(resized, values, c, top, left, {patch, patch}, out);
    }
  });
  return result;
}

}  // namespace nibble::vision
