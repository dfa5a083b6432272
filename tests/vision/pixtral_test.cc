// Pixtral's image processor against transformers' slow one.
#include "vision/pixtral.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

using ::testing::HasSubstr;

constexpr auto parse = parse_text<PixtralProcessor>;
constexpr auto parse_error = parse_text_error<PixtralProcessor>;

TEST(PixtralSize, FollowsTheReference) {
  int vanished = 0;
  ASSERT_GT(mllama_pixtral_goldens()["pixtral_sizes"].size(), 300u);
  for (const io::Json& record : mllama_pixtral_goldens()["pixtral_sizes"]) {
    const auto n = record.get<std::vector<int64_t>>();
    const Size size = pixtral_size({n[0], n[1]}, {n[2], n[3]}, n[4]);
    EXPECT_EQ(size.height, n[5]) << record.dump();
    EXPECT_EQ(size.width, n[6]) << record.dump();
    vanished += n[5] == 0 || n[6] == 0;
  }
  EXPECT_GE(vanished, 3);
}

TEST(PreprocessPixtral, GivesTheReferencesValues) {
  const io::Json& records = mllama_pixtral_goldens()["patches"];
  ASSERT_GT(records.size(), 25u);
  const auto check = [](const PixtralImage& patches, const io::Json& record) {
    EXPECT_EQ((std::vector<int64_t>{patches.grid_h, patches.grid_w}),
              record["grid"].get<std::vector<int64_t>>());
  };
  EXPECT_EQ(expect_golden_pictures<PixtralProcessor>(records, check), 6);
}

TEST(PreprocessPixtral, OrdersPatchesRowByRowAndFeaturesByChannel) {
  // Two by three patches of two by two pixels and a pixel more on both sides, which no patch holds.
  PixtralProcessor processor;
  processor.patch_size = 2;
  processor.do_resize = processor.normalization.do_rescale = processor.normalization.do_normalize = false;
  Image image{7, 5, std::vector<uint8_t>(7 * 5 * 3)};
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i / 3 + i % 3 * 100);
  const PixtralImage patches = preprocess(image, processor, "x");
  EXPECT_EQ(patches.grid_h, 2);
  ASSERT_EQ(patches.grid_w, 3);
  std::vector<float> first;
  for (int64_t row = 0; row < patches.pixels.rows(); ++row) first.push_back(*patches.pixels.row(row));
  EXPECT_THAT(first, testing::ElementsAre(0, 2, 4, 14, 16, 18));
  EXPECT_THAT(std::vector<float>(patches.pixels.row(4), patches.pixels.row(4) + 12),
              testing::ElementsAre(16, 17, 23, 24, 116, 117, 123, 124, 216, 217, 223, 224));
}

TEST(PreprocessPixtral, IsTheSameForAnyNumberOfThreads) {
  expect_same_for_any_number_of_threads<PixtralProcessor>();
}

TEST(PreprocessPixtral, RefusesPicturesThatDoNotFit) {
  PixtralProcessor processor;
  EXPECT_THAT(error_of([&] { preprocess(pattern(3000, 2), processor, "cat.png"); }),
              HasSubstr("cat.png: 3000 x 2 pixels would be resized to 1024 x 0"));
  EXPECT_THAT(error_of([&] { preprocess(pattern(10, 1), processor, "cat.png"); }),
              HasSubstr("one pixel high"));
  processor.do_resize = false;
  EXPECT_THAT(error_of([&] { preprocess(pattern(40, 15), processor, "cat.png"); }),
              HasSubstr("40 x 15 pixels are less than a patch of 16"));
}

TEST(ParsePixtral, TakesDefaultsForMissingKeys) {
  const PixtralProcessor processor = parse("{}");
  EXPECT_EQ(processor.limit.height, 1024);
  EXPECT_EQ(processor.limit.width, 1024);
  EXPECT_EQ(processor.patch_size, 16);
  EXPECT_EQ(processor.normalization.mean, kClipMean);
  EXPECT_EQ(processor.normalization.std, kClipStd);
  EXPECT_TRUE(processor.do_resize);
  EXPECT_EQ(processor.resample, Resample::bicubic);
}

TEST(ParsePixtral, ReadsSizesAndPatches) {
  const PixtralProcessor edge = parse(R"({"size": {"longest_edge": 512, "height": 3}, "patch_size": 14})");
  EXPECT_EQ(edge.limit.height, 512);
  EXPECT_EQ(edge.limit.width, 512);
  EXPECT_EQ(edge.patch_size, 14);
  const PixtralProcessor sides =
      parse(R"({"size": {"height": 300, "width": 200.0}, "patch_size": {"height": 8, "width": 8}})");
  EXPECT_EQ(sides.limit.height, 300);
  EXPECT_EQ(sides.limit.width, 200);
  EXPECT_EQ(sides.patch_size, 8);
  EXPECT_EQ(parse(R"({"patch_size": [4, 4], "do_resize": false, "size": {}})").patch_size, 4);
}

TEST(ParsePixtral, TakesThePatchSizeOfTheProcessorConfig) {
  const std::string own = R"("image_processor": {"size": {"longest_edge": 64}, "patch_size": 14})";
  EXPECT_EQ(parse("{" + own + R"(, "patch_size": 8, "spatial_merge_size": 2})").patch_size, 16);
  EXPECT_EQ(parse("{" + own + R"(, "patch_size": 8})").patch_size, 8);
  EXPECT_EQ(parse("{" + own + "}").patch_size, 16);
  EXPECT_EQ(parse("{" + own + "}").limit.width, 64);

  PixtralProcessor processor = parse(R"({"patch_size": 14})");
  processor.use_processor_config(io::parse_json(R"({"patch_size": 8, "spatial_merge_size": null})", "p"),
                                 "p");
  EXPECT_EQ(processor.patch_size, 8);
  processor.use_processor_config(io::Json::object(), "p");
  EXPECT_EQ(processor.patch_size, 16);
  const io::Json huge = io::parse_json(R"({"patch_size": 4096, "spatial_merge_size": 2})", "p");
  EXPECT_THAT(error_of([&] { processor.use_processor_config(huge, "p"); }),
              HasSubstr("p: patch_size * spatial"));
}

TEST(ParsePixtral, RefusesWhatItCannotFollow) {
  EXPECT_THAT(parse_error("7"), HasSubstr("config"));
  EXPECT_THAT(parse_error(R"({"size": 1024})"), HasSubstr("size"));
  EXPECT_THAT(parse_error(R"({"size": {"shortest_edge": 7}})"), HasSubstr("must have longest_edge"));
  EXPECT_THAT(parse_error(R"({"size": {"height": 7}})"), HasSubstr("must have longest_edge"));
  EXPECT_THAT(parse_error(R"({"size": {"longest_edge": 0}})"), HasSubstr("longest_edge"));
  EXPECT_THAT(parse_error(R"({"patch_size": 0})"), HasSubstr("patch_size"));
  EXPECT_THAT(parse_error(R"({"patch_size": "16"})"), HasSubstr("patch_size"));
  EXPECT_THAT(parse_error(R"({"patch_size": [16]})"), HasSubstr("patch_size must hold height and width"));
  EXPECT_THAT(parse_error(R"({"patch_size": {"height": 16}})"), HasSubstr("width"));
  EXPECT_THAT(parse_error(R"({"patch_size": {"height": 16, "width": 14}})"), HasSubstr("must be equal"));
  EXPECT_THAT(parse_error(R"({"resample": 9})"), HasSubstr("resample 9 (unknown)"));
}

}  // namespace
}  // namespace nibble::vision
