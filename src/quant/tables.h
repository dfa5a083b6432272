// Thresholds between codes, as the CUDA kernels of bitsandbytes write them.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// The values of the NF4 codes.
inline constexpr std::array<float, 16> kNf4Codes = {-1.0f,
                                                    -0.6961928009986877f,
                                                    -0.5250730514526367f,
                                                    -0.39491748809814453f,
                                                    -0.28444138169288635f,
                                                    -0.18477343022823334f,
                                                    -0.09105003625154495f,
                                                    0.0f,
                                                    0.07958029955625534f,
                                                    0.16093020141124725f,
                                                    0.24611230194568634f,
                                                    0.33791524171829224f,
                                                    0.44070982933044434f,
                                                    0.5626170039176941f,
                                                    0.7229568362236023f,
                                                    1.0f};

/// NF4: the code of y is the number of thresholds t with y > t.
inline constexpr auto kNf4Thresholds = std::bit_cast<std::array<float, 15>>(std::array<uint32_t, 15>{
    0xBF591CD9, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC, 0xBE0D38BC, 0xBD3A7871, 0x3D22FAFF,
    0x3DF64863, 0x3E5067E0, 0x3E9582D4, 0x3EC753F9, 0x3F006D03, 0x3F248DAF, 0x3F5C89D9});

/// FP4: the magnitude of y has the rank r = number of thresholds t with |y| > t, and the code kFp4Ranks[r],
/// to which 8 is added where y < 0.
inline constexpr std::array<float, 7> kFp4Thresholds = {.00260417f, .0859375f, .20833333f, .29166667f,
                                                        .4166667f,  .583333f,  .8333333f};
inline constexpr std::array<uint8_t, 8> kFp4Ranks = {0, 1, 6, 7, 4, 5, 2, 3};

/// The code of zero, which pads an odd count.
constexpr uint8_t zero_code(Format format) {
  return format == Format::nf4 ? 7 : 0;
}

/// The index of y in the dynamic map is the number of these thresholds t with y > t: the midpoints (rounded
/// to fp32) between neighbours k and k + 1; a y on a midpoint takes the even index, so where k is odd the
/// threshold is the next lower float.
const std::array<float, 255>& dynamic_thresholds();

}  // namespace nibble::quant
