// Resizing against Pillow, to the last bit.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/error.h"
#include "base/threads.h"
#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

Resample filter_of(const std::string& name) {
  static const std::map<std::string, Resample> kFilters{{"bilinear", Resample::bilinear},
                                                        {"bicubic", Resample::bicubic},
                                                        {"lanczos", Resample::lanczos},
                                                        {"box", Resample::box},
                                                        {"hamming", Resample::hamming}};
  return kFilters.at(name);
}

TEST(Resize, GivesPillowsPixels) {
  ASSERT_GT(goldens()["resizes"].size(), 250u);
  for (const io::Json& record : goldens()["resizes"]) {
    const Image image = pattern(record[0].get<int64_t>(), record[1].get<int64_t>());
    const auto width = record[2].get<int64_t>(), height = record[3].get<int64_t>();
    const Image resized = resize(image, width, height, filter_of(record[4].get<std::string>()));
    EXPECT_EQ(resized.width, width);
    EXPECT_EQ(resized.height, height);
    EXPECT_EQ(pixel_hash(resized), record[5].get<std::string>()) << record.dump();
  }
}

TEST(Resize, IsTheSameForAnyNumberOfThreads) {
  const Image image = pattern(150, 170);
  const int before = num_threads();
  set_num_threads(1);
  const Image alone = resize(image, 99, 333, Resample::bicubic);
  set_num_threads(7);
  EXPECT_EQ(resize(image, 99, 333, Resample::bicubic).rgb, alone.rgb);
  set_num_threads(before);
}

TEST(Resize, KeepsAPlainColor) {
  const Image plain{9, 5, std::vector<uint8_t>(9 * 5 * 3, 200)};
  for (const Resample filter :
       {Resample::bilinear, Resample::bicubic, Resample::lanczos, Resample::box, Resample::hamming}) {
    for (const uint8_t byte : resize(plain, 31, 3, filter).rgb) ASSERT_EQ(byte, 200);
  }
}

TEST(Resize, ChecksItsArguments) {
  const Image image = pattern(4, 4);
  EXPECT_THROW(resize(image, 0, 4, Resample::bilinear), InternalError);
  EXPECT_THROW(resize(image, 4, -1, Resample::bilinear), InternalError);
  EXPECT_THROW(resize({4, 4, {}}, 2, 2, Resample::bilinear), InternalError);
}

}  // namespace
}  // namespace nibble::vision
