// Products of few rows with a 4-bit weight, decoded in registers where AVX512-BF16 rounds to bf16, on the
// calling thread.
#pragma once

#include <cstdint>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/weight.h"

namespace nibble::kernels {

/// True if this CPU has the instructions, the weight the shape and the values, and the rows are so few that
/// it is faster than multiplying a decoded piece.
bool few4_usable(const Codes4& w, int64_t rows);

/// sums (rows, kPanel) = rows [first, first + rows) of x times panel p: the bits of dot_multiply_piece with
/// the decoded panel.
void few4_multiply_dots(const TiledRows& x, int64_t first, int64_t rows, const Codes4& w, int64_t p,
                        float* sums);

/// The same with x in fp32: the bits of multiply_panel with the decoded panel, of fp32 (`wide`) or of bf16,
/// where that fuses (panels.h).
void few4_multiply(ConstMatrix x, const Codes4& w, int64_t p, bool wide, float* sums);

}  // namespace nibble::kernels
