// What texts of budgets come to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "plan/plan.h"

namespace nibble::plan {
namespace {

using ::testing::HasSubstr;

/// A model with these bytes in 4 bits and parameters.
records::Inventory model(int64_t all4, int64_t parameters) {
  records::Inventory inventory;
  inventory.parameters = parameters;
  inventory.other_bytes = all4 / 2;
  inventory.linears.resize(1);
  inventory.linears[0].bytes4 = all4 - all4 / 2;
  inventory.linears[0].bytes16 = 4 * all4;
  return inventory;
}

TEST(Budget, PercentIsOverAllFourBit) {
  EXPECT_EQ(parse_budget("0%", model(1000, 0)), 1000);
  EXPECT_EQ(parse_budget("10%", model(1000, 0)), 1100);
  EXPECT_EQ(parse_budget("10%", model(1009, 0)), 1109);  // 1109.9
  EXPECT_EQ(parse_budget("10.5 %", model(1000, 0)), 1105);
  EXPECT_EQ(parse_budget(" 10.50\t% ", model(1000, 0)), 1105);
  EXPECT_EQ(parse_budget("100000%", model(1000, 0)), 1'001'000);
}

TEST(Budget, DecimalsAreExact) {
  // Where doubles go wrong: 100 * 1.1 = 110.00000000000001, 1.005 * 1000 = 1004.9999999999999, and 2^53 + 1.
  EXPECT_EQ(parse_budget("10%", model(100, 0)), 110);
  EXPECT_EQ(parse_budget("0.5%", model(1000, 0)), 1005);
  EXPECT_EQ(parse_budget("16.1%", model(1000, 0)), 1161);
  for (int64_t percent = 0; percent < 1000; ++percent)
    EXPECT_EQ(parse_budget(fmt::format("{}.{}%", percent / 10, percent % 10), model(1000, 0)),
              1000 + percent);
  const int64_t large = (int64_t{1} << 60) + 10;
  EXPECT_EQ(parse_budget("10%", model(large, 0)), large + large / 10);
  EXPECT_EQ(parse_budget("9007199254740993 B", model(1, 0)), 9007199254740993);
  EXPECT_EQ(parse_budget("0.000000000000000001%", model(int64_t{1} << 60, 0)), (int64_t{1} << 60) + 0);
  EXPECT_EQ(parse_budget("00010.000000000000000000000000000%", model(1000, 0)), 1100);
}

TEST(Budget, SizesInEveryUnit) {
  const auto m = model(1, 0);
  EXPECT_EQ(parse_budget("1.81GiB", m), 1943472701);  // 1943472701.44
  EXPECT_EQ(parse_budget("2 MiB", m), 2 << 20);
  EXPECT_EQ(parse_budget("2KiB", m), 2048);
  EXPECT_EQ(parse_budget("1.5GB", m), 1'500'000'000);
  EXPECT_EQ(parse_budget("1.5 mb", m), 1'500'000);
  EXPECT_EQ(parse_budget("2kb", m), 2000);
  EXPECT_EQ(parse_budget("77B", m), 77);
  EXPECT_EQ(parse_budget("999999999999999999GiB", m), std::numeric_limits<int64_t>::max());
}

TEST(Budget, BitsPerWeightCountAllParameters) {
  EXPECT_EQ(parse_budget("4.6bpw", model(1, 1000)), 575);
  EXPECT_EQ(parse_budget("4.5 BPW", model(1, 1001)), 563);  // 563.0625
  EXPECT_EQ(parse_budget("16bpw", model(1, 1001)), 2002);
}

TEST(Budget, BelowAllFourBitSaysTheSmallest) {
  const auto m = model(4'299'161, 7'000'000);
  EXPECT_EQ(parse_budget("4299161B", m), 4'299'161);
  for (const char* text : {"4299160B", "4.1MB", "1bpw", "0 B"}) {
    try {
      parse_budget(text, m);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("at least 4.10 MiB (4299161 bytes) with every linear in 4 bits"));
      EXPECT_THAT(error.what(), HasSubstr(text));
    }
  }
}

TEST(Budget, JunkIsRefused) {
  for (const char* text : {"",
                           " ",
                           "%",
                           "10",
                           "-10%",
                           "+10%",
                           "nan%",
                           "inf GiB",
                           "1e3%",
                           "0x10%",
                           ".5%",
                           "5.%",
                           "1..2%",
                           "1,5%",
                           "10%%",
                           "10 % 5",
                           "1 0%",
                           "1.81TiBit",
                           "GiB",
                           "1.81 Gi B",
                           "10percent",
                           "4.6 bits",
                           "12345678901234567890%",
                           "1.2345678901234567891%",
                           "10\n%",
                           "10\xc2\xa0%",
                           "match"}) {
    try {
      parse_budget(text, model(1, 1));
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("expected")) << text;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace nibble::plan
