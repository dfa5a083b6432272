#include "base/size.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Size, UnitsInAnyCaseAndFractions) {
  EXPECT_EQ(parse_size("1000"), 1000);
  EXPECT_EQ(parse_size("4GiB"), int64_t{4} << 30);
  EXPECT_EQ(parse_size(" 0.5 mb "), 500'000);
  EXPECT_EQ(parse_size("1.5KIB"), 1536);
  EXPECT_EQ(parse_size("2TB"), 2'000'000'000'000);
  EXPECT_EQ(parse_size("1.9999B"), 1) << "whole bytes, rounded down";
}

TEST(Size, WhatIsNone) {
  for (const char* text : {"", "GiB", "-1GB", "+1GB", "1e3", "0", "0.4B", "1,5GB", "4 GiB x", "4Gi", "nan",
                           "0x10", "9999999999999999999", "9000000TiB"})
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
}

}  // namespace
}  // namespace nibble
