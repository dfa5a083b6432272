// Positions and angles, against transformers' get_rope_index and rot_pos_emb and against the formula in fp64.
#include "run/inputs.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "run/goldens.h"

namespace nibble::run {
namespace {

using ::testing::HasSubstr;

model::Spec spec_of_shipped_model() {
  static const model::Binding binding(kModel);
  return binding.spec();
}

class PromptPositions : public ::testing::TestWithParam<const char*> {};

TEST_P(PromptPositions, AreThoseOfTheReference) {
  const std::string name = GetParam();
  const Prompt prompt = golden_prompt(name, 1);
  int64_t next = -1;
  const std::vector<Position> positions = prompt_positions(prompt, spec_of_shipped_model(), next);
  const std::vector<int64_t> expected = golden_ids(name + ".positions");
  ASSERT_EQ(positions.size() * 3, expected.size());
  for (size_t i = 0; i < positions.size(); ++i)
    for (size_t axis = 0; axis < 3; ++axis)
      ASSERT_EQ(positions[i][axis], expected[axis * positions.size() + i])
          << "token " << i << ", axis " << axis;
  EXPECT_EQ(next, golden_ids(name + ".next")[0]);
}

INSTANTIATE_TEST_SUITE_P(Goldens, PromptPositions,
                         ::testing::Values("one", "two", "text", "first_and_last", "neighbours", "large",
                                           "single_token"),
                         [](const auto& info) { return std::string(info.param); });

class PatchPositions : public ::testing::TestWithParam<const char*> {};

TEST_P(PatchPositions, AreThoseOfTheReference) {
  const std::string name = std::string("patches.") + GetParam();
  const std::vector<int64_t> grid = golden_ids(name + ".grid");
  const std::vector<int64_t> expected = golden_ids(name + ".places");
  const Picture picture{.pixels = nullptr, .grid_t = grid[0], .grid_h = grid[1], .grid_w = grid[2]};
  const std::vector<Position> places = patch_positions(picture, 2);
  ASSERT_EQ(places.size() * 2, expected.size());
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(places[i][0], expected[2 * i]) << "patch " << i;
    EXPECT_EQ(places[i][1], expected[2 * i + 1]) << "patch " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, PatchPositions, ::testing::Values("wide", "tall", "two_frames"),
                         [](const auto& info) { return std::string(info.param); });

std::string positions_error(const Prompt& prompt) {
  int64_t next = 0;
  try {
    prompt_positions(prompt, spec_of_shipped_model(), next);
  } catch (const Error& error) {
    return error.what();
  }
  return "no Error";
}

TEST(PromptPositions, TokensAndPicturesMustFit) {
  const Prompt good = golden_prompt("one", 1);
  const int64_t image = spec_of_shipped_model().tokens.image;
  const auto first = std::find(good.ids.begin(), good.ids.end(), image) - good.ids.begin();

  Prompt no_picture = good;
  no_picture.pictures.clear();
  EXPECT_THAT(positions_error(no_picture), HasSubstr("more image tokens than its 0 picture(s)"));

  Prompt two_pictures = good;
  two_pictures.pictures.push_back(good.pictures[0]);
  EXPECT_THAT(positions_error(two_pictures), HasSubstr("2 pictures, but image tokens for 1"));

  Prompt one_token_less = good;
  one_token_less.ids.erase(one_token_less.ids.begin() + first);
  EXPECT_THAT(positions_error(one_token_less), HasSubstr("needs 4 image tokens"));

  Prompt one_token_more = good;
  one_token_more.ids.insert(one_token_more.ids.begin() + first, image);
  EXPECT_THAT(positions_error(one_token_more), HasSubstr("more image tokens"));

  Prompt ends_early = good;
  ends_early.ids.resize(static_cast<size_t>(first) + 2);
  EXPECT_THAT(positions_error(ends_early), HasSubstr("needs 4 image tokens"));
}

TEST(PromptModality, IsVisionForImageTokensOnly) {
  const Prompt prompt = golden_prompt("one", 1);
  const std::vector<Modality> modality = prompt_modality(prompt.ids, spec_of_shipped_model());
  ASSERT_EQ(modality.size(), prompt.ids.size());
  for (size_t i = 0; i < modality.size(); ++i)
    EXPECT_EQ(modality[i] == Modality::vision, prompt.ids[i] == spec_of_shipped_model().tokens.image) << i;
}

TEST(RotaryAngles, AreThePositionTimesTheFrequencyOfItsAxis) {
  model::Rope rope;
  rope.frequency = {1.0f, 0.25f, 1.0f, 0.001f};
  rope.axis = {0, 1, 2, 0};
  const std::vector<Position> positions = {{0, 0, 0}, {1, 2, 3}, {31, 7, 1000}, {4095, 4096, 30000}};
  const auto rows = static_cast<int64_t>(positions.size());
  Matrix cosine(rows, 4), sine(rows, 4);
  rotary_angles(rope, positions, 5000, cosine.mut(), sine.mut());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < 4; ++j) {
      const size_t k = static_cast<size_t>(j);
      const double exact =
          static_cast<double>(positions[static_cast<size_t>(r)][rope.axis[k]]) * rope.frequency[k];
      // The reference computes angles in fp32: the product is off by 2^-24 of the angle, cosine and sine by
      // an ulp.
      const double tolerance = 4 * std::ldexp(std::max(exact, 1.0), -24);
      EXPECT_NEAR(cosine.row(r)[j], std::cos(exact), tolerance) << r << " " << j;
      EXPECT_NEAR(sine.row(r)[j], std::sin(exact), tolerance) << r << " " << j;
    }
}

TEST(RotaryAngles, TakeTheLongFrequenciesPastTheOriginalPositions) {
  const model::Rope rope{
      .frequency = {1.0f}, .axis = {0}, .long_frequency = {0.5f}, .original_positions = 8, .scale = 1.25f};
  const std::vector<Position> positions = {{2, 2, 2}};
  Matrix cosine(1, 1), sine(1, 1);
  for (const auto& [length, angle] : {std::pair{int64_t{8}, 2.0f}, std::pair{int64_t{9}, 1.0f}}) {
    rotary_angles(rope, positions, length, cosine.mut(), sine.mut());
    EXPECT_EQ(cosine.row(0)[0], std::cos(angle) * 1.25f);
    EXPECT_EQ(sine.row(0)[0], std::sin(angle) * 1.25f);
  }
}

}  // namespace
}  // namespace nibble::run
