// Products of rows with a panel of a weight (weight.h), in Highway, on the calling thread.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace nibble::kernels {

/// sums (x.rows, kPanel) = x (rows, in) * panel, without padding of `in`. Every sum runs over blocks of
/// kPanelBlock inputs, in ascending order inside a block and of the blocks, so that a row gives the same bits
/// whatever other rows are computed with it.
void multiply_panel(ConstMatrix x, const float* panel, float* sums);
void multiply_panel(ConstMatrix x, const uint16_t* panel, float* sums);

/// True where the instruction set in use, one of x86, adds a product to its sum with one rounding.
bool panels_fuse();

/// Inputs of a block: its part of a panel stays in the second-level cache while the rows pass.
inline constexpr int64_t kPanelBlock = 512;

/// The same for a panel that comes in pieces: inputs [begin, end) of x times `piece`, which starts at input
/// `begin`. Called for pieces that follow each other from 0 to x.cols, none across a multiple of kPanelBlock
/// and each but the last of an even number of inputs, it gives the bits of multiply_panel. `block` (x.rows,
/// kPanel) keeps the sums of an unfinished block from one call to the next.
void multiply_piece(ConstMatrix x, int64_t begin, int64_t end, const float* piece, float* block, float* sums);
void multiply_piece(ConstMatrix x, int64_t begin, int64_t end, const uint16_t* piece, float* block,
                    float* sums);

/// y[i] = x[i] rounded to bf16 (to nearest even; a NaN stays a NaN).
void round_to_bf16(const float* x, int64_t n, uint16_t* y);

/// The same with the results as fp32; y may be x.
void round_to_bf16(const float* x, int64_t n, float* y);

}  // namespace nibble::kernels
