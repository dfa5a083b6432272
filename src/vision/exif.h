// Which way up a picture is: the EXIF orientation tag and, without one, XMP's.
#pragma once

#include <optional>
#include <string>

#include "vision/image.h"

namespace nibble::vision {

/// What a picture file says beside its pixels.
struct Metadata {
  std::optional<std::string> exif;  // TIFF bytes, with or without leading "Exif\0\0"
  bool exif_malformed = false;      // there was an EXIF block that could not be unpacked
  std::string xmp;                  // XML text
};

/// The orientation 1 to 8 as Pillow's ImageOps.exif_transpose finds it: tag 274 of the first directory; where
/// EXIF has none, tiff:Orientation of the XMP text. Malformed blocks and values mean 1, upright. Never
/// throws.
int orientation(const Metadata& metadata);

/// Turns a picture stored with this orientation upright. Other numbers than 2 to 8 change nothing.
Image apply_orientation(Image image, int orientation);

}  // namespace nibble::vision
