// Qwen2-VL's image processor against transformers' slow one.
#include "vision/qwen2_vl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

using ::testing::HasSubstr;

constexpr auto parse = parse_text<Qwen2VlProcessor>;
constexpr auto parse_error = parse_text_error<Qwen2VlProcessor>;

TEST(SmartResize, FollowsTheReference) {
  int refused = 0;
  ASSERT_GT(goldens()["smart_sizes"].size(), 300u);
  for (const io::Json& record : goldens()["smart_sizes"]) {
    const auto n = record.get<std::vector<int64_t>>();
    if (n[5] < 0) {
      EXPECT_THROW(smart_resize(n[0], n[1], n[2], n[3], n[4]), Error) << record.dump();
      ++refused;
      continue;
    }
    const Size size = smart_resize(n[0], n[1], n[2], n[3], n[4]);
    EXPECT_EQ(size.height, n[5]) << record.dump();
    EXPECT_EQ(size.width, n[6]) << record.dump();
  }
  EXPECT_GE(refused, 3);
}

TEST(SmartResize, RefusesAreasBeyondExactArithmetic) {
  EXPECT_THROW(smart_resize(int64_t{1} << 40, int64_t{1} << 40, 28, 1, 1000), Error);
  EXPECT_THROW(smart_resize(int64_t{1} << 26, (int64_t{1} << 26) + 1, 28, 1, 1000), Error);
}

TEST(PreprocessQwen2Vl, GivesTheReferencesValues) {
  const auto check = [](const Patches& patches, const io::Json& record) {
    EXPECT_EQ((std::vector<int64_t>{patches.grid_t, patches.grid_h, patches.grid_w}),
              record["grid"].get<std::vector<int64_t>>());
  };
  EXPECT_EQ(expect_golden_pictures<Qwen2VlProcessor>(goldens()["patches"], check), 3);
}

TEST(PreprocessQwen2Vl, OrdersPatchesByMergeBlocks) {
  // Four by six patches of two by two pixels; every pixel holds the number of its patch, row by row.
  Qwen2VlProcessor processor;
  processor.patch_size = 2;
  processor.do_resize = processor.do_rescale = processor.do_normalize = false;
  Image image{12, 8, std::vector<uint8_t>(12 * 8 * 3)};
  for (int64_t y = 0; y < 8; ++y) {
    for (int64_t x = 0; x < 12; ++x) {
      for (int64_t c = 0; c < 3; ++c)
        image.rgb[(y * 12 + x) * 3 + c] = static_cast<uint8_t>(y / 2 * 6 + x / 2);
    }
  }
  const Patches patches = preprocess(image, processor, "x");
  std::vector<int> order;
  for (int64_t row = 0; row < patches.pixels.rows(); ++row) {
    order.push_back(static_cast<int>(*patches.pixels.row(row)));
    for (int64_t i = 1; i < patches.pixels.cols(); ++i) {
      ASSERT_EQ(patches.pixels.row(row)[i], *patches.pixels.row(row));
    }
  }
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 12, 13, 18, 19, 14, 15, 20,
                                          21, 16, 17, 22, 23));
}

TEST(PreprocessQwen2Vl, IsTheSameForAnyNumberOfThreads) {
  expect_same_for_any_number_of_threads<Qwen2VlProcessor>();
}

TEST(PreprocessQwen2Vl, RefusesPicturesThatDoNotFit) {
  Qwen2VlProcessor processor;
  EXPECT_THAT(error_of([&] { preprocess(pattern(500, 2), processor, "cat.png"); }),
              HasSubstr("cat.png: aspect ratio must be at most 200"));
  EXPECT_THAT(error_of([&] { preprocess(pattern(10, 1), processor, "cat.png"); }),
              HasSubstr("one pixel high"));
  processor.min_pixels = 0;
  EXPECT_THAT(error_of([&] { preprocess(pattern(5, 5), processor, "cat.png"); }),
              HasSubstr("resized to 0 x 0"));
  processor.min_pixels = processor.max_pixels = int64_t{1} << 40;
  EXPECT_THAT(error_of([&] { preprocess(pattern(5, 5), processor, "cat.png"); }),
              HasSubstr("would be resized to"));
  processor = {};
  processor.temporal_patch_size = 1 << 20;
  EXPECT_THAT(error_of([&] { preprocess(pattern(64, 64), processor, "cat.png"); }),
              HasSubstr("are too many"));
}

TEST(ParseQwen2Vl, TakesDefaultsForMissingKeys) {
  const Qwen2VlProcessor processor = parse("{}");
  EXPECT_EQ(processor.min_pixels, 56 * 56);
  EXPECT_EQ(processor.max_pixels, 28 * 28 * 1280);
  EXPECT_EQ(processor.patch_size, 14);
  EXPECT_EQ(processor.temporal_patch_size, 2);
  EXPECT_EQ(processor.merge_size, 2);
  EXPECT_THAT(processor.mean, testing::ElementsAre(0.48145466, 0.4578275, 0.40821073));
  EXPECT_THAT(processor.std, testing::ElementsAre(0.26862954, 0.26130258, 0.27577711));
  EXPECT_EQ(processor.rescale_factor, 1.0 / 255);
  EXPECT_TRUE(processor.do_resize && processor.do_rescale && processor.do_normalize &&
              processor.do_convert_rgb);
  EXPECT_EQ(processor.resample, Resample::bicubic);
}

TEST(ParseQwen2Vl, ReadsBothLayoutsOfTheLimits) {
  const Qwen2VlProcessor published = parse(R"({"min_pixels": 100, "max_pixels": 9000.0})");
  EXPECT_EQ(published.min_pixels, 100);
  EXPECT_EQ(published.max_pixels, 9000);
  const Qwen2VlProcessor size =
      parse(R"({"size": {"shortest_edge": 7, "longest_edge": 8}, "min_pixels": null})");
  EXPECT_EQ(size.min_pixels, 7);
  EXPECT_EQ(size.max_pixels, 8);
  const Qwen2VlProcessor both =
      parse(R"({"size": {"shortest_edge": 7, "longest_edge": 8}, "min_pixels": 5, "max_pixels": 6})");
  EXPECT_EQ(both.min_pixels, 5);
  EXPECT_EQ(both.max_pixels, 6);
}

TEST(ParseQwen2Vl, RefusesWhatItCannotFollow) {
  EXPECT_THAT(parse_error("[]"), HasSubstr("config"));
  EXPECT_THAT(parse_error(R"({"resample": 0})"), HasSubstr("resample 0 (nearest) is not supported"));
  EXPECT_THAT(parse_error(R"({"resample": 9})"), HasSubstr("resample 9 (unknown)"));
  EXPECT_THAT(parse_error(R"({"resample": "bicubic"})"), HasSubstr("resample"));
  EXPECT_THAT(parse_error(R"({"size": {"shortest_edge": 7}})"), HasSubstr("size must have"));
  EXPECT_THAT(parse_error(R"({"size": 7})"), HasSubstr("size"));
  EXPECT_THAT(parse_error(R"({"max_pixels": 0})"), HasSubstr("max_pixels must be from 1"));
  EXPECT_THAT(parse_error(R"({"min_pixels": -1})"), HasSubstr("min_pixels must be from 0"));
  EXPECT_THAT(parse_error(R"({"max_pixels": 9223372036854775807})"), HasSubstr("max_pixels must be from 1"));
  EXPECT_THAT(parse_error(R"({"patch_size": 0})"), HasSubstr("patch_size"));
  EXPECT_THAT(parse_error(R"({"merge_size": 100000})"), HasSubstr("merge_size"));
  EXPECT_THAT(parse_error(R"({"image_mean": [1, 2]})"),
              HasSubstr("image_mean must be a number or a list of three"));
  EXPECT_THAT(parse_error(R"({"image_mean": [1, 2, "3"]})"), HasSubstr("image_mean must hold three numbers"));
  EXPECT_THAT(parse_error(R"({"image_std": [1, 0, 1]})"), HasSubstr("image_std must not be 0"));
  EXPECT_THAT(parse_error(R"({"do_resize": "yes"})"), HasSubstr("do_resize"));
}

}  // namespace
}  // namespace nibble::vision
