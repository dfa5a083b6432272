// What the tests of src/vision share: goldens, and pictures that the goldens' script can make too.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/json.h"
#include "tensor/tensor.h"
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

/// mllama_pixtral.json, as make_goldens_mllama_pixtral.py writes it.
inline const io::Json& mllama_pixtral_goldens() {
  static const io::Json json = io::read_json(golden_folder() / "mllama_pixtral.json");
  return json;
}

inline std::string value_hash(const Matrix& values) {
  const auto bytes = static_cast<size_t>(values.rows() * values.cols()) * sizeof(float);
  return sha256({reinterpret_cast<const char*>(values.data()), bytes});
}

/// Expects a golden record's "shape", "first" values and "sha256".
inline void expect_values(const Matrix& values, const io::Json& record) {
  ASSERT_EQ((std::vector<int64_t>{values.rows(), values.cols()}),
            record.at("shape").get<std::vector<int64_t>>())
      << record.dump();
  for (size_t i = 0; i < record.at("first").size(); ++i) {
    EXPECT_EQ(values.data()[i], record.at("first")[i].get<float>()) << record.dump();
  }
  EXPECT_EQ(value_hash(values), record.at("sha256").get<std::string>()) << record.dump();
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

/// Expects the same values of preprocess(picture, Processor{}) with one thread and with several.
template <typename Processor>
void expect_same_for_any_number_of_threads() {
  const Image image = pattern(300, 200);
  const int before = num_threads();
  set_num_threads(1);
  const std::string alone = value_hash(preprocess(image, Processor{}, "x").pixels);
  set_num_threads(6);
  EXPECT_EQ(value_hash(preprocess(image, Processor{}, "x").pixels), alone);
  set_num_threads(before);
}

/// A processor from the text of its configuration, and the error that reading it throws.
template <typename Processor>
Processor parse_text(const std::string& text) {
  return Processor::parse(io::parse_json(text, "config"), "config");
}

template <typename Processor>
std::string parse_text_error(const std::string& text) {
  return error_of([&] { parse_text<Processor>(text); });
}

/// Expects what preprocess() makes of each record's "config" and pattern of "width" x "height": an error that
/// names the picture where "sha256" is empty, else its values and what `check(result, record)` looks at.
/// Returns the number of errors.
template <typename Processor, typename Check>
int expect_golden_pictures(const io::Json& records, const Check& check) {
  int refused = 0;
  for (const io::Json& record : records) {
    const auto processor = Processor::parse(record["config"], "config");
    const Image image = pattern(record["width"].get<int64_t>(), record["height"].get<int64_t>());
    if (record.at("sha256").get<std::string>().empty()) {
      EXPECT_TRUE(error_of([&] { preprocess(image, processor, "cat.png"); }).starts_with("cat.png: "))
          << record.dump();
      ++refused;
      continue;
    }
    const auto result = preprocess(image, processor, "cat.png");
    check(result, record);
    expect_values(result.pixels, record);
  }
  return refused;
}

}  // namespace nibble::vision
