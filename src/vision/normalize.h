// Rescaling and normalising of pixels, shared by the image processors.
// Reference: transformers 4.57, image_transforms.py (rescale, normalize).
#pragma once

#include <array>
#include <string_view>

#include "io/json.h"

namespace nibble::vision {

/// Mean and standard deviation of OpenAI's CLIP, the default of the image processors.
inline constexpr std::array<double, 3> kClipMean{0.48145466, 0.4578275, 0.40821073};
inline constexpr std::array<double, 3> kClipStd{0.26862954, 0.26130258, 0.27577711};

struct Normalization {
  bool do_rescale = true, do_normalize = true;
  double rescale_factor = 1.0 / 255;
  std::array<double, 3> mean = kClipMean, std = kClipStd;
};

/// Reads do_rescale, do_normalize, rescale_factor, image_mean and image_std (three numbers, or one for all
/// channels); a missing key keeps the value of `defaults`. Throws Error for other lengths and for a zero std.
Normalization parse_normalization(const io::Fields& fields, const Normalization& defaults = {});

/// The value of every byte in every channel, (3, 256): pixels have 256 values, so a table holds them all.
using PixelValues = std::array<std::array<float, 256>, 3>;

/// Equal to the last bit to numpy's steps: byte * factor in double rounded to float, then (value - mean) /
/// std with all three in float.
PixelValues pixel_values(const Normalization& normalization);

}  // namespace nibble::vision
