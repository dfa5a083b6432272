#include "vision/image.h"

#include <array>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/json.h"
#include "vision/decode.h"
#include "vision/exif.h"

namespace nibble::vision {
namespace {

bool is_webp(std::string_view bytes) {
  if (bytes.size() < 16 || !bytes.starts_with("RIFF") || bytes.substr(8, 4) != "WEBP") return false;
  const std::string_view chunk = bytes.substr(12, 4);
  return chunk == "VP8 " || chunk == "VP8L" || chunk == "VP8X";
}

/// A hint for people who give another kind of file.
std::string_view guess_kind(std::string_view bytes) {
  struct Magic {
    std::string_view start, name;
  };
  constexpr std::array<Magic, 7> kKinds{{{"GIF8", "GIF"},
                                         {"BM", "BMP"},
                                         {{"II*\0", 4}, "TIFF"},
                                         {{"MM\0*", 4}, "TIFF"},
                                         {"%PDF", "PDF"},
                                         {"<svg", "SVG"},
                                         {"<?xml", "XML"}}};
  for (const Magic& kind : kKinds) {
    if (bytes.starts_with(kind.start)) return kind.name;
  }
  return {};
}

}  // namespace

void check_picture_size(int64_t width, int64_t height, int64_t max_pixels, std::string_view what) {
  if (width < 1 || height < 1) fail("{}: picture of {} x {} pixels, it has no area", what, width, height);
  const auto pixels = checked_mul(width, height);
  if (!pixels || *pixels > max_pixels) {
    fail("{}: picture of {} x {} pixels, the limit is {} pixels in all; make it smaller", what, width, height,
         max_pixels);
  }
}

Image decode_image(std::string_view bytes, std::string_view what, bool orient, int64_t max_pixels) {
  Decoded decoded;
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) {
    decoded = decode_png(bytes, what, max_pixels);
  } else if (bytes.starts_with("\xff\xd8\xff")) {
    decoded = decode_jpeg(bytes, what, max_pixels);
  } else if (is_webp(bytes)) {
    decoded = decode_webp(bytes, what, max_pixels);
  } else if (bytes.empty()) {
    fail("{}: empty, not a PNG, JPEG or WebP picture", what);
  } else if (const std::string_view kind = guess_kind(bytes); !kind.empty()) {
    fail("{}: not a PNG, JPEG or WebP picture but {}; convert it to one of these", what, kind);
  } else {
    fail("{}: not a PNG, JPEG or WebP picture", what);
  }
  if (!orient) return std::move(decoded.image);
  return apply_orientation(std::move(decoded.image), orientation(decoded.metadata));
}

Image load_image(const std::filesystem::path& path, bool orient) {
  return decode_image(io::read_file(path), path.string(), orient);
}

}  // namespace nibble::vision
