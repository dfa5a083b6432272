#include "vision/processor.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/checked.h"
#include "base/error.h"

namespace nibble::vision {

io::Fields image_processor_fields(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  return fields.has("image_processor") ? fields.object("image_processor") : fields;
}

Resample parse_resample(const io::Fields& fields, Resample fallback) {
  if (!fields.has("resample")) return fallback;
  struct Filter {
    const char* name;
    std::optional<Resample> filter;
  };
  static constexpr std::array<Filter, 6> kFilters{{{"nearest", {}},
                                                   {"lanczos", Resample::lanczos},
                                                   {"bilinear", Resample::bilinear},
                                                   {"bicubic", Resample::bicubic},
                                                   {"box", Resample::box},
                                                   {"hamming", Resample::hamming}}};
  const int64_t code = fields.integer("resample");
  const bool named = code >= 0 && code < static_cast<int64_t>(kFilters.size());
  if (!named || !kFilters[code].filter) {
    fail(
        "{}: resample {} ({}) is not supported; use 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 "
        "(hamming)",
        fields.what(), code, named ? kFilters[code].name : "unknown");
  }
  return *kFilters[code].filter;
}

Image with_guessed_channels(const Image& image, const std::string& what) {
  if (image.height == 1) {
    fail(
        "{}: picture one pixel high, which the image processor takes for one of a single channel; make it "
        "higher",
        what);
  }
  if (image.height != 3) return image;
  Image guessed{3, image.width, std::vector<uint8_t>(image.rgb.size())};
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t y = 0; y < image.width; ++y) {
      for (int64_t x = 0; x < 3; ++x) {
        guessed.rgb[(y * 3 + x) * 3 + c] = image.rgb[(c * image.width + y) * 3 + x];
      }
    }
  }
  return guessed;
}

Image resize_within_limits(const Image& image, Size size, Resample filter, const std::string& what) {
  const auto pixels = checked_mul(size.height, size.width);
  if (!pixels || *pixels < 1 || *pixels > kMaxResizedPixels) {
    fail("{}: {} x {} pixels would be resized to {} x {}", what, image.width, image.height, size.width,
         size.height);
  }
  return resize(image, size.width, size.height, filter);
}

float* copy_box(const Image& image, const PixelValues& values, int64_t channel, int64_t top, int64_t left,
                Size size, float* out) {
  const int64_t rows = std::clamp<int64_t>(image.height - top, 0, size.height);
  const int64_t columns = std::clamp<int64_t>(image.width - left, 0, size.width);
  const std::array<float, 256>& value = values[channel];
  for (int64_t y = 0; y < rows; ++y) {
    const uint8_t* in = image.rgb.data() + ((top + y) * image.width + left) * 3 + channel;
    for (int64_t x = 0; x < columns; ++x) *out++ = value[in[x * 3]];
    out = std::fill_n(out, size.width - columns, value[0]);
  }
  return std::fill_n(out, (size.height - rows) * size.width, value[0]);
}

}  // namespace nibble::vision
