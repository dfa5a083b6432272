#include <algorithm>
#include <functional>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/dot.h"
#include "kernels/cpu/few4.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/panels4.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {
namespace {

// Elements of x that are rounded in one task.
constexpr int64_t kRoundedAtOnce = 1 << 16;

// Inputs of a 4-bit panel that are decoded at a time for up to kFewRows rows, so that they are multiplied out
// of the first-level cache; more rows take a block, which stays in the second level while they pass.
constexpr int64_t kFewRows = 8, kFewInputs = 2 * kChunk4;

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

/// n values for the calling thread, 64-byte aligned, uninitialised and good until the next call with this T.
template <typename T>
T* scratch(DType dtype, int64_t n) {
  thread_local Tensor buffer;
  if (buffer.count() < n) buffer = Tensor(dtype, {n});
  return buffer.as<T>();
}

int64_t chunk_end(int64_t k) {
  return (k + kChunk4 - 1) / kChunk4 * kChunk4;
}

/// multiply_panel with panel p of a 4-bit weight, decoded piece by piece.
template <typename T>
void multiply_panel4(ConstMatrix x, const Codes4& w, int64_t p, DType dtype, float* sums) {
  if (few4_usable(w, x.rows) && panels_fuse()) return few4_multiply(x, w, p, dtype == DType::f32, sums);
  const int64_t step = x.rows <= kFewRows ? kFewInputs : kPanelBlock;
  T* piece = scratch<T>(dtype, step * kPanel);
  Tables4 tables;
  float block[kFewRows * kPanel];
  for (int64_t k = 0; k < w.in; k += step) {
    const int64_t end = std::min(w.in, k + step);
    decode_panel4(w, p, k, chunk_end(end), tables, piece);
    multiply_piece(x, k, end, piece, block, sums);
  }
}

/// Panel p of a 4-bit weight as bf16, for the calling thread, until the next call.
const uint16_t* decoded_panel(const Codes4& w, int64_t p) {
  auto* panel = scratch<uint16_t>(DType::bf16, chunk_end(w.in) * kPanel);
  Tables4 tables;
  decode_panel4(w, p, 0, chunk_end(w.in), tables, panel);
  return panel;
}

/// Rows of x times panel p on AMX; of a 4-bit weight all of it is decoded first.
void multiply_on_amx(const TiledRows& x, int64_t first, int64_t rows, const Weight::Impl& w, int64_t p,
                     float* sums) {
  amx_multiply_panel(x, first, rows, w.codes4 ? decoded_panel(*w.codes4, p) : w.narrow_panel(p), sums);
}

/// The same with AVX512-BF16; a 4-bit weight is decoded piece by piece.
void multiply_by_dots(const TiledRows& x, int64_t first, int64_t rows, const Weight::Impl& w, int64_t p,
                      float* sums) {
  if (!w.codes4) return dot_multiply_piece(x, first, rows, 0, w.depth(), w.narrow_panel(p), sums);
  if (few4_usable(*w.codes4, rows)) return few4_multiply_dots(x, first, rows, *w.codes4, p, sums);
  const int64_t step = rows <= kFewRows ? kFewInputs : kPanelBlock;
  auto* piece = scratch<uint16_t>(DType::bf16, step * kPanel);
  Tables4 tables;
  for (int64_t k = 0; k < w.in; k += step) {
    const int64_t end = chunk_end(std::min(w.in, k + step));
    decode_panel4(*w.codes4, p, k, end, tables, piece);
    dot_multiply_piece(x, first, rows, k, end - k, piece, sums);
  }
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

bool fast_bf16() {
  return amx_usable() || dot_usable();
}

const char* instruction_set() {
  return amx_usable() ? "AMX-BF16" : dot_usable() ? "AVX512-BF16" : row_target();
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
  if (w.compute == Compute::bf16 && (amx_usable() || dot_usable())) {
    const auto multiply = amx_usable() ? multiply_on_amx : multiply_by_dots;
    const TiledRows tiled(x);
    return for_each_tile(w, bias, y, [&](int64_t first, int64_t rows, int64_t p, float* sums) {
      multiply(tiled, first, rows, w, p, sums);
    });
  }
  Matrix rounded;
  if (w.compute == Compute::bf16) {
    rounded = rounded_to_bf16(x);
    x = rounded.view();
  }
  for_each_tile(w, bias, y, [&](int64_t first, int64_t rows, int64_t p, float* sums) {
    const ConstMatrix tile = x.row_range(first, rows);
    if (w.codes4 && w.wide) {
      multiply_panel4<float>(tile, *w.codes4, p, DType::f32, sums);
    } else if (w.codes4) {
      multiply_panel4<uint16_t>(tile, *w.codes4, p, DType::bf16, sums);
    } else if (w.wide) {
      multiply_panel(tile, w.wide_panel(p), sums);
    } else {
      multiply_panel(tile, w.narrow_panel(p), sums);
    }
  });
}

}  // namespace nibble::kernels
