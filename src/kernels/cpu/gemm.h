// fp32 products on the calling thread, through oneDNN.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace nibble::kernels {

/// c (m, n) = a (m, k) * b (k, n), or c += with `accumulate`; a is given as (k, m) if transpose_a, b as (n,
/// k) if transpose_b. For k = 0 the product is zero. To be called inside a task of parallel_for, where oneDNN
/// uses one thread and the order of summation follows from the shape.
void gemm(ConstMatrix a, bool transpose_a, ConstMatrix b, bool transpose_b, bool accumulate, MutableMatrix c);

}  // namespace nibble::kernels
