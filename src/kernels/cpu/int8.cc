#include <algorithm>
#include <bit>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/panels8.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/weight.h"
#include "kernels/ops.h"

namespace nibble::kernels {

/// The transposed codes cut into panels of kPanel output columns, the last padded with zeros:
/// [panel][pairs][kPanel][2], `in` padded to pairs.
struct Int8Weight::Impl {
  int64_t out = 0, in = 0;
  Tensor panels;
  std::vector<float> scb;  // (out)

  int64_t pairs() const { return (in + 1) / 2; }
  int64_t panel_count() const { return (out + kPanel - 1) / kPanel; }
  const int8_t* panel(int64_t p) const { return panels.as<int8_t>() + p * pairs() * kPanel * 2; }
};

namespace {

// 127 * 128 * 2^17 < 2^31.
constexpr int64_t kMaxIn = 1 << 17;
// Elements of x that are quantized in one task.
constexpr int64_t kQuantizedAtOnce = 1 << 15;
// 1 / 127^2 as the reference writes it.
constexpr float kInverse127Squared = 6.200124e-05f;

/// The rows of one call in 8 bits.
struct QuantizedRows {
  Tensor codes;                       // i16 (rows, 2 * pairs), padded with 0
  std::vector<float> absmax;          // (rows), outliers left out
  std::vector<int64_t> outlier_cols;  // ascending
};

QuantizedRows quantize(ConstMatrix x, float threshold) {
  const int64_t depth = (x.cols + 1) / 2 * 2;
  QuantizedRows q{Tensor(DType::i16, {x.rows, depth}), std::vector<float>(static_cast<size_t>(x.rows)), {}};
  // A task takes several rows and marks outliers in a row of its own.
  const int64_t grain = std::max<int64_t>(1, kQuantizedAtOnce / std::max<int64_t>(1, depth)),
                tasks = (x.rows + grain - 1) / grain;
  std::vector<uint8_t> marks(static_cast<size_t>(tasks * x.cols), 0);
  parallel_for(tasks, [&](int64_t task) {
    std::vector<int8_t> codes(static_cast<size_t>(depth), 0);
    for (int64_t r = task * grain; r < std::min(x.rows, (task + 1) * grain); ++r) {
      q.absmax[static_cast<size_t>(r)] =
          quant::encode_row8(reinterpret_cast<const std::byte*>(x.row(r)), DType::f32, x.cols, threshold,
                             codes.data(), marks.data() + task * x.cols);
      std::copy(codes.begin(), codes.end(), q.codes.as<int16_t>() + r * depth);
    }
  });
  for (int64_t task = 1; task < tasks; ++task) {
    for (int64_t i = 0; i < x.cols; ++i) marks[i] |= marks[task * x.cols + i];
  }
  for (int64_t i = 0; i < x.cols; ++i) {
    if (marks[i] != 0) q.outlier_cols.push_back(i);
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    for (const int64_t i : q.outlier_cols) q.codes.as<int16_t>()[r * depth + i] = 0;
  }
  return q;
}

Matrix columns_of(ConstMatrix x, std::span<const int64_t> columns) {
  Matrix out(x.rows, std::ssize(columns));
  for (int64_t r = 0; r < x.rows; ++r) {
    for (size_t j = 0; j < columns.size(); ++j) out.row(r)[j] = x.row(r)[columns[j]];
  }
  return out;
}

/// Columns of the weight decoded for panel p: (columns, kPanel), the transposed quant::decode8.
void decode_columns(const Int8Weight::Impl& w, int64_t p, std::span<const int64_t> columns, float* decoded) {
  const int64_t n = std::min(kPanel, w.out - p * kPanel);
  const float* scb = w.scb.data() + p * kPanel;
  for (size_t j = 0; j < columns.size(); ++j) {
    const int8_t* codes = w.panel(p) + columns[j] / 2 * kPanel * 2 + columns[j] % 2;
    float* row = decoded + j * kPanel;
    for (int64_t c = 0; c < n; ++c) row[c] = static_cast<float>(codes[2 * c]) * scb[c] * quant::kInverse127;
    std::fill(row + n, row + kPanel, 0.0f);
  }
}

/// Panel p of y = sums (y.rows, kPanel) scaled back, + bias. absmax: that of the rows of y.
void finish(const int32_t* sums, const Int8Weight::Impl& w, int64_t p, const float* absmax,
            std::span<const float> bias, MutableMatrix y) {
  const int64_t begin = p * kPanel, n = std::min(kPanel, w.out - begin);
  const float* scb = w.scb.data() + begin;
  for (int64_t r = 0; r < y.rows; ++r) {
    float* row = y.row(r) + begin;
    const int32_t* sum = sums + r * kPanel;
    for (int64_t c = 0; c < n; ++c)
      row[c] = static_cast<float>(sum[c]) * (absmax[r] * scb[c]) * kInverse127Squared;
    if (bias.empty()) continue;
    for (int64_t c = 0; c < n; ++c) row[c] += bias[begin + c];
  }
}

/// Panel p of y += x (y.rows, columns) * the weight's columns.
void add_outliers(ConstMatrix x, const Int8Weight::Impl& w, int64_t p, std::span<const int64_t> columns,
                  MutableMatrix y) {
  thread_local std::vector<float> decoded, sums;
  decoded.resize(columns.size() * kPanel);
  sums.resize(static_cast<size_t>(x.rows * kPanel));
  decode_columns(w, p, columns, decoded.data());
  multiply_panel(x, decoded.data(), sums.data());
  const int64_t begin = p * kPanel, n = std::min(kPanel, w.out - begin);
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < n; ++c) y.row(r)[begin + c] += sums[static_cast<size_t>(r * kPanel + c)];
  }
}

}  // namespace

Int8Weight Int8Weight::pack(const quant::Packed8& weight) {
  NIBBLE_CHECK(weight.shape.size() == 2, "weight {}", shape_text(weight.shape));
  auto impl = std::make_shared<Impl>();
  impl->out = weight.shape[0];
  impl->in = weight.shape[1];
  if (impl->in > kMaxIn)
    fail("an 8-bit linear with {} inputs; nibble runs those with up to {}", impl->in, kMaxIn);
  NIBBLE_CHECK(std::ssize(weight.codes) == impl->out * impl->in && std::ssize(weight.scb) == impl->out);
  impl->scb = weight.scb;
  impl->panels = Tensor(DType::i8, {impl->panel_count(), impl->pairs(), kPanel, 2});
  parallel_for(impl->panel_count(), [&](int64_t p) {
    const int64_t in = impl->in, size = impl->pairs() * kPanel * 2;
    int8_t* panel = impl->panels.as<int8_t>() + p * size;
    std::fill_n(panel, size, int8_t{0});
    for (int64_t r = 0; r < std::min(kPanel, impl->out - p * kPanel); ++r) {
      const int8_t* row = weight.codes.data() + (p * kPanel + r) * in;
      for (int64_t i = 0; i < in; ++i) panel[(i / 2 * kPanel + r) * 2 + i % 2] = row[i];
    }
  });
  Int8Weight packed;
  packed.impl_ = std::move(impl);
  return packed;
}

int64_t Int8Weight::out() const {
  return impl_->out;
}
int64_t Int8Weight::in() const {
  return impl_->in;
}
int64_t Int8Weight::bytes() const {
  return impl_->panels.bytes() + impl_->out * static_cast<int64_t>(sizeof(float));
}

void linear_int8(ConstMatrix x, const Int8Weight& weight, std::span<const float> bias, float threshold,
                 MutableMatrix y) {
  const Int8Weight::Impl& w = weight.impl();
  NIBBLE_CHECK(x.cols == w.in && y.cols == w.out && x.rows == y.rows,
               "linear_int8: ({}, {}) by ({}, {}) into ({}, {})", x.rows, x.cols, w.out, w.in, y.rows,
               y.cols);
  NIBBLE_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == w.out);
  if (x.rows == 0 || w.out == 0) return;
  const QuantizedRows q = quantize(x, f16_to_float(float_to_f16(threshold)));
  const Matrix outliers = columns_of(x, q.outlier_cols);
  for_each_tile(x.rows, w.panel_count(), w.in, {}, [&](const Tile& tile) {
    thread_local std::vector<int32_t> sums;
    sums.resize(static_cast<size_t>(tile.rows * kPanel));
    const int16_t* codes = q.codes.as<int16_t>() + tile.first * 2 * w.pairs();
    const MutableMatrix rows = y.row_range(tile.first, tile.rows);
    for (int64_t p = tile.begin; p < tile.end; ++p) {
      multiply_panel8(codes, tile.rows, w.pairs(), w.panel(p), sums.data());
      finish(sums.data(), w, p, q.absmax.data() + tile.first, bias, rows);
      if (!q.outlier_cols.empty())
        add_outliers(outliers.view().row_range(tile.first, tile.rows), w, p, q.outlier_cols, rows);
    }
  });
}

}  // namespace nibble::kernels
