// Decoding of panels of a 4-bit weight, in Highway, on the calling thread.
#pragma once

#include <cstdint>

#include "kernels/cpu/weight.h"

namespace nibble::kernels {

/// What decoding a panel keeps from one call to the next: the values of all codes in the blocks at hand, as
/// planes of bytes by place, least significant first. Made anew for each panel.
struct Tables4 {
  int64_t until = 0;  // the input up to which they hold
  alignas(64) uint8_t values[4][kPanel * 16], next[4][kPanel * 16];
};

/// Decodes inputs [begin, end) of panel p to a panel (weight.h) that starts at input `begin`: code * absmax
/// in fp32, rounded to f16 if w.half, then to bf16 in a bf16 panel. begin and end must be multiples of
/// kChunk4; the panel holds 0 from w.in on. Calls with the same tables go on in ascending order.
void decode_panel4(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, float* panel);
void decode_panel4(const Codes4& w, int64_t p, int64_t begin, int64_t end, Tables4& tables, uint16_t* panel);

}  // namespace nibble::kernels
