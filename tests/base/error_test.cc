#include "base/error.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/checked.h"

namespace nibble {
namespace {

TEST(Error, FailFormatsOneLine) {
  try {
    fail("{}: tensor \"{}\" has {} bytes", "a.safetensors", "x", 3);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "a.safetensors: tensor \"x\" has 3 bytes");
  }
}

TEST(Error, CheckNamesPlaceConditionAndText) {
  const auto broken = [](int n) { NIBBLE_CHECK(n == 1, "n is {}", n); };
  EXPECT_NO_THROW(broken(1));
  try {
    broken(2);
    FAIL();
  } catch (const InternalError& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("error_test.cc:"), std::string::npos) << text;
    EXPECT_NE(text.find("n == 1 does not hold: n is 2"), std::string::npos) << text;
  }
}

TEST(Error, CheckNeedsNoText) {
  EXPECT_THROW(NIBBLE_CHECK(false), InternalError);
  EXPECT_NO_THROW(NIBBLE_CHECK(true));
}

TEST(Error, CheckEvaluatesItsConditionOnce) {
  int calls = 0;
  NIBBLE_CHECK(++calls == 1, "calls {}", calls);
  EXPECT_EQ(calls, 1);
}

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(Checked, Multiplies) {
  EXPECT_EQ(checked_mul(6, 7), 42);
  EXPECT_EQ(checked_mul(0, kMax), 0);
  EXPECT_EQ(checked_mul(kMax, 1), kMax);
  EXPECT_EQ(checked_mul(int64_t{1} << 31, int64_t{1} << 31), int64_t{1} << 62);
  EXPECT_FALSE(checked_mul(int64_t{1} << 32, int64_t{1} << 31));
  EXPECT_FALSE(checked_mul(kMax, 2));
  EXPECT_FALSE(checked_mul(-1, 1));
  EXPECT_FALSE(checked_mul(-1, -1));
  EXPECT_FALSE(checked_mul(0, -1));
}

TEST(Checked, Adds) {
  EXPECT_EQ(checked_add(40, 2), 42);
  EXPECT_EQ(checked_add(kMax, 0), kMax);
  EXPECT_FALSE(checked_add(kMax, 1));
  EXPECT_FALSE(checked_add(-1, 5));
  EXPECT_FALSE(checked_add(5, -1));
}

TEST(Checked, ProductOfDimensions) {
  EXPECT_EQ(checked_product(std::vector<int64_t>{}), 1);
  EXPECT_EQ(checked_product(std::vector<int64_t>{4096, 64}), 262144);
  EXPECT_EQ(checked_product(std::vector<int64_t>{3, 0, 5}), 0);
  EXPECT_FALSE(checked_product(std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40}));
  EXPECT_FALSE(checked_product(std::vector<int64_t>{3, -1}));
}

}  // namespace
}  // namespace nibble
