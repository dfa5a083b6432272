#include "kernels/cpu/rounding_factor.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops.h"
#include "kernels/rounding.h"

namespace nibble::kernels {
namespace {

constexpr int64_t kPanel = 128;   // columns factored at a time
constexpr int64_t kChunk = 512;   // columns of a panel that one task solves
constexpr double kLeast = 1e-6;   // of its diagonal element, below which fp32 has lost a pivot
constexpr double kFloor = 1e-4;   // of the damping, relative to the mean of the diagonal
constexpr double kFirst = 1e-4;   // the damping that is tried after none
constexpr double kLargest = 1e9;  // the damping after which correlations are given up

/// Columns [0, c) of the panel's rows [c, c + n) become those of U' times D: solves Z from A = Z + the terms
/// of the panel's later rows, by the factored diagonal block `a` (n, n).
void solve_panel(std::span<const double> a, int64_t n, int64_t c, MutableMatrix panel) {
  parallel_ranges(c, kChunk, [&](int64_t begin, int64_t end) {
    const MutableMatrix part = panel.col_range(begin, end - begin);
    std::vector<float> weights(static_cast<size_t>(n));
    for (int64_t k = n - 2; k >= 0; --k) {
      for (int64_t m = k + 1; m < n; ++m) weights[m - k - 1] = static_cast<float>(-a[m * n + k]);
      add_weighted_rows(weights.data(), part.row_range(k + 1, n - k - 1), part.row(k));
    }
  });
}

/// The lower triangle of the leading (c, c) part of `lower` loses Z' D^-1 Z; Z (n, c) becomes D^-1 Z.
void update_rest(MutableMatrix z, const float* d, MutableMatrix scaled, MutableMatrix lower) {
  const int64_t c = z.cols, tiles = (c + kPanel - 1) / kPanel;
  parallel_ranges(c, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t k = 0; k < z.rows; ++k) {
      const float inverse = -1.0f / d[k];
      for (int64_t j = begin; j < end; ++j) scaled.row(k)[j] = z.row(k)[j] * inverse;
    }
  });
  parallel_for(tiles, [&](int64_t t) {
    // The longest rows first.
    const int64_t i = (tiles - 1 - t) * kPanel, n = std::min(kPanel, c - i);
    gemm(ConstMatrix(z).col_range(i, n), true, ConstMatrix(scaled).col_range(0, i + n), false, true,
         lower.row_range(i, n).col_range(0, i + n));
  });
  for (int64_t k = 0; k < z.rows; ++k)
    for (int64_t j = 0; j < c; ++j) z.row(k)[j] = -scaled.row(k)[j];
}

}  // namespace

std::vector<float> damped_diagonal(ConstMatrix gram, double damping) {
  const int64_t in = gram.cols;
  NIBBLE_CHECK((gram.rows == in || is_diagonal(gram)) && damping >= 0, "damping {}", damping);
  double sum = 0;
  for (int64_t i = 0; i < in; ++i) sum += std::max(on_diagonal(gram, i), 0.0f);
  std::vector<float> diagonal(static_cast<size_t>(in), 1.0f);
  if (sum == 0) return diagonal;
  const double floor = kFloor * damping * sum / static_cast<double>(in);
  for (int64_t i = 0; i < in; ++i)
    diagonal[i] = static_cast<float>(std::max(on_diagonal(gram, i), 0.0f) * (1 + damping) + floor);
  return diagonal;
}

bool factor_small(std::span<double> a, int64_t n, const float* reference) {
  for (int64_t k = n - 1; k >= 0; --k) {
    double* row = a.data() + k * n;
    const double pivot = row[k];
    if (!(pivot > kLeast * static_cast<double>(reference[k]))) return false;
    for (int64_t i = 0; i < k; ++i) {
      const double u = row[i] / pivot;
      for (int64_t j = 0; j <= i; ++j) a[i * n + j] -= u * row[j];
    }
    for (int64_t i = 0; i < k; ++i) row[i] /= pivot;
  }
  return true;
}

bool factor_gram(const DampedGram& h, Matrix& lower, std::vector<float>& d) {
  const int64_t in = h.gram.rows;
  parallel_ranges(in, kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(h.gram.row(i), i, lower.row(i));
      lower.row(i)[i] = h.diagonal[i];
    }
  });
  d.resize(static_cast<size_t>(in));
  Matrix scaled(std::min(kPanel, in), in);
  for (int64_t end = in; end > 0;) {
    const int64_t c = std::max<int64_t>(0, end - kPanel), n = end - c;
    std::vector<double> a(static_cast<size_t>(n * n));
    for (int64_t k = 0; k < n; ++k) std::copy_n(lower.row(c + k) + c, k + 1, a.data() + k * n);
    if (!factor_small(a, n, h.diagonal.data() + c)) return false;
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t i = 0; i < k; ++i) lower.row(c + k)[c + i] = static_cast<float>(a[k * n + i]);
      d[c + k] = static_cast<float>(a[k * n + k]);
    }
    const MutableMatrix panel = lower.mut().row_range(c, n).col_range(0, c);
    solve_panel(a, n, c, panel);
    update_rest(panel, d.data() + c, scaled.mut().row_range(0, n).col_range(0, c), lower.mut());
    end = c;
  }
  return true;
}

DampedGram damp_until(ConstMatrix gram, double damping, Matrix& zeros,
                      const std::function<bool(const DampedGram&)>& attempt) {
  for (; damping < kLargest; damping = damping == 0 ? kFirst : damping * 10) {
    DampedGram h{gram, damped_diagonal(gram, damping)};
    if (attempt(h)) return h;
  }
  zeros = Matrix::zeros(gram.rows, gram.cols);
  DampedGram h{zeros.view(), damped_diagonal(gram, kFirst)};
  NIBBLE_CHECK(attempt(h), "the diagonal of a gram does not factor");
  return h;
}

}  // namespace nibble::kernels
