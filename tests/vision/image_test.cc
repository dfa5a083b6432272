// Decoding against Pillow's pixels, and what happens with files that are no pictures.
#include "vision/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "support/temp_folder.h"
#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

using ::testing::HasSubstr;

void expect_pixels(const Image& image, const io::Json& golden, const std::string& what) {
  EXPECT_EQ(image.width, golden[0].get<int64_t>()) << what;
  EXPECT_EQ(image.height, golden[1].get<int64_t>()) << what;
  EXPECT_EQ(pixel_hash(image), golden[2].get<std::string>()) << what;
}

std::string decode_error(const std::string& bytes) {
  return error_of([&] { decode_image(bytes, "cat.png"); });
}

/// `bytes` with a big-endian integer of four bytes at `at` replaced.
std::string with_u32(std::string bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (24 - 8 * i) & 0xff);
  return bytes;
}

TEST(DecodeImage, GivesPillowsPixels) {
  const io::Json& pictures = goldens()["pictures"];
  ASSERT_GT(pictures.size(), 100u);
  for (const io::Json& record : pictures) {
    const auto name = record["file"].get<std::string>();
    expect_pixels(decode_image(picture_bytes(name), name, false), record["stored"], name + " as stored");
    expect_pixels(decode_image(picture_bytes(name), name), record["upright"], name + " upright");
  }
}

TEST(DecodeImage, IsTheSameForAnyNumberOfThreads) {
  const int before = num_threads();
  for (const int threads : {1, 5}) {
    set_num_threads(threads);
    for (const io::Json& record : goldens()["pictures"]) {
      const auto name = record["file"].get<std::string>();
      expect_pixels(decode_image(picture_bytes(name), name), record["upright"], name);
    }
  }
  set_num_threads(before);
}

TEST(DecodeImage, GoesByContentNotByName) {
  const test::TempFolder folder;
  const auto path = folder / "a_png.jpg";
  io::write_file(path, picture_bytes("png_c2_d8.png"));
  EXPECT_EQ(pixel_hash(load_image(path)), pixel_hash(decode_image(picture_bytes("png_c2_d8.png"), "x")));
  std::filesystem::remove(path);
  EXPECT_THROW(load_image(path), Error);
}

TEST(DecodeImage, TurnsMirrorsAndTransposes) {
  const Image stored = decode_image(picture_bytes("exif_1.png"), "x");
  const auto pixel = [](const Image& image, int64_t x, int64_t y) {
    return image.rgb[(y * image.width + x) * 3];
  };
  const Image clockwise = decode_image(picture_bytes("exif_6.png"), "x");
  const Image mirrored = decode_image(picture_bytes("exif_2.png"), "x");
  ASSERT_EQ(clockwise.width, stored.height);
  ASSERT_EQ(clockwise.height, stored.width);
  for (int64_t y = 0; y < stored.height; ++y) {
    for (int64_t x = 0; x < stored.width; ++x) {
      EXPECT_EQ(pixel(clockwise, stored.height - 1 - y, x), pixel(stored, x, y));
      EXPECT_EQ(pixel(mirrored, stored.width - 1 - x, y), pixel(stored, x, y));
    }
  }
}

TEST(DecodeImage, RefusesWhatIsNoPicture) {
  EXPECT_THAT(decode_error(""), HasSubstr("cat.png: empty, not a PNG, JPEG or WebP picture"));
  EXPECT_THAT(decode_error("hello"), HasSubstr("cat.png: not a PNG, JPEG or WebP picture"));
  EXPECT_THAT(decode_error("GIF89a\1\0\1\0"), HasSubstr("not a PNG, JPEG or WebP picture but GIF"));
  EXPECT_THAT(decode_error("BM......"), HasSubstr("but BMP"));
  EXPECT_THAT(decode_error(std::string("II*\0\10\0\0\0", 8)), HasSubstr("but TIFF"));
  EXPECT_THAT(decode_error(std::string("MM\0*\0\0\0\10", 8)), HasSubstr("but TIFF"));
  EXPECT_THAT(decode_error("RIFF\1\1\1\1WAVEfmt ...."), HasSubstr("not a PNG, JPEG or WebP picture"));
}

TEST(DecodeImage, RefusesEveryStartOfAFileThatPillowRefuses) {
  int64_t refused = 0;
  for (const io::Json& record : goldens()["pictures"]) {
    if (!record.contains("readable_from")) continue;
    const auto name = record["file"].get<std::string>();
    const std::string bytes = picture_bytes(name);
    const auto changes = record["readable_from"].get<std::vector<size_t>>();
    for (size_t length = 0; length <= bytes.size(); ++length) {
      const std::string error =
          error_of([&] { decode_image(std::string_view(bytes).substr(0, length), name); });
      const auto passed = std::upper_bound(changes.begin(), changes.end(), length) - changes.begin();
      ASSERT_EQ(error.empty(), passed % 2 == 1) << name << " cut to " << length << ": " << error;
      refused += error.empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 10000);
}

TEST(DecodeImage, NamesTruncationAndDamage) {
  const std::string png = picture_bytes("png_c2_d8.png"), jpeg = picture_bytes("jpeg_rgb_0.jpg");
  const std::string webp = picture_bytes("webp_rgb_lossy.webp");
  EXPECT_THAT(decode_error(png.substr(0, png.size() / 2)), HasSubstr("cat.png: truncated PNG"));
  EXPECT_THAT(decode_error(jpeg.substr(0, jpeg.size() / 2)), HasSubstr("cat.png: truncated JPEG"));
  EXPECT_THAT(decode_error(webp.substr(0, webp.size() / 2)), HasSubstr("cat.png: damaged or truncated WebP"));
  std::string flipped = png;
  flipped[20] = static_cast<char>(flipped[20] ^ 1);  // in the header
  EXPECT_THAT(decode_error(flipped), HasSubstr("chunk IHDR has a wrong checksum"));
}

TEST(DecodeImage, RefusesSizesBeforeItAsksForMemory) {
  // Width and height of a JPEG stand in its frame header, of a lossless or extended WebP in its first chunk.
  std::string jpeg = picture_bytes("jpeg_rgb_0.jpg");
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  EXPECT_THAT(decode_error(with_u32(jpeg, frame + 5, 0xfde8fde8)),
              HasSubstr("65000 x 65000 pixels, the limit is"));
  EXPECT_THAT(decode_error(with_u32(jpeg, frame + 5, 0x00000010)), HasSubstr("damaged JPEG"));
  jpeg.resize(jpeg.size() - 2);  // without its end marker, which lets the decoder fill up missing rows
  EXPECT_THAT(decode_error(with_u32(jpeg, frame + 5, 0xfde80a00)), HasSubstr("truncated JPEG"));
  std::string webp = picture_bytes("webp_rgba_animated.webp");
  ASSERT_EQ(webp.substr(12, 4), "VP8X");
  webp.replace(24, 6, std::string("\xff\x3f\0\xff\x3f\0", 6));
  EXPECT_THAT(decode_error(webp), HasSubstr("16384 x 16384 pixels, the limit is 178956970 pixels"));
}

TEST(DecodeImage, TheLimitIsTheCallers) {
  for (const char* name : {"jpeg_rgb_0.jpg", "jpeg_rgb_0_progressive.jpg", "png_c2_d8.png",
                           "webp_rgb_lossy.webp", "webp_rgb_lossless.webp"}) {
    const std::string bytes = picture_bytes(name);
    const Image image = decode_image(bytes, name);
    const int64_t pixels = image.width * image.height;
    EXPECT_EQ(decode_image(bytes, name, true, pixels).rgb, image.rgb) << name;
    EXPECT_THAT(error_of([&] { decode_image(bytes, name, true, pixels - 1); }),
                HasSubstr(fmt::format("the limit is {} pixels in all", pixels - 1)));
  }
}

TEST(DecodeImage, RefusesThousandsOfScans) {
  const std::string jpeg = picture_bytes("jpeg_rgb_0_progressive.jpg");
  const size_t scan = jpeg.rfind("\xff\xda"), end = jpeg.size() - 2;
  const auto with_scans = [&](int count) {
    std::string bytes = jpeg.substr(0, end);
    for (int i = 0; i < count; ++i) bytes += jpeg.substr(scan, end - scan);
    return bytes + jpeg.substr(end);
  };
  EXPECT_EQ(decode_error(with_scans(50)), "");
  EXPECT_THAT(decode_error(with_scans(3000)), HasSubstr("damaged JPEG, more than 100 scans"));
}

/// Every kind of file with bits turned over: an Error or a picture whose size fits its pixels, never anything
/// else.
TEST(DecodeImage, SurvivesDamage) {
  std::mt19937 random(7);
  int64_t errors = 0, pictures = 0;
  for (const io::Json& record : goldens()["pictures"]) {
    const std::string bytes = picture_bytes(record["file"].get<std::string>());
    for (int i = 0; i < 60; ++i) {
      std::string damaged = bytes;
      const int flips = 1 << (random() % 4);
      for (int k = 0; k < flips; ++k) {
        // Half of all damage in the first bytes, where the headers are.
        const size_t at = random() % (k % 2 == 0 ? std::min<size_t>(damaged.size(), 80) : damaged.size());
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
      }
      try {
        const Image image = decode_image(damaged, "damaged");
        ASSERT_GE(image.width, 1);
        ASSERT_GE(image.height, 1);
        ASSERT_EQ(image.rgb.size(), static_cast<size_t>(image.width * image.height * 3));
        ++pictures;
      } catch (const Error&) {
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 1000);
  EXPECT_GT(pictures, 1000);
}

}  // namespace
}  // namespace nibble::vision
