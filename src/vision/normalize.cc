#include "vision/normalize.h"

#include <cmath>
#include <cstddef>
#include <string>

#include "base/error.h"

namespace nibble::vision {
namespace {

std::array<double, 3> parse_channels(const io::Fields& fields, const char* key,
                                     const std::array<double, 3>& fallback) {
  std::array<double, 3> values = fallback;
  if (!fields.has(key)) return values;
  const io::Json& json = fields.json().at(key);
  if (json.is_number()) {
    values.fill(json.get<double>());
  } else if (json.is_array() && json.size() == values.size()) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (!json[i].is_number()) fail("{}: {} must hold three numbers", fields.what(), key);
      values[i] = json[i].get<double>();
    }
  } else {
    fail("{}: {} must be a number or a list of three", fields.what(), key);
  }
  return values;
}

}  // namespace

Normalization parse_normalization(const io::Fields& fields, const Normalization& defaults) {
  Normalization result;
  result.do_rescale = fields.boolean("do_rescale", defaults.do_rescale);
  result.do_normalize = fields.boolean("do_normalize", defaults.do_normalize);
  result.rescale_factor = fields.number("rescale_factor", defaults.rescale_factor);
  result.mean = parse_channels(fields, "image_mean", defaults.mean);
  result.std = parse_channels(fields, "image_std", defaults.std);
  for (const double std : result.std) {
    if (static_cast<float>(std) == 0.0f) fail("{}: image_std must not be 0", fields.what());
  }
  return result;
}

PixelValues pixel_values(const Normalization& normalization) {
  PixelValues values{};
  for (size_t c = 0; c < values.size(); ++c) {
    const auto mean = static_cast<float>(normalization.mean[c]),
               std = static_cast<float>(normalization.std[c]);
    for (int byte = 0; byte < 256; ++byte) {
      auto value = static_cast<float>(byte);
      if (normalization.do_rescale) value = static_cast<float>(byte * normalization.rescale_factor);
      if (normalization.do_normalize) value = (value - mean) / std;
      values[c][byte] = value;
    }
  }
  return values;
}

}  // namespace nibble::vision
