#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops.h"

namespace nibble::kernels {
namespace {

// About so many elements make a task: tens of microseconds of work.
constexpr int64_t kGrain = 1 << 15;

/// Calls f(row) for every row on nibble's threads.
template <typename Function>
void for_each_row(int64_t rows, int64_t cols, Function f) {
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cols)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t r = begin; r < end; ++r) f(r);
                  });
}

void check_same(ConstMatrix a, ConstMatrix b) {
  NIBBLE_CHECK(a.rows == b.rows && a.cols == b.cols, "({}, {}) and ({}, {})", a.rows, a.cols, b.rows, b.cols);
}

}  // namespace

void layer_norm(ConstMatrix x, std::span<const float> scale, std::span<const float> shift, float eps,
                MutableMatrix y) {
  check_same(x, y);
  NIBBLE_CHECK(static_cast<int64_t>(scale.size()) == x.cols && scale.size() == shift.size());
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    layer_norm_row(x.row(r), scale.data(), shift.data(), eps, x.cols, y.row(r));
  });
}

void rms_norm(ConstMatrix x, std::span<const float> scale, float eps, MutableMatrix y) {
  check_same(x, y);
  NIBBLE_CHECK(static_cast<int64_t>(scale.size()) == x.cols);
  for_each_row(x.rows, x.cols,
               [&](int64_t r) { rms_norm_row(x.row(r), scale.data(), eps, x.cols, y.row(r)); });
}

void activate(Activation f, MutableMatrix x) {
  for_each_row(x.rows, x.cols, [&](int64_t r) { activate_row(f, x.cols, x.row(r)); });
}

void multiply(ConstMatrix a, ConstMatrix b, MutableMatrix y) {
  check_same(a, b);
  check_same(a, y);
  for_each_row(a.rows, a.cols, [&](int64_t r) { multiply_row(a.row(r), b.row(r), a.cols, y.row(r)); });
}

void add(ConstMatrix x, MutableMatrix y) {
  check_same(x, y);
  for_each_row(x.rows, x.cols, [&](int64_t r) { add_row(x.row(r), x.cols, y.row(r)); });
}

void rope(MutableMatrix x, int64_t heads, ConstMatrix cosine, ConstMatrix sine) {
  NIBBLE_CHECK(heads > 0 && x.cols % heads == 0, "{} columns in {} heads", x.cols, heads);
  check_same(cosine, sine);
  const int64_t head_dim = x.cols / heads, half = cosine.cols;
  NIBBLE_CHECK(cosine.rows == x.rows && 2 * half <= head_dim);
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x.row(r) + h * head_dim;
      rotate_row(cosine.row(r), sine.row(r), half, head, head + half);
    }
  });
}

void gather_rows(const TensorView& table, std::span<const int64_t> ids, MutableMatrix out) {
  NIBBLE_CHECK(table.shape.size() == 2 && out.cols == table.shape[1] &&
               out.rows == static_cast<int64_t>(ids.size()));
  const int64_t row_bytes = out.cols * dtype_size(table.dtype);
  for_each_row(out.rows, out.cols, [&](int64_t r) {
    NIBBLE_CHECK(ids[r] >= 0 && ids[r] < table.shape[0], "id {} of {}", ids[r], table.shape[0]);
    to_float({table.dtype, {out.cols}, table.data + ids[r] * row_bytes}, out.row(r));
  });
}

}  // namespace nibble::kernels
