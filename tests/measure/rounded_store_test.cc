#include "measure/rounded_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "base/error.h"
#include "support/damage.h"
#include "support/temp_folder.h"

namespace nibble::measure {
namespace {

Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  Matrix out(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) out.data()[i] = normal(generator);
  return out;
}

void expect_same(const quant::Packed4& a, const quant::Packed4& b) {
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_EQ(a.code, b.code);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.nested->q, b.nested->q);
  EXPECT_EQ(a.nested->absmax, b.nested->absmax);
  EXPECT_EQ(a.nested->map, b.nested->map);
  EXPECT_EQ(a.nested->offset, b.nested->offset);
}

TEST(RoundedStore, GivesBackWhatWasPut) {
  const test::TempFolder folder;
  RoundedStore store(folder.path());
  const auto one = quant::encode4(random_matrix(33, 70, 1).tensor(), quant::Format::nf4, true);
  const auto two = quant::encode4(random_matrix(256, 512, 2).tensor(), quant::Format::nf4, true);
  store.put("one", one);
  store.put("two", two);
  EXPECT_TRUE(store.has("one"));
  EXPECT_FALSE(store.has("three"));
  expect_same(store.get("two"), two);
  expect_same(store.get("one"), one);
  store.put("one", two);
  expect_same(store.get("one"), two);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "the scratch file has no name";
}

TEST(RoundedStore, ANamedFileIsThereForAnotherObject) {
  const test::TempFolder folder;
  const auto one = quant::encode4(random_matrix(33, 70, 1).tensor(), quant::Format::nf4, true);
  const auto two = quant::encode4(random_matrix(256, 512, 2).tensor(), quant::Format::nf4, true);
  io::Json index;
  {
    RoundedStore store(folder / "file", {});
    store.put("one", one);
    store.sync();
    index = io::parse_json(io::dump_json(store.index()), "index");
    store.put("two", two);
  }
  RoundedStore again(folder / "file", index);
  EXPECT_FALSE(again.has("two")) << "it came after the index";
  again.put("three", two);
  expect_same(again.get("one"), one);
  expect_same(again.get("three"), two);
  test::flip_bit(folder / "file", 100);
  EXPECT_THROW(RoundedStore(folder / "file", index), Error);
  std::filesystem::resize_file(folder / "file", 100);
  EXPECT_THROW(RoundedStore(folder / "file", index), Error);
}

TEST(RoundedStore, NeedsAFolder) {
  const test::TempFolder folder;
  EXPECT_THROW(RoundedStore(folder / "nowhere"), Error);
}

}  // namespace
}  // namespace nibble::measure
