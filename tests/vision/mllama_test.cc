// Llama 3.2 Vision's image processor against transformers' slow one.
#include "vision/mllama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "vision/golden_files.h"

namespace nibble::vision {
namespace {

using ::testing::HasSubstr;

constexpr auto parse = parse_text<MllamaProcessor>;
constexpr auto parse_error = parse_text_error<MllamaProcessor>;

TEST(AspectRatios, AreListedByHeightThenWidth) {
  EXPECT_THAT(supported_aspect_ratios(4),
              testing::ElementsAre(TileGrid{1, 1}, TileGrid{1, 2}, TileGrid{1, 3}, TileGrid{1, 4},
                                   TileGrid{2, 1}, TileGrid{2, 2}, TileGrid{3, 1}, TileGrid{4, 1}));
  EXPECT_THAT(supported_aspect_ratios(1), testing::ElementsAre(TileGrid{1, 1}));
}

TEST(Canvas, FollowsTheReference) {
  ASSERT_GT(mllama_pixtral_goldens()["canvases"].size(), 300u);
  for (const io::Json& record : mllama_pixtral_goldens()["canvases"]) {
    const auto n = record.get<std::vector<int64_t>>();
    const TileGrid canvas = optimal_canvas(n[0], n[1], n[2], n[3]);
    ASSERT_EQ(canvas, (TileGrid{n[4], n[5]})) << record.dump();
    const Size size = fit_to_canvas(n[0], n[1], canvas, n[3]);
    EXPECT_EQ(size.height, n[6]) << record.dump();
    EXPECT_EQ(size.width, n[7]) << record.dump();
    EXPECT_EQ(supported_aspect_ratios(n[2]).at(n[8] - 1), canvas) << record.dump();
  }
}

TEST(PreprocessMllama, GivesTheReferencesValues) {
  const io::Json& records = mllama_pixtral_goldens()["tiles"];
  ASSERT_GT(records.size(), 20u);
  const auto check = [](const MllamaTiles& tiles, const io::Json& record) {
    EXPECT_EQ((std::vector<int64_t>{tiles.tiles_h, tiles.tiles_w}),
              record["grid"].get<std::vector<int64_t>>());
    EXPECT_EQ(tiles.aspect_ratio_id, record["id"].get<int64_t>()) << record.dump();
    EXPECT_EQ(tiles.num_tiles, tiles.tiles_h * tiles.tiles_w);
  };
  EXPECT_EQ(expect_golden_pictures<MllamaProcessor>(records, check), 0);
}

TEST(PreprocessMllama, CutsTilesRowByRowAndPadsWithBlack) {
  // Four rows of five pixels on two by two tiles of three, each pixel its own number; black becomes -1.
  MllamaProcessor processor;
  processor.tile_size = 3;
  processor.normalization = {.do_rescale = false, .mean = {1, 1, 1}, .std = {1, 1, 1}};
  Image image{5, 4, std::vector<uint8_t>(5 * 4 * 3)};
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i / 3 + 1 + i % 3 * 100);
  const MllamaTiles tiles = preprocess(image, processor, "x");
  ASSERT_EQ(tiles.num_tiles, 4);
  EXPECT_EQ(tiles.tiles_h, 2);
  const auto tile = [&](int64_t row, int64_t channel) {
    const float* begin = tiles.pixels.row(row) + channel * 9;
    return std::vector<float>(begin, begin + 9);
  };
  EXPECT_THAT(tile(0, 0), testing::ElementsAre(0, 1, 2, 5, 6, 7, 10, 11, 12));
  EXPECT_THAT(tile(1, 1), testing::ElementsAre(103, 104, -1, 108, 109, -1, 113, 114, -1));
  EXPECT_THAT(tile(2, 2), testing::ElementsAre(215, 216, 217, -1, -1, -1, -1, -1, -1));
  EXPECT_THAT(tile(3, 0), testing::ElementsAre(18, 19, -1, -1, -1, -1, -1, -1, -1));
}

TEST(PreprocessMllama, IsTheSameForAnyNumberOfThreads) {
  expect_same_for_any_number_of_threads<MllamaProcessor>();
}

TEST(PreprocessMllama, RefusesACanvasTooLarge) {
  MllamaProcessor processor;
  processor.tile_size = 4096;
  processor.max_image_tiles = 18;
  EXPECT_THAT(error_of([&] { preprocess(pattern(70000, 1), processor, "cat.png"); }),
              HasSubstr("cat.png: a canvas of 18 x 1 tiles of 4096 pixels is too large"));
}

TEST(ParseMllama, TakesDefaultsForMissingKeys) {
  const MllamaProcessor processor = parse("{}");
  EXPECT_EQ(processor.tile_size, 224);
  EXPECT_EQ(processor.max_image_tiles, 4);
  EXPECT_THAT(processor.normalization.mean, testing::ElementsAre(0.5, 0.5, 0.5));
  EXPECT_THAT(processor.normalization.std, testing::ElementsAre(0.5, 0.5, 0.5));
  EXPECT_EQ(processor.normalization.rescale_factor, 1.0 / 255);
  EXPECT_TRUE(processor.normalization.do_rescale && processor.normalization.do_normalize);
  EXPECT_EQ(processor.resample, Resample::bilinear);
}

TEST(ParseMllama, ReadsBothLayouts) {
  const std::string published =
      R"({"size": {"height": 560, "width": 560}, "max_image_tiles": 6, "resample": 3,
                                    "image_mean": [1, 2, 3], "do_pad": true})";
  for (const MllamaProcessor& processor :
       {parse(published), parse(R"({"processor_class": "x", "image_processor": )" + published + "}")}) {
    EXPECT_EQ(processor.tile_size, 560);
    EXPECT_EQ(processor.max_image_tiles, 6);
    EXPECT_EQ(processor.resample, Resample::bicubic);
    EXPECT_THAT(processor.normalization.mean, testing::ElementsAre(1, 2, 3));
  }
}

TEST(ParseMllama, RefusesWhatItCannotFollow) {
  EXPECT_THAT(parse_error("[]"), HasSubstr("config"));
  EXPECT_THAT(parse_error(R"({"image_processor": 3})"), HasSubstr("image_processor"));
  EXPECT_THAT(parse_error(R"({"size": 560})"), HasSubstr("size"));
  EXPECT_THAT(parse_error(R"({"size": {"longest_edge": 560}})"), HasSubstr("height"));
  EXPECT_THAT(parse_error(R"({"size": {"height": 56, "width": 57}})"), HasSubstr("must be equal"));
  EXPECT_THAT(parse_error(R"({"size": {"height": 0, "width": 0}})"), HasSubstr("height"));
  EXPECT_THAT(parse_error(R"({"size": {"height": 1000000, "width": 1000000}})"), HasSubstr("height"));
  EXPECT_THAT(parse_error(R"({"max_image_tiles": 0})"), HasSubstr("max_image_tiles"));
  EXPECT_THAT(parse_error(R"({"max_image_tiles": 1000000000})"), HasSubstr("max_image_tiles"));
  EXPECT_THAT(parse_error(R"({"max_image_tiles": "4"})"), HasSubstr("max_image_tiles"));
  EXPECT_THAT(parse_error(R"({"do_resize": false})"), HasSubstr("do_resize is false"));
  EXPECT_THAT(parse_error(R"({"do_pad": false})"), HasSubstr("do_pad is false"));
  EXPECT_THAT(parse_error(R"({"resample": 0})"), HasSubstr("resample 0 (nearest)"));
}

}  // namespace
}  // namespace nibble::vision
