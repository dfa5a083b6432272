// The three decoders behind decode_image. Each gives the stored pixels as RGB, before orientation.
#pragma once

#include <cstdint>
#include <string_view>

#include "vision/exif.h"
#include "vision/image.h"

namespace nibble::vision {

struct Decoded {
  Image image;
  Metadata metadata;
};

/// Throw Error naming `what` for pictures that are damaged, truncated or of more than `max_pixels`.
Decoded decode_png(std::string_view bytes, std::string_view what, int64_t max_pixels);
Decoded decode_jpeg(std::string_view bytes, std::string_view what, int64_t max_pixels);
Decoded decode_webp(std::string_view bytes, std::string_view what, int64_t max_pixels);

/// Throws Error for a side below 1 and for more pixels than `max_pixels`.
void check_picture_size(int64_t width, int64_t height, int64_t max_pixels, std::string_view what);

}  // namespace nibble::vision
