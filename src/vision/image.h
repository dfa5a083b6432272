// Pictures: decoding, resizing, cutting into patches. Pixels equal to Pillow's and to the slow image processors
// of transformers 4.57.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "tensor/tensor.h"

namespace nibble::vision {

/// An RGB picture, rows top to bottom, 3 bytes a pixel.
struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  // (height, width, 3)
};

/// Decodes PNG, JPEG or WebP by content, not by name, and converts to RGB as Pillow's Image.open(f) followed by
/// convert("RGB") does: palettes looked up, grey spread (16-bit grey clipped to 255 as Pillow does), alpha and
/// transparency dropped, CMYK JPEG inverted where Adobe says so; then EXIF orientation applied where `orient`.
/// Throws Error naming `what`: not a picture, truncated, larger than 179 megapixels (Pillow's bomb limit).
Image decode_image(std::string_view bytes, std::string_view what, bool orient = true);
Image load_image(const std::filesystem::path& path, bool orient = true);

enum class Resample { bilinear, bicubic };

/// Resizes as Pillow's Image.resize for RGB: two passes, 8-bit fixed-point coefficients with 22 bits, support
/// scaled when shrinking, equal to the last bit.
Image resize(const Image& image, int64_t width, int64_t height, Resample filter);

}  // namespace nibble::vision
