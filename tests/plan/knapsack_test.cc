// The knapsack against trying every choice.
#include "plan/knapsack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"

namespace nibble::plan {
namespace {

using Groups = std::vector<std::vector<Option>>;

/// A number in [low, high].
int64_t draw(std::mt19937_64& generator, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(generator() % static_cast<uint64_t>(high - low + 1));
}

struct Total {
  int64_t bytes = 0;
  double gain = 0;
};

Total total_of(const Groups& groups, const std::vector<int>& chosen) {
  Total total;
  for (size_t g = 0; g < groups.size(); ++g) {
    total.bytes += groups[g].at(chosen.at(g)).bytes;
    total.gain += groups[g][chosen[g]].gain;
  }
  return total;
}

/// The largest gain within the budget by trying every choice; minus infinity when nothing fits.
double brute_force(const Groups& groups, int64_t budget, size_t g = 0) {
  if (g == groups.size()) return budget >= 0 ? 0 : -std::numeric_limits<double>::infinity();
  double best = -std::numeric_limits<double>::infinity();
  for (const auto& option : groups[g])
    best = std::max(best, option.gain + brute_force(groups, budget - option.bytes, g + 1));
  return best;
}

int64_t smallest(const Groups& groups) {
  int64_t bytes = 0;
  for (const auto& group : groups)
    bytes += std::min_element(group.begin(), group.end(), [](auto& a, auto& b) {
               return a.bytes < b.bytes;
             })->bytes;
  return bytes;
}

/// Groups of random options; gains are multiples of 1/64, so that sums are exact in any order.
Groups random_groups(std::mt19937_64& generator, int64_t groups, int64_t options, int64_t unit) {
  Groups result(groups);
  for (auto& group : result)
    for (int64_t o = draw(generator, 1, options); o > 0; --o)
      group.push_back(
          {unit * draw(generator, -20, 300), static_cast<double>(draw(generator, -50, 1000)) / 64});
  return result;
}

TEST(Knapsack, IsExactForSmallSlacks) {
  std::mt19937_64 generator(1);
  for (int trial = 0; trial < 1500; ++trial) {
    // Units of a large common divisor must not cost exactness.
    const int64_t unit = trial % 3 == 0 ? 1 : trial % 3 == 1 ? 1'000'003 : 4096;
    const auto groups = random_groups(generator, draw(generator, 0, 7), 4, unit);
    const int64_t budget = smallest(groups) + unit * draw(generator, 0, 900);
    const Total total = total_of(groups, choose_options(groups, budget));
    ASSERT_LE(total.bytes, budget);
    ASSERT_EQ(total.gain, brute_force(groups, budget)) << "trial " << trial;
  }
}

TEST(Knapsack, IsExactForLargeSlacks) {
  std::mt19937_64 generator(2);
  for (int trial = 0; trial < 60; ++trial) {
    Groups groups(draw(generator, 8, 14));
    for (auto& group : groups)
      group = {{0, 0},
               {draw(generator, 1, int64_t{1} << 34), static_cast<double>(draw(generator, 1, 1000)) / 64}};
    int64_t budget = draw(generator, int64_t{1} << 32, int64_t{1} << 36);
    // Every other budget is just what some choice takes, to the byte.
    if (trial % 2 == 0) {
      budget = 0;
      for (const auto& group : groups) budget += draw(generator, 0, 1) * group[1].bytes;
    }
    const Total total = total_of(groups, choose_options(groups, budget));
    ASSERT_LE(total.bytes, budget);
    ASSERT_EQ(total.gain, brute_force(groups, budget)) << "trial " << trial;
  }
}

TEST(Knapsack, LeavesNothingThatFits) {
  std::mt19937_64 generator(3);
  for (int trial = 0; trial < 6; ++trial) {
    Groups groups(150);
    int64_t sum = 0;
    for (auto& group : groups) {
      group = {
          {0, 0},
          {draw(generator, 1, int64_t{1} << 34), std::ldexp(1.0, static_cast<int>(draw(generator, -30, 5)))}};
      sum += group[1].bytes;
    }
    const int64_t budget = draw(generator, 0, sum);
    const auto chosen = choose_options(groups, budget);
    const Total total = total_of(groups, chosen);
    ASSERT_LE(total.bytes, budget);
    for (size_t g = 0; g < groups.size(); ++g)
      ASSERT_TRUE(chosen[g] == 1 || total.bytes + groups[g][1].bytes > budget)
          << "trial " << trial << " group " << g;
  }
}

TEST(Knapsack, BeatsOrEqualsGreedyByDensity) {
  // One dense small group shuts out the large one that gains most: greedy gets 2, the best is 10.
  const Groups groups = {{{0, 0}, {1, 2}}, {{0, 0}, {1'000'000'000, 10}}};
  EXPECT_EQ(choose_options(groups, 1'000'000'000), (std::vector<int>{0, 1}));
  EXPECT_EQ(choose_options(groups, 1'000'000'001), (std::vector<int>{1, 1}));
  EXPECT_EQ(choose_options(groups, 999'999'999), (std::vector<int>{1, 0}));
  EXPECT_EQ(choose_options(groups, 0), (std::vector<int>{0, 0}));
}

TEST(Knapsack, SmallerAndNoWorseAlwaysWins) {
  // 16 bits of a tiny group take fewer bytes than 4 bits with their side tensors; a gain of 0 costs nothing.
  const Groups groups = {{{1400, 0}, {512, 3}}, {{100, 0}, {200, 0}}, {{100, 0}, {100, 1}}};
  EXPECT_EQ(choose_options(groups, 512 + 100 + 100), (std::vector<int>{1, 0, 1}));
  EXPECT_EQ(choose_options(groups, 1'000'000), (std::vector<int>{1, 0, 1}));
}

TEST(Knapsack, TiesGoToEarlierGroups) {
  const Groups groups(6, {{0, 0}, {10, 1}});
  EXPECT_EQ(choose_options(groups, 35), (std::vector<int>{1, 1, 1, 0, 0, 0}));
}

TEST(Knapsack, TakesEverythingWhereItFits) {
  std::mt19937_64 generator(4);
  Groups groups(5000);  // more groups than the table holds at full resolution
  int64_t sum = 0;
  for (auto& group : groups) {
    group = {{0, 0}, {draw(generator, 1, int64_t{1} << 40), 1}};
    sum += group[1].bytes;
  }
  EXPECT_EQ(choose_options(groups, sum), std::vector<int>(5000, 1));
  EXPECT_EQ(choose_options(groups, int64_t{1} << 61), std::vector<int>(5000, 1));
  EXPECT_EQ(choose_options({}, 0), std::vector<int>());
}

TEST(Knapsack, ManyGroupsStayWithinBoundsOfMemory) {
  std::mt19937_64 generator(5);
  Groups groups(100'000);
  for (auto& group : groups)
    group = {{0, 0}, {draw(generator, 1, 1000), static_cast<double>(draw(generator, 1, 9))}};
  const int64_t budget = 15'000'000;
  const Total total = total_of(groups, choose_options(groups, budget));
  EXPECT_LE(total.bytes, budget);
  EXPECT_GT(total.bytes, budget - 1000);
}

TEST(Knapsack, BudgetBelowTheCheapestIsABug) {
  const Groups groups = {{{5, 0}, {9, 1}}};
  EXPECT_THROW(choose_options(groups, 4), InternalError);
  EXPECT_THROW(choose_options(Groups{{}}, 4), InternalError);
}

}  // namespace
}  // namespace nibble::plan
