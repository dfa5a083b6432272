// How a packed weight lies in memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/ops.h"
#include "quant/format.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

/// Output columns of a panel.
inline constexpr int64_t kPanel = 64;
/// Input rows of a bf16 panel are padded with zeros to a multiple of this (one AMX tile).
inline constexpr int64_t kDepth = 32;

/// Inputs of a chunk of 4-bit codes; the smallest block of an absmax holds as many.
inline constexpr int64_t kChunk4 = 32;
/// Bytes of codes between those that are decoded and those that are fetched for later: the lines of a chunk
/// are read in an order that the hardware does not foresee.
inline constexpr int64_t kAhead4 = 4 * kPanel * kChunk4 / 2;

/// A weight (out, in) in 4-bit codes, cut into panels of kPanel output columns, the last filled up with
/// zeros. Output 4 g + j of a panel has place j * kPanel / 4 + g, so that vectors of 128-bit blocks, one for
/// each output, come into the order of outputs by transposing 4 by 4:
///   codes:  [panel][in / kChunk4, rounded up][place][kChunk4 / 2]: byte i holds the code of input i of a
///   chunk
///           in its high nibble, that of input i + kChunk4 / 2 in its low one;
///   absmax: [panel][slot][output]: of the blocks that an output's inputs touch, in order. An output begins
///           inside a block where `in` is no multiple of `block`.
/// An absmax is held decoded, in fp32: an eighth of the codes where blocks have 64 elements.
struct Codes4 {
  int64_t out = 0, in = 0, block = 0, slots = 0;
  bool half = false;             // values are rounded to f16 before all else
  bool normal = false;           // no value before rounding is a subnormal number
  std::array<float, 16> code{};  // their values
  Tensor codes, absmax;

  int64_t chunks() const { return (in + kChunk4 - 1) / kChunk4; }
  const uint8_t* chunk(int64_t p, int64_t c) const {
    return codes.as<uint8_t>() + (p * chunks() + c) * kPanel * kChunk4 / 2;
  }
  const float* absmax_of(int64_t p) const { return absmax.as<float>() + p * slots * kPanel; }
  /// The output of a panel that has a place.
  static constexpr int64_t column(int64_t place) { return place % (kPanel / 4) * 4 + place / (kPanel / 4); }
};

/// absmax: as decoded, all finite.
Codes4 codes_in_panels(const quant::Packed4& packed, std::span<const float> absmax);

/// The transposed weight (in, out) cut into panels of kPanel output columns, the last padded with zeros:
///   f32:  [panel][in][kPanel]
///   bf16: [panel][in / 2][kPanel][2], `in` padded: the pairs that dot-product instructions read.
/// A weight that comes as bf16 stays bf16, also for Compute::f32, and is widened panel by panel. Of a 4-bit
/// weight, panels are made for as long as they are multiplied.
struct Weight::Impl {
  Compute compute = Compute::f32;
  int64_t out = 0, in = 0;
  bool wide = false;  // panels are f32
  Tensor panels;
  std::optional<Codes4> codes4;

  int64_t panel_count() const { return (out + kPanel - 1) / kPanel; }
  /// `in`, padded in bf16 panels.
  int64_t depth() const { return wide ? in : (in + kDepth - 1) / kDepth * kDepth; }
  const float* wide_panel(int64_t p) const { return panels.as<float>() + p * depth() * kPanel; }
  const uint16_t* narrow_panel(int64_t p) const { return panels.as<uint16_t>() + p * depth() * kPanel; }
};

}  // namespace nibble::kernels
