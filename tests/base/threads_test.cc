#include "base/threads.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

/// Every test at one, two and more threads than the machine has.
class Threads : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    before_ = num_threads();
    set_num_threads(GetParam());
  }
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = 0;
};
INSTANTIATE_TEST_SUITE_P(, Threads, testing::Values(1, 2, 3, 7));

TEST_P(Threads, CallsEachIndexOnce) {
  EXPECT_EQ(num_threads(), GetParam());
  for (int64_t n : {0, 1, 2, 3, 100, 10007}) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
    parallel_for(n, [&](int64_t i) { ++calls[static_cast<size_t>(i)]; });
    for (const auto& c : calls) ASSERT_EQ(c, 1);
  }
}

TEST_P(Threads, NegativeCountIsNothing) {
  parallel_for(-5, [](int64_t) { FAIL(); });
  parallel_ranges(-5, 1, [](int64_t, int64_t) { FAIL(); });
}

TEST_P(Threads, ManySmallJobs) {
  std::atomic<int64_t> sum = 0;
  for (int job = 0; job < 5000; ++job) parallel_for(3, [&](int64_t i) { sum += i; });
  EXPECT_EQ(sum, 15000);
}

TEST_P(Threads, RethrowsTheExceptionOfTheLowestIndex) {
  for (int round = 0; round < 200; ++round) {
    try {
      parallel_for(100, [](int64_t i) {
        if (i >= 17) throw std::runtime_error(std::to_string(i));
      });
      FAIL();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "17");
    }
  }
}

TEST_P(Threads, FinishesLowerIndexesBeforeItThrows) {
  std::vector<std::atomic<bool>> done(50);
  EXPECT_THROW(parallel_for(1000000,
                            [&](int64_t i) {
                              if (i == 50) throw Error("stop");
                              if (i < 50) {
                                std::this_thread::sleep_for(std::chrono::microseconds(200));
                                done[static_cast<size_t>(i)] = true;
                              }
                            }),
               Error);
  for (const auto& d : done) EXPECT_TRUE(d);
}

TEST_P(Threads, StopsSoonAfterAnException) {
  std::atomic<int64_t> calls = 0;
  EXPECT_THROW(parallel_for(int64_t{1} << 40,
                            [&](int64_t i) {
                              ++calls;
                              if (i == 0) throw Error("stop");
                            }),
               Error);
  EXPECT_LT(calls, int64_t{1} << 30);
}

TEST_P(Threads, WorksAfterAnException) {
  EXPECT_THROW(parallel_for(10, [](int64_t) { throw Error("once"); }), Error);
  std::atomic<int> calls = 0;
  parallel_for(10, [&](int64_t) { ++calls; });
  EXPECT_EQ(calls, 10);
}

TEST_P(Threads, NestedCallsRunSeriallyOnTheSameThread) {
  std::atomic<int> calls = 0, elsewhere = 0;
  parallel_for(8, [&](int64_t) {
    const auto outer = std::this_thread::get_id();
    int64_t last = -1;
    parallel_for(10, [&](int64_t i) {
      EXPECT_EQ(i, last + 1);
      last = i;
      ++calls;
      if (std::this_thread::get_id() != outer) ++elsewhere;
      parallel_ranges(4, 3, [&](int64_t, int64_t) { ++calls; });
    });
  });
  EXPECT_EQ(calls, 8 * 10 * 3);
  EXPECT_EQ(elsewhere, 0);
}

TEST_P(Threads, TheCountCanBeAskedInsideATask) {
  parallel_for(8, [](int64_t) { EXPECT_EQ(num_threads(), GetParam()); });
}

TEST_P(Threads, NestedExceptionsPassThrough) {
  EXPECT_THROW(parallel_for(4, [](int64_t) { parallel_for(4, [](int64_t) { throw Error("inner"); }); }),
               Error);
}

TEST_P(Threads, CallsFromSeveralThreadsTakeTurns) {
  std::atomic<int64_t> sum = 0;
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&] {
      for (int job = 0; job < 200; ++job) parallel_for(10, [&](int64_t i) { sum += i; });
    });
  for (auto& c : callers) c.join();
  EXPECT_EQ(sum, 4 * 200 * 45);
}

TEST_P(Threads, OpenMpHasOneThreadInsideAndWhatItHadOutside) {
  omp_set_num_threads(3);
  std::atomic<int> most = 0;
  const auto look = [&](int64_t) {
    if (omp_get_max_threads() > most) most = omp_get_max_threads();
  };
  parallel_for(64, look);
  parallel_for(1, look);
  EXPECT_EQ(most, 1);
  EXPECT_EQ(omp_get_max_threads(), 3);
}

TEST_P(Threads, RangesCoverEverythingByShapeAlone) {
  for (int64_t n : {1, 9, 10, 11, 100, 105}) {
    std::mutex mutex;
    std::set<std::pair<int64_t, int64_t>> seen, expected;
    parallel_ranges(n, 10, [&](int64_t begin, int64_t end) {
      std::lock_guard lock(mutex);
      EXPECT_TRUE(seen.emplace(begin, end).second);
    });
    for (int64_t begin = 0; begin < n; begin += 10) expected.emplace(begin, std::min(n, begin + 10));
    EXPECT_EQ(seen, expected) << n;
  }
}

TEST(ThreadsApi, RangesDoNotOverflow) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> total = 0;
  parallel_ranges(kMax, kMax / 2, [&](int64_t begin, int64_t end) { total += end - begin; });
  EXPECT_EQ(total, kMax);
}

TEST(ThreadsApi, SeveralThreadsTakePart) {
  set_num_threads(3);
  std::atomic<int> arrived = 0;
  // Each of the first three tasks waits for the other two: done only when three threads run at once.
  parallel_for(3, [&](int64_t) {
    ++arrived;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (arrived < 3 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    EXPECT_EQ(arrived, 3);
  });
}

TEST(ThreadsApi, WrongUseIsAnInternalError) {
  EXPECT_THROW(set_num_threads(0), InternalError);
  EXPECT_THROW(parallel_ranges(10, 0, [](int64_t, int64_t) {}), InternalError);
  set_num_threads(2);
  EXPECT_THROW(parallel_for(4, [](int64_t) { set_num_threads(1); }), InternalError);
  EXPECT_EQ(num_threads(), 2);
}

}  // namespace
}  // namespace nibble
