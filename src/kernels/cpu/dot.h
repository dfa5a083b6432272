// Products of bf16 rows with bf16 panels by the dot products of AVX512-BF16, for CPUs without AMX.
#pragma once

#include <cstdint>

#include "kernels/cpu/amx.h"

namespace nibble::kernels {

/// True if this CPU has AVX512-BF16 and tests allow it.
bool has_dots();

/// The same, and no AMX, which is faster.
bool dot_usable();

/// sums (rows, kPanel) = rows [first, first + rows) of x times inputs [begin, begin + depth) of a bf16 panel
/// (weight.h), which start at `piece`; from begin > 0 on, added to `sums`. begin and depth are multiples of
/// kDepth, x is padded to such. Sums run in fp32 in ascending order of pairs of inputs, so that a row gives
/// the same bits whatever other rows are computed with it and however the panel is cut; bf16 and fp32 values
/// below the normal range count as zero.
void dot_multiply_piece(const TiledRows& x, int64_t first, int64_t rows, int64_t begin, int64_t depth,
                        const uint16_t* piece, float* sums);

}  // namespace nibble::kernels
