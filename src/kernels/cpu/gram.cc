#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/gemm.h"
#include "kernels/ops.h"

namespace nibble::kernels {
namespace {

// Columns of a tile of a Gram matrix, and rows of x that are summed up at a time.
constexpr int64_t kTile = 128, kChunk = 512;
// Rows of d in a tile of d * gram.
constexpr int64_t kRows = 64;

/// The lower triangle of a square diagonal tile becomes a copy of its upper one.
void mirror(MutableMatrix tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    for (int64_t j = 0; j < i; ++j) tile.row(i)[j] = tile.row(j)[i];
  }
}

void copy_transposed(ConstMatrix from, MutableMatrix to) {
  for (int64_t i = 0; i < to.rows; ++i) {
    for (int64_t j = 0; j < to.cols; ++j) to.row(i)[j] = from.row(j)[i];
  }
}

/// The diagonal (1, n) += the sums of squares of x's columns.
void add_squares(ConstMatrix x, MutableMatrix diagonal) {
  parallel_ranges(x.cols, kTile, [&](int64_t begin, int64_t end) {
    float* to = diagonal.row(0);
    for (int64_t r = 0; r < x.rows; r += kChunk) {
      std::array<float, kTile> sums{};
      for (int64_t i = r; i < std::min(r + kChunk, x.rows); ++i)
        for (int64_t c = begin; c < end; ++c) sums[c - begin] += x.row(i)[c] * x.row(i)[c];
      for (int64_t c = begin; c < end; ++c) to[c] += sums[c - begin];
    }
  });
}

double diagonal_norm(ConstMatrix d, ConstMatrix diagonal) {
  std::vector<double> sums(static_cast<size_t>(d.rows));
  parallel_ranges(d.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < d.cols; ++c) sums[r] += double{d.row(r)[c]} * d.row(r)[c] * diagonal.row(0)[c];
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

void add_gram(ConstMatrix x, MutableMatrix gram) {
  NIBBLE_CHECK(gram.cols == x.cols && (gram.rows == x.cols || is_diagonal(gram)));
  if (is_diagonal(gram)) return add_squares(x, gram);
  const int64_t tiles = (x.cols + kTile - 1) / kTile;
  std::vector<std::pair<int64_t, int64_t>> upper;
  for (int64_t i = 0; i < tiles; ++i) {
    for (int64_t j = i; j < tiles; ++j) upper.emplace_back(i * kTile, j * kTile);
  }
  parallel_for(static_cast<int64_t>(upper.size()), [&](int64_t t) {
    const auto [i, j] = upper[t];
    const int64_t ni = std::min(kTile, x.cols - i), nj = std::min(kTile, x.cols - j);
    const MutableMatrix tile = gram.row_range(i, ni).col_range(j, nj);
    for (int64_t r = 0; r < x.rows; r += kChunk) {
      const ConstMatrix chunk = x.row_range(r, std::min(kChunk, x.rows - r));
      gemm(chunk.col_range(i, ni), true, chunk.col_range(j, nj), false, true, tile);
    }
    if (i == j) {
      mirror(tile);
    } else {
      copy_transposed(tile, gram.row_range(j, nj).col_range(i, ni));
    }
  });
}

void add_cross(ConstMatrix a, ConstMatrix b, MutableMatrix out) {
  NIBBLE_CHECK(a.rows == b.rows && out.rows == a.cols && out.cols == b.cols);
  const int64_t rows = (a.cols + kTile - 1) / kTile, cols = (b.cols + kTile - 1) / kTile;
  parallel_for(rows * cols, [&](int64_t t) {
    const int64_t i = t / cols * kTile, j = t % cols * kTile;
    const int64_t ni = std::min(kTile, a.cols - i), nj = std::min(kTile, b.cols - j);
    for (int64_t r = 0; r < a.rows; r += kChunk) {
      const int64_t n = std::min(kChunk, a.rows - r);
      gemm(a.row_range(r, n).col_range(i, ni), true, b.row_range(r, n).col_range(j, nj), false, true,
           out.row_range(i, ni).col_range(j, nj));
    }
  });
}

double gram_norm(ConstMatrix d, ConstMatrix gram) {
  NIBBLE_CHECK(gram.cols == d.cols && (gram.rows == d.cols || is_diagonal(gram)));
  if (is_diagonal(gram)) return diagonal_norm(d, gram);
  const int64_t row_tiles = (d.rows + kRows - 1) / kRows, col_tiles = (d.cols + kTile - 1) / kTile;
  std::vector<double> sums(static_cast<size_t>(row_tiles * col_tiles));
  parallel_for(row_tiles * col_tiles, [&](int64_t t) {
    const int64_t r = t / col_tiles * kRows, c = t % col_tiles * kTile;
    const ConstMatrix rows = d.row_range(r, std::min(kRows, d.rows - r));
    const int64_t n = std::min(kTile, d.cols - c);
    Matrix product(rows.rows, n);
    gemm(rows, false, gram.col_range(c, n), false, false, product.mut());
    for (int64_t i = 0; i < rows.rows; ++i) {
      const float* a = rows.row(i) + c;
      sums[t] += std::inner_product(a, a + n, product.row(i), 0.0, std::plus<>(),
                                    [](double u, double v) { return u * v; });
    }
  });
  // Rounding may leave a norm of nothing slightly below 0.
  return std::max(std::accumulate(sums.begin(), sums.end(), 0.0), 0.0);
}

}  // namespace nibble::kernels
