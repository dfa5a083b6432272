#include "base/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace nibble {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Every test starts and ends with nothing kept.
class KeptBuffers : public testing::Test {
 protected:
  void SetUp() override {
    Buffer{kMiB};
    if (kept_buffer_bytes() == 0) GTEST_SKIP() << "under AddressSanitizer nothing is kept";
    give_back_freed_memory();
  }
  void TearDown() override { give_back_freed_memory(); }
};

TEST(Buffer, IsAlignedAndItsOwn) {
  std::vector<Buffer> buffers;
  for (const size_t wanted : {size_t{0}, size_t{1}, size_t{100}, kMiB - 1, kMiB, 3 * kMiB + 5}) {
    const Buffer& buffer = buffers.emplace_back(wanted);
    EXPECT_GE(buffer.size(), wanted);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    std::memset(buffer.data(), static_cast<int>(buffers.size()), buffer.size());
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(buffers[i].data()[0]), i + 1);
    EXPECT_EQ(static_cast<size_t>(buffers[i].data()[buffers[i].size() - 1]), i + 1);
  }
}

TEST(Buffer, Moves) {
  Buffer a(10), b;
  std::byte* const data = a.data();
  EXPECT_EQ(b.data(), nullptr);
  b = std::move(a);
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(a.data(), nullptr);
}

TEST_F(KeptBuffers, AreTakenAgain) {
  const std::byte* const data = Buffer(8 * kMiB).data();
  EXPECT_EQ(kept_buffer_bytes(), 8 * kMiB);
  const Buffer again(4 * kMiB);
  EXPECT_EQ(again.data(), data);
  EXPECT_EQ(again.size(), 8 * kMiB);
  EXPECT_EQ(kept_buffer_bytes(), 0u);
}

TEST_F(KeptBuffers, AreTakenWhereTheyFitBest) {
  Buffer larger(9 * kMiB), smaller(8 * kMiB);
  const std::byte* const data = smaller.data();
  larger = Buffer();
  smaller = Buffer();
  EXPECT_EQ(Buffer(7 * kMiB).data(), data);
}

// At most 24 MiB were in use at a time: 30 may be held.
TEST_F(KeptBuffers, MakeRoomForOthers) {
  { const Buffer a(8 * kMiB), b(8 * kMiB), c(8 * kMiB); }
  EXPECT_EQ(kept_buffer_bytes(), 24 * kMiB);
  const Buffer small(2 * kMiB);
  EXPECT_EQ(kept_buffer_bytes(), 24 * kMiB);
  const Buffer larger(10 * kMiB);
  EXPECT_EQ(kept_buffer_bytes(), 16 * kMiB);
  const Buffer largest(24 * kMiB);
  EXPECT_EQ(kept_buffer_bytes(), 8 * kMiB);  // now 36 are in use, and 45 may be held
}

TEST_F(KeptBuffers, AreLarge) {
  Buffer{kMiB - 1};
  EXPECT_EQ(kept_buffer_bytes(), 0u);
}

TEST_F(KeptBuffers, AreGivenBack) {
  Buffer{2 * kMiB};
  give_back_freed_memory();
  EXPECT_EQ(kept_buffer_bytes(), 0u);
}

}  // namespace
}  // namespace nibble
