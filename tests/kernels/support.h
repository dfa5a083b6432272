// What the tests of the kernels share: random matrices with gaps between their rows, comparisons, threads.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

/// A matrix whose rows lie `gap` elements apart from each other; the gaps hold a canary.
class Strided {
 public:
  static constexpr float kCanary = 12345.0f;

  Strided(int64_t rows, int64_t cols, int64_t gap = 0)
      : rows_(rows), cols_(cols), stride_(cols + gap), values_(rows * (cols + gap) + 1, kCanary) {}

  MutableMatrix mut() { return {values_.data(), rows_, cols_, stride_}; }
  ConstMatrix view() const { return {values_.data(), rows_, cols_, stride_}; }
  const std::vector<float>& values() const { return values_; }

  /// True if nothing was written between the rows.
  bool gaps_untouched() const {
    for (int64_t r = 0; r < rows_; ++r) {
      const auto row = values_.begin() + r * stride_;
      if (!std::all_of(row + cols_, row + stride_, [](float v) { return v == kCanary; })) return false;
    }
    return values_.back() == kCanary;
  }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> values_;
};

/// Normally distributed values from a fixed seed.
inline Strided random_matrix(int64_t rows, int64_t cols, int64_t gap, unsigned seed, float deviation = 1.0f) {
  Strided m(rows, cols, gap);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  for (int64_t r = 0; r < rows; ++r) std::generate_n(m.mut().row(r), cols, [&] { return normal(generator); });
  return m;
}

inline std::vector<float> random_values(int64_t n, unsigned seed) {
  const Strided m = random_matrix(1, n, 0, seed);
  return {m.view().data, m.view().data + n};
}

/// Expects |a - b| <= tolerance(row, col) everywhere.
inline void expect_near(ConstMatrix a, ConstMatrix b,
                        const std::function<double(int64_t, int64_t)>& tolerance) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      ASSERT_NEAR(a.row(r)[c], b.row(r)[c], tolerance(r, c)) << "at (" << r << ", " << c << ")";
    }
  }
}

/// `relative` of the expected value, and at least `absolute`.
inline void expect_close(ConstMatrix actual, ConstMatrix expected, double relative, double absolute) {
  expect_near(actual, expected, [&](int64_t r, int64_t c) {
    return std::max(relative * std::abs(expected.row(r)[c]), absolute);
  });
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Runs `compute` with 1, 2, 3 and 7 threads and expects the same bits from each.
inline void expect_same_bits_for_any_threads(const std::function<std::vector<float>()>& compute) {
  const int before = num_threads();
  set_num_threads(1);
  const std::vector<float> one = compute();
  for (const int threads : {2, 3, 7}) {
    set_num_threads(threads);
    EXPECT_TRUE(same_bits(compute(), one)) << threads << " threads";
  }
  set_num_threads(before);
}

}  // namespace nibble::kernels
