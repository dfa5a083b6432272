// Products of 8-bit codes with a panel of an 8-bit weight, in Highway, on the calling thread.
#pragma once

#include <cstdint>

namespace nibble::kernels {

/// sums (rows, kPanel) = x (rows, 2 * pairs) * panel [pairs][kPanel][2], exactly, where they fit in int32.
/// Rows of x hold codes from -127 to 127, one after the other.
void multiply_panel8(const int16_t* x, int64_t rows, int64_t pairs, const int8_t* panel, int32_t* sums);

}  // namespace nibble::kernels
