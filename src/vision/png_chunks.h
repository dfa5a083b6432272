// The chunks of a PNG file: header, palette, the pieces of image data and the metadata, read as Pillow reads
// them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "vision/exif.h"

namespace nibble::vision {

struct PngChunks {
  int64_t width = 0, height = 0;
  int bit_depth = 0, color_type = 0;
  bool interlaced = false;
  std::array<std::array<uint8_t, 3>, 256> palette{};  // black beyond the entries in the file
  std::vector<std::string_view> data;                 // the first run of IDAT chunks; parts of `bytes`
  bool data_cut = false;                              // the file ends inside the last of them
  Metadata metadata;
};

/// Walks all chunks of `bytes`, which start with the PNG signature and must outlive the result. Checksums
/// count up to the image data, as in Pillow; a missing IEND is no error. Throws Error naming `what` for a
/// damaged or truncated file and for an unknown combination of depth and colour. The size is not checked.
PngChunks read_png_chunks(std::string_view bytes, std::string_view what);

}  // namespace nibble::vision
