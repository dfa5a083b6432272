// What the tests of src/vision share: goldens, and pictures that the goldens' script can make too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "io/json.h"
#include "vision/image.h"

namespace nibble::vision {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(NIBBLE_ROOT) / "tests" / "vision" / "goldens";
}

/// goldens.json, as make_goldens.py writes it.
inline const io::Json& goldens() {
  static const io::Json json = io::read_json(golden_folder() / "goldens.json");
  return json;
}

inline std::string picture_bytes(const std::string& name) {
  return io::read_file(golden_folder() / "pictures" / name);
}

inline std::string pixel_hash(const Image& image) {
  return sha256({reinterpret_cast<const char*>(image.rgb.data()), image.rgb.size()});
}

/// pattern() of make_goldens.py: blocks of noise and of ramps.
inline Image pattern(int64_t width, int64_t height) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  uint8_t* out = image.rgb.data();
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        const auto mixed =
            static_cast<uint64_t>(x * 7919 + y * 104729 + c * 1299721 + x * y * 31) * 2654435761u;
        const int64_t wave = (x * (3 + c) + y * (5 - c)) % 511;
        const bool noisy = (x / 8 + y / 8) % 2 == 0;
        *out++ = static_cast<uint8_t>(noisy ? (mixed >> 15) & 255 : wave > 255 ? 510 - wave : wave);
      }
    }
  }
  return image;
}

/// The text of the Error that a call throws; empty when it throws none.
template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace nibble::vision
