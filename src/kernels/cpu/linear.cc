#include <algorithm>
#include <functional>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

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
  kernels::for_each_tile(y.rows, w.panel_count(), w.in, [&](int64_t first, int64_t rows, int64_t p) {
    thread_local std::vector<float> sums;
    sums.resize((kMaxTileRows + TiledRows::kRows) * kPanel);
    product(first, rows, p, sums.data());
    finish(sums.data(), bias, p * kPanel, std::min(kPanel, w.out - p * kPanel), y.row_range(first, rows));
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
  return amx_usable() ? Compute::bf16 : Compute::f32;
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
