#include <algorithm>
#include <functional>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

// Rows of a task, halved (to kMinRows) until there are kTasks tasks to share out.
constexpr int64_t kMaxRows = 512, kMinRows = 64, kTasks = 128;
// A task takes several panels if one has fewer multiplications than this: tens of microseconds.
constexpr int64_t kTaskWork = 1 << 18;
// Elements of x that are rounded in one task.
constexpr int64_t kRoundedAtOnce = 1 << 16;

/// Computes sums (rows, kPanel) = rows [first, first + rows) of x times panel p.
using Product = std::function<void(int64_t first, int64_t rows, int64_t p, float* sums)>;

/// Columns [begin, begin + n) of y = sums (y.rows, kPanel) + bias.
void finish(const float* sums, std::span<const float> bias, int64_t begin, int64_t n, MutableMatrix y) {
  for (int64_t r = 0; r < y.rows; ++r) {
    float* row = y.row(r) + begin;
    if (bias.empty()) {
      std::copy_n(sums + r * kPanel, n, row);
    } else {
      for (int64_t i = 0; i < n; ++i) row[i] = sums[r * kPanel + i] + bias[begin + i];
    }
  }
}

void for_each_tile(const Weight::Impl& w, std::span<const float> bias, MutableMatrix y,
                   const Product& product) {
  const int64_t panels = w.panel_count();
  int64_t tile = kMaxRows;
  while (tile > kMinRows && (y.rows + tile - 1) / tile * panels < kTasks) tile /= 2;
  tile = std::min(tile, y.rows);
  const int64_t row_tiles = (y.rows + tile - 1) / tile;
  const int64_t group = std::max<int64_t>(1, kTaskWork / std::max<int64_t>(1, tile * w.in * kPanel));
  // Tasks of one panel follow each other, so that it is read from memory once.
  parallel_for(row_tiles * ((panels + group - 1) / group), [&](int64_t task) {
    thread_local std::vector<float> sums;
    sums.resize((kMaxRows + TiledRows::kRows) * kPanel);
    const int64_t first = task % row_tiles * tile, rows = std::min(tile, y.rows - first);
    const int64_t begin = task / row_tiles * group;
    for (int64_t p = begin; p < std::min(panels, begin + group); ++p) {
      product(first, rows, p, sums.data());
      finish(sums.data(), bias, p * kPanel, std::min(kPanel, w.out - p * kPanel), y.row_range(first, rows));
    }
  });
}

Matrix rounded_to_bf16(ConstMatrix x) {
  Matrix y(x.rows, x.cols);
  const int64_t grain = std::max<int64_t>(1, kRoundedAtOnce / std::max<int64_t>(1, x.cols));
  parallel_ranges(x.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) round_to_bf16(x.row(r), x.cols, y.row(r));
  });
  return y;
}

}  // namespace

Compute default_compute() {
  return amx_usable() || __builtin_cpu_supports("avx512bf16") ? Compute::bf16 : Compute::f32;
}

const char* instruction_set() {
  return amx_usable() ? "AMX-BF16" : row_target();
}

void linear(ConstMatrix x, const Weight& weight, std::span<const float> bias, MutableMatrix y) {
  const Weight::Impl& w = weight.impl();
  NIBBLE_CHECK(x.cols == w.in && y.cols == w.out && x.rows == y.rows,
               "linear: ({}, {}) by ({}, {}) into ({}, {})", x.rows, x.cols, w.out, w.in, y.rows, y.cols);
  NIBBLE_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == w.out);
  if (x.rows == 0 || w.out == 0) return;
  if (w.in == 0) {
    const std::vector<float> zeros(kPanel * x.rows);
    for (int64_t p = 0; p < w.panel_count(); ++p) {
      finish(zeros.data(), bias, p * kPanel, std::min(kPanel, w.out - p * kPanel), y);
    }
    return;
  }
  if (w.compute == Compute::bf16 && amx_usable()) {
    const TiledRows tiled(x);
    return for_each_tile(w, bias, y, [&](int64_t first, int64_t rows, int64_t p, float* sums) {
      amx_multiply_panel(tiled, first, rows, w.narrow_panel(p), sums);
    });
  }
  Matrix rounded;
  if (w.compute == Compute::bf16) {
    rounded = rounded_to_bf16(x);
    x = rounded.view();
  }
  for_each_tile(w, bias, y, [&](int64_t first, int64_t rows, int64_t p, float* sums) {
    if (w.wide()) {
      multiply_panel(x.row_range(first, rows), w.wide_panel(p), sums);
    } else {
      multiply_panel(x.row_range(first, rows), w.narrow_panel(p), sums);
    }
  });
}

}  // namespace nibble::kernels
