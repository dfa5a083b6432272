#include "kernels/cpu/gemm.h"

#include <oneapi/dnnl/dnnl.h>

#include <algorithm>

#include "base/error.h"

namespace nibble::kernels {

void gemm(ConstMatrix a, bool transpose_a, ConstMatrix b, bool transpose_b, bool accumulate,
          MutableMatrix c) {
  const int64_t k = transpose_a ? a.rows : a.cols;
  NIBBLE_CHECK((transpose_a ? a.cols : a.rows) == c.rows && (transpose_b ? b.rows : b.cols) == c.cols &&
               (transpose_b ? b.cols : b.rows) == k);
  if (c.rows == 0 || c.cols == 0) return;
  if (k == 0) {
    for (int64_t r = 0; r < c.rows && !accumulate; ++r) std::fill_n(c.row(r), c.cols, 0.0f);
    return;
  }
  const auto status =
      dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', c.rows, c.cols, k, 1.0f, a.data, a.stride,
                 b.data, b.stride, accumulate ? 1.0f : 0.0f, c.data, c.stride);
  NIBBLE_CHECK(status == dnnl_success, "dnnl_sgemm: {}", static_cast<int>(status));
}

}  // namespace nibble::kernels
