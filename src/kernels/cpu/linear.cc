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

/// Computes the sums of a tile: [panel][rows, rounded up to TiledRows::kRows][kPanel].
using Product = std::function<void(const Tile& tile, float* sums)>;

/// Floats of a panel's sums.
int64_t sums_of(const Tile& tile) {
  return (tile.rows + TiledRows::kRows - 1) / TiledRows::kRows * TiledRows::kRows * kPanel;
}

void for_each_tile(const Weight::Impl& w, TileLimits limits, std::span<const float> bias, MutableMatrix y,
                   const Product& product) {
  for_each_tile(y.rows, w.panel_count(), w.in, limits, [&](const Tile& tile) {
    thread_local std::vector<float> sums;
    const int64_t each = sums_of(tile), all = (tile.end - tile.begin) * each;
    if (std::ssize(sums) < all) sums.resize(static_cast<size_t>(all));
    product(tile, sums.data());
    for (int64_t p = tile.begin; p < tile.end; ++p)
      finish(sums.data() + (p - tile.begin) * each, bias, p * kPanel, std::min(kPanel, w.out - p * kPanel),
             y.row_range(tile.first, tile.rows));
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

/// Instructions for products of bf16, and how these are cut: of a tile's rows `depth` inputs stay in the
/// second-level cache, with the sums of its panels, while pieces of these pass. 4-bit pieces, which are
/// decoded for every tile, pass more rows; up to kFewRows rows take short ones out of the first-level cache.
struct Bf16Kernel {
  void (*multiply)(const TiledRows& x, int64_t first, int64_t rows, int64_t begin, int64_t depth,
                   const uint16_t* piece, float* sums);
  TileLimits limits, limits4;
  int64_t depth, depth4, few_depth4;
};

constexpr Bf16Kernel kAmx = {amx_multiply_piece, {512, 4}, {512, 4}, 1024, 1024, 1024};
constexpr Bf16Kernel kDots = {dot_multiply_piece, {192, 4}, {512, 4}, 2048, 512, kFewInputs};

/// Rows of x by panels of bf16.
void multiply_tile(const Bf16Kernel& kernel, const TiledRows& x, const Weight::Impl& w, const Tile& tile,
                   float* sums) {
  for (int64_t k = 0; k < w.depth(); k += kernel.depth) {
    const int64_t depth = std::min(kernel.depth, w.depth() - k);
    for (int64_t p = tile.begin; p < tile.end; ++p)
      kernel.multiply(x, tile.first, tile.rows, k, depth, w.narrow_panel(p) + k * kPanel,
                      sums + (p - tile.begin) * sums_of(tile));
  }
}

/// Rows of x by panels of 4 bits, decoded piece by piece.
void multiply_tile4(const Bf16Kernel& kernel, const TiledRows& x, const Codes4& w, const Tile& tile,
                    float* sums) {
  const int64_t each = sums_of(tile), inputs = chunk_end(w.in);
  if (few4_usable(w, tile.rows) && dot_usable()) {
    for (int64_t p = tile.begin; p < tile.end; ++p)
      few4_multiply_dots(x, tile.first, tile.rows, w, p, sums + (p - tile.begin) * each);
    return;
  }
  const bool few = tile.rows <= kFewRows;
  const int64_t block = few ? inputs : kernel.depth4, step = few ? kernel.few_depth4 : kernel.depth4;
  auto* piece = scratch<uint16_t>(DType::bf16, step * kPanel);
  for (int64_t begin = 0; begin < inputs; begin += block) {
    const int64_t block_end = std::min(inputs, begin + block);
    for (int64_t p = tile.begin; p < tile.end; ++p) {
      Tables4 tables;
      for (int64_t k = begin; k < block_end; k += step) {
        const int64_t end = std::min(block_end, k + step);
        decode_panel4(w, p, k, end, tables, piece);
        kernel.multiply(x, tile.first, tile.rows, k, end - k, piece, sums + (p - tile.begin) * each);
      }
    }
  }
}

/// Rows of x by panels in Highway.
void multiply_tile(ConstMatrix x, const Weight::Impl& w, const Tile& tile, float* sums) {
  const ConstMatrix rows = x.row_range(tile.first, tile.rows);
  for (int64_t p = tile.begin; p < tile.end; ++p, sums += sums_of(tile)) {
    if (w.codes4 && w.wide) {
      multiply_panel4<float>(rows, *w.codes4, p, DType::f32, sums);
    } else if (w.codes4) {
      multiply_panel4<uint16_t>(rows, *w.codes4, p, DType::bf16, sums);
    } else if (w.wide) {
      multiply_panel(rows, w.wide_panel(p), sums);
    } else {
      multiply_panel(rows, w.narrow_panel(p), sums);
    }
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
    const Bf16Kernel& kernel = amx_usable() ? kAmx : kDots;
    const TiledRows tiled(x);
    return for_each_tile(w, w.codes4 ? kernel.limits4 : kernel.limits, bias, y,
                         [&](const Tile& tile, float* sums) {
                           if (w.codes4)
                             multiply_tile4(kernel, tiled, *w.codes4, tile, sums);
                           else
                             multiply_tile(kernel, tiled, w, tile, sums);
                         });
  }
  Matrix rounded;
  if (w.compute == Compute::bf16) {
    rounded = rounded_to_bf16(x);
    x = rounded.view();
  }
  for_each_tile(w, {}, bias, y, [&](const Tile& tile, float* sums) { multiply_tile(x, w, tile, sums); });
}

}  // namespace nibble::kernels
