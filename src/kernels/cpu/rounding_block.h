// The inner loops of rounding (kernels/rounding.h) on one block of 64 positions for many independent weights
// at once, in Highway, on the calling thread. A "lane" is one of these weights: matrices are
// [position][lane], rows `lanes` floats apart, lanes a multiple of kRoundLanes.
#pragma once

#include <cstdint>

#include "quant/format.h"
#include "tensor/dtype.h"

namespace nibble::kernels {

inline constexpr int64_t kRoundLanes = 16;

/// What is known of a block, and where its rounding goes. Positions that belong to different rows of the
/// weight have no coupling: their entries in the (64, 64) matrices are 0.
struct RoundBlock {
  int64_t lanes = 0;
  DType dtype = DType::f32;         // of the decoded weight
  const float* weight = nullptr;    // (64, lanes)
  const float* coupling = nullptr;  // (64, 64): row k holds U_jk for j < k
  const float* pivots = nullptr;    // (64): D_k
  float* error = nullptr;           // (64, lanes): weight - decoded
  float* level = nullptr;           // (64, lanes): the value of the code, before absmax
};

/// out[l] = the largest magnitude of the 64 values of lane l of x (64, lanes).
void largest_of_lanes(const float* x, int64_t lanes, float* out);

/// Codes the block with each of kScaleSteps absmax values per lane, scales (kScaleSteps, lanes), keeps the
/// one of the least sum of D_k r_k^2, between equals the first, and writes its errors and levels; picked
/// (lanes) becomes its step. target (64, lanes): the weight with the feedback of what lies before the block.
/// r_k = t_k
/// - q_k for t_k = target_k + the sum over j < k of e_j U_jk; the code is the nearest to t_k with `feedback`,
/// else to the weight. An absmax that is not positive decodes to zeros.
void choose_scale(const RoundBlock& block, const float* target, const float* scales, bool feedback,
                  int32_t* picked);

/// Coordinate descent on the codes of a block. slope (64, lanes): g = (H e)_k for the current errors of whole
/// rows; hessian (64, 64), symmetric: H inside the block. In order, each code moves to the one nearest to its
/// optimum where that lowers the objective; errors, levels and slopes follow. scale (lanes).
void descend_codes(const RoundBlock& block, const float* hessian, const float* scale, float* slope);

/// wanted (lanes) = the absmax that would be best for the codes as they are.
void best_scale(const RoundBlock& block, const float* hessian, const float* scale, const float* slope,
                float* wanted);

/// Takes the absmax `wanted` (lanes) with the codes as they are in those lanes where that lowers the
/// objective; errors and slopes follow, and taken (lanes) becomes 1 there, else 0.
void try_scale(const RoundBlock& block, const float* hessian, const float* scale, const float* wanted,
               float* slope, int32_t* taken);

}  // namespace nibble::kernels
