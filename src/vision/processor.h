// What the image processors share: their configuration, the reading of a picture as the reference does it,
// and cutting. Reference: transformers 4.57, image_transforms.py and image_utils.py.
#pragma once

#include <cstdint>
#include <string>

#include "io/json.h"
#include "vision/image.h"
#include "vision/normalize.h"

namespace nibble::vision {

struct Size {
  int64_t height = 0, width = 0;
};

/// Pixels of a resized picture; a guard against a configuration that asks for more memory than any machine
/// has.
inline constexpr int64_t kMaxResizedPixels = int64_t{1} << 28;

/// The image processor's own fields: those of `json`, or of "image_processor" in it, where transformers 5
/// puts them in processor_config.json. Throws Error naming `what` for anything but objects.
io::Fields image_processor_fields(const io::Json& json, const std::string& what);

/// The key "resample" with Pillow's numbers; `fallback` where it is missing. Throws Error for nearest
/// neighbours and for numbers that Pillow does not know.
Resample parse_resample(const io::Fields& fields, Resample fallback);

/// The picture as a processor sees it that guesses where the channels are from the shape of the array alone.
/// It takes a picture three pixels high for one of three channels whose pixels are the bytes of a row:
/// channel c, row y, column x of what it reads is byte (c * width + y) * 3 + x. Other pictures stay as they
/// are. Throws Error naming `what` for a picture one pixel high, which it takes for one of a single channel.
Image with_guessed_channels(const Image& image, const std::string& what);

/// resize() that throws Error naming `what` for a side of 0 and for more than kMaxResizedPixels.
Image resize_within_limits(const Image& image, Size size, Resample filter, const std::string& what);

/// Writes channel `channel` of the box of `size` pixels whose upper left corner is (top, left), row by row,
/// as `values` of its bytes; outside the picture the bytes are 0. Returns the end of what it wrote.
float* copy_box(const Image& image, const PixelValues& values, int64_t channel, int64_t top, int64_t left,
                Size size, float* out);

}  // namespace nibble::vision
