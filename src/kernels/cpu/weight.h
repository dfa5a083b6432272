// How a packed weight lies in memory.
#pragma once

#include <cstdint>

#include "kernels/ops.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

/// Output columns of a panel.
inline constexpr int64_t kPanel = 64;
/// Input rows of a bf16 panel are padded with zeros to a multiple of this (one AMX tile).
inline constexpr int64_t kDepth = 32;

/// The transposed weight (in, out) cut into panels of kPanel output columns, the last padded with zeros:
///   f32:  [panel][in][kPanel]
///   bf16: [panel][in / 2][kPanel][2], `in` padded: the pairs that dot-product instructions read.
/// A weight that comes as bf16 stays bf16, also for Compute::f32, and is widened panel by panel.
struct Weight::Impl {
  Compute compute = Compute::f32;
  int64_t out = 0, in = 0;
  Tensor panels;

  bool wide() const { return panels.dtype() == DType::f32; }
  int64_t panel_count() const { return (out + kPanel - 1) / kPanel; }
  /// `in`, padded in bf16 panels.
  int64_t depth() const { return wide() ? in : (in + kDepth - 1) / kDepth * kDepth; }
  const float* wide_panel(int64_t p) const { return panels.as<float>() + p * depth() * kPanel; }
  const uint16_t* narrow_panel(int64_t p) const { return panels.as<uint16_t>() + p * depth() * kPanel; }
};

}  // namespace nibble::kernels
