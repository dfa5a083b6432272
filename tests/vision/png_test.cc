// PNG files put together by hand: sizes, checksums, and what belongs to nobody.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

using ::testing::HasSubstr;

std::string u32(uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(value >> shift & 0xff));
  return bytes;
}

std::string chunk(const std::string& name, const std::string& data) {
  const std::string body = name + data;
  const auto sum = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return u32(static_cast<uint32_t>(data.size())) + body + u32(static_cast<uint32_t>(sum));
}

std::string header(uint32_t width, uint32_t height, int depth, int color, int filter = 0, int interlace = 0) {
  const std::string tail{static_cast<char>(depth), static_cast<char>(color), 0, static_cast<char>(filter),
                         static_cast<char>(interlace)};
  return chunk("IHDR", u32(width) + u32(height) + tail);
}

std::string deflated(const std::string& raw) {
  std::string packed(compressBound(raw.size()), '\0');
  uLongf size = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
           raw.size());
  packed.resize(size);
  return packed;
}

const std::string kSignature = "\x89PNG\r\n\x1a\n";
const std::string kEnd = chunk("IEND", "");
const std::string kTwoGreys("\0\x11\0\x22", 4);  // rows of one grey pixel behind their filter bytes

std::string decode_error(const std::string& bytes) {
  return error_of([&] { decode_image(bytes, "cat.png"); });
}

TEST(Png, ReadsTheSmallestFile) {
  const std::string data = chunk("IDAT", deflated(kTwoGreys));
  const Image image = decode_image(kSignature + header(1, 2, 8, 0) + data + kEnd, "x");
  EXPECT_EQ(image.width, 1);
  EXPECT_EQ(image.height, 2);
  EXPECT_THAT(image.rgb, testing::ElementsAre(0x11, 0x11, 0x11, 0x22, 0x22, 0x22));
}

TEST(Png, NeedsNoEndChunkAndNoSumsOnImageData) {
  std::string data = chunk("IDAT", deflated(kTwoGreys));
  data.back() = static_cast<char>(data.back() ^ 1);
  EXPECT_EQ(decode_image(kSignature + header(1, 2, 8, 0) + data, "x").rgb[3], 0x22);
}

TEST(Png, RefusesSizes) {
  const std::string data = chunk("IDAT", deflated(kTwoGreys)) + kEnd;
  EXPECT_THAT(decode_error(kSignature + header(0, 2, 8, 0) + data),
              HasSubstr("0 x 2 pixels, it has no area"));
  EXPECT_THAT(decode_error(kSignature + header(1, 0, 8, 0) + data), HasSubstr("has no area"));
  EXPECT_THAT(decode_error(kSignature + header(0xffffffff, 0xffffffff, 8, 0) + data),
              HasSubstr("the limit is"));
  EXPECT_THAT(decode_error(kSignature + header(178956971, 1, 8, 0) + data), HasSubstr("the limit is"));
  EXPECT_THAT(decode_error(kSignature + header(178956970, 1, 8, 0) + data), HasSubstr("truncated PNG"));
  EXPECT_THAT(decode_error(kSignature + header(1, 3, 8, 0) + data),
              HasSubstr("truncated PNG, rows are missing"));
}

TEST(Png, RefusesBrokenStructure) {
  const std::string data = chunk("IDAT", deflated(kTwoGreys));
  EXPECT_THAT(decode_error(kSignature), HasSubstr("truncated PNG"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 0) + kEnd), HasSubstr("has no image data"));
  EXPECT_THAT(decode_error(kSignature + data + kEnd), HasSubstr("depth 0 with colour type 0"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 3, 0) + data), HasSubstr("depth 3 with colour type 0"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 16, 3) + data),
              HasSubstr("depth 16 with colour type 3"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 5) + data), HasSubstr("colour type 5"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 0, 1) + data), HasSubstr("unknown filter method 1"));
  EXPECT_THAT(decode_error(kSignature + chunk("IHDR", "short") + data), HasSubstr("header has 5 bytes"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 0) + u32(1) + "?@AB" + data),
              HasSubstr("no chunk name"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 0) + u32(0xfffffff0) + "tEXt"),
              HasSubstr("tEXt is cut"));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 0) + chunk("IDAT", "no zlib stream")),
              HasSubstr("PNG"));
  const std::string long_palette = chunk("PLTE", std::string(257 * 3, 'x'));
  EXPECT_THAT(decode_error(kSignature + header(1, 2, 8, 3) + long_palette + data),
              HasSubstr("palette of 771 bytes"));
}

TEST(Png, RefusesAFirstFrameThatIsNotThePicture) {
  const auto frame = [](uint32_t width, uint32_t x) {
    return chunk("fcTL", u32(0) + u32(width) + u32(2) + u32(x) + u32(0) + std::string(6, '\0'));
  };
  const std::string data = chunk("IDAT", deflated(kTwoGreys)) + kEnd, start = kSignature + header(1, 2, 8, 0);
  EXPECT_EQ(decode_error(start + frame(1, 0) + data), "");
  EXPECT_THAT(decode_error(start + frame(2, 0) + data), HasSubstr("does not cover the picture"));
  EXPECT_THAT(decode_error(start + frame(1, 1) + data), HasSubstr("does not cover the picture"));
  EXPECT_THAT(decode_error(start + chunk("fcTL", "x") + data), HasSubstr("fcTL has 1 bytes"));
}

TEST(Png, StopsUnpackingTextsThatGrowTooLarge) {
  const std::string bomb = deflated(std::string(8 << 20, ' ') + "tiff:Orientation=\"6\"");
  const std::string text = chunk("zTXt", std::string("XML:com.adobe.xmp\0\0", 19) + bomb);
  const std::string data = chunk("IDAT", deflated(kTwoGreys)) + kEnd;
  std::string texts;
  for (int i = 0; i < 2000; ++i) texts += text;
  const Image image = decode_image(kSignature + header(1, 2, 8, 0) + texts + data, "x");
  EXPECT_EQ(image.width, 1);  // not turned
}

TEST(Png, IgnoresTextsThatAreNoExif) {
  const std::string key("Raw profile type exif\0", 22);
  const std::string data = chunk("IDAT", deflated(kTwoGreys)) + kEnd;
  for (const std::string value :
       {"", "\n", "\nexif\n", "\nexif\n8\n", "\nexif\n8\nxyz\n", "\nexif\n8\n4949\n", "\nexif\n8\n494\n"}) {
    const Image image =
        decode_image(kSignature + header(1, 2, 8, 0) + chunk("tEXt", key + value) + data, "x");
    EXPECT_EQ(image.height, 2) << value;
  }
}

}  // namespace
}  // namespace nibble::vision
