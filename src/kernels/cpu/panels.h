// Products of rows with a panel of a weight (weight.h), in Highway, on the calling thread.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace nibble::kernels {

/// sums (x.rows, kPanel) = x (rows, in) * panel, without padding of `in`. Every sum runs over blocks of
/// kBlock inputs, in ascending order inside a block and of the blocks, so that a row gives the same bits
/// whatever other rows are computed with it.
void multiply_panel(ConstMatrix x, const float* panel, float* sums);
void multiply_panel(ConstMatrix x, const uint16_t* panel, float* sums);

/// y[i] = x[i] rounded to bf16 (to nearest even; a NaN stays a NaN).
void round_to_bf16(const float* x, int64_t n, uint16_t* y);

/// The same with the results as fp32; y may be x.
void round_to_bf16(const float* x, int64_t n, float* y);

}  // namespace nibble::kernels
