// Pictures: decoding, resizing, cutting into patches. Pixels equal to Pillow's and to the slow image
// processors of transformers 4.57.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace nibble::vision {

/// An RGB picture, rows top to bottom, 3 bytes a pixel.
struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  // (height, width, 3)
};

/// Twice Pillow's Image.MAX_IMAGE_PIXELS: beyond it Pillow refuses a picture as a decompression bomb.
inline constexpr int64_t kMaxPixels = 2 * (int64_t{1024} * 1024 * 1024 / 4 / 3);

/// Decodes PNG, JPEG or WebP by content, not by name, and converts to RGB as Pillow's Image.open(f) followed
/// by convert("RGB") does: palettes looked up, grey spread (16-bit grey clipped to 255 as Pillow does), alpha
/// and transparency dropped, CMYK JPEG taken for inverted; an animation gives its first frame. Where
/// `orient`, the picture is then turned by its EXIF (else XMP) orientation as ImageOps.exif_transpose does.
/// Thread-safe. Throws Error naming `what`: not a picture, damaged, truncated, of more than `max_pixels`
/// (which is known before memory is asked for).
Image decode_image(std::string_view bytes, std::string_view what, bool orient = true,
                   int64_t max_pixels = kMaxPixels);
Image load_image(const std::filesystem::path& path, bool orient = true);

enum class Resample { bilinear, bicubic, lanczos, box, hamming };

/// Resizes as Pillow 13's Image.resize for RGB, equal to the last bit: two passes with bytes between them,
/// fixed-point weights of 22 bits, support scaled when shrinking. (Up to Pillow 12 the order of the passes
/// differs where the height shrinks much.) Sizes must be at least 1. Thread-safe, runs on several threads.
Image resize(const Image& image, int64_t width, int64_t height, Resample filter);

}  // namespace nibble::vision
