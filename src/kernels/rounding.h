// Rounding a weight to NF4 with double quantization so that the outputs of its linear change least. A reader
// sees an ordinary 4-bit tensor; only the choice of codes and absmax values differs.
//
// The objective is trace((W - Q) H (W - Q)') for the weight W (out, in), what a reader decodes Q, and H,
// which is the Gram matrix X'X of the linear's input with a larger diagonal: damped_diagonal.
//
// search: each block of 64 elements takes the absmax from a grid around its largest
// magnitude that makes e' H_b e least, for its errors e with nearest codes and the part H_b of H that belongs
// to its columns.
//
// feedback: errors are fed forward along the input (GPTQ: Frantar et al. 2022, arXiv:2210.17323, in the form
// of Chee et al. 2023, arXiv:2307.13304). For H = U D U', U unit upper triangular, the objective of a row is
// the sum of D_k (t_k - q_k)^2 with t_k = w_k + the sum over j < k of (w_j - q_j) U_jk. Columns are coded in
// order, each to the code nearest to t_k; the absmax of a block is the one of the grid whose errors, fed
// forward inside the block, give the least sum. Then `sweeps` passes of coordinate descent: every code in
// turn moves to the one nearest to its optimum with all others held, and every absmax to the best one for its
// codes, where the objective falls.
//
// drift: in a model whose earlier linears are quantized, the input is Y where it was X, and what the output
// is added to is S where it was R. The sum that was meant, R + X W', is then nearest to S + Y T' (in squares,
// beside the damping) for T = W + (W K + L) H^-1 with K = (X - Y)' Y, L = (R - S)' Y and H made of Y:
// feedback to T instead of W takes errors of earlier linears back as well (Li et al. 2025, arXiv:2504.02692,
// has this target without L).
//
// Both run twice: the absmax values of a first pass, free floats, set the offset and the nested scales of
// double quantization; a second pass chooses absmax values among those that a reader can decode and measures
// errors against what it decodes, rounded to the weight's dtype.
//
// A block that straddles rows has one absmax for parts of several rows. Its absmax is chosen when its first
// element is met: for the row's tail after feedback and the next rows' heads.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "quant/format.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

enum class Rounding { plain, search, feedback };

/// "plain", "search", "feedback".
std::string_view rounding_name(Rounding rounding);
std::optional<Rounding> parse_rounding(std::string_view name);

struct RoundingOptions {
  Rounding kind = Rounding::plain;
  double damping = 0.03;  // see damped_diagonal; at least 0
  int sweeps = 2;         // of coordinate descent after feedback; other kinds make none
};

/// What the outputs of a linear miss because of earlier ones; either may be empty.
struct Drift {
  ConstMatrix input = {};   // K (in, in)
  ConstMatrix stream = {};  // L (out, in)

  bool empty() const { return input.rows == 0 && stream.rows == 0; }
};

/// The absmax values that are tried for a block whose targets (weights with feedback) and weights have the
/// largest magnitudes `target` and `weight`: kScaleSteps from target * kScaleHigh down to min(target, weight)
/// * kScaleLow, each the same ratio to the one before. Feedback can make the target of a weak channel large,
/// which must not widen the steps of all others in its block: so the grid reaches down to the weights.
inline constexpr int kScaleSteps = 24;
inline constexpr float kScaleLow = 0.60f, kScaleHigh = 1.10f;
std::array<float, kScaleSteps> scale_grid(float target, float weight);

/// The diagonal of H: gram_ii * (1 + damping) + 1e-4 * damping * mean(diag gram), and 1 everywhere where the
/// diagonal of the gram is zero throughout (H is then the identity). Off its diagonal H is the gram. Damping
/// each channel by its own power rather than by the mean keeps the correlations of weak channels beside
/// outlier channels (with those, the damping by the mean left 3 to 11 times the error on inputs held out;
/// without them, the two were equal), and bounds every D_k from below by damping * gram_kk, so that fp32
/// factors it whatever the scales of the channels are.
std::vector<float> damped_diagonal(ConstMatrix gram, double damping);

/// The offset of double quantization for better codes: that of plain codes (the mean of their absmax values)
/// rounded to eight bits. Any offset near the mean serves as well, since absmax values are chosen among what
/// it lets a reader decode; one that follows from the weight alone makes a quant_state whose size does not
/// depend on statistics, and a short one makes it no longer than plain rounding's, so that a plan of plain
/// sizes fits.
float short_offset(float plain);

/// The weight (out, in; f32, bf16 or f16, finite, of any alignment) in NF4 with double quantization, blocks
/// of 64. plain: quant::encode4 byte for byte; the gram is not looked at. Otherwise gram: (in, in),
/// symmetric, where the damping is raised tenfold until H can be factored; or its diagonal alone (1, in), for
/// which feedback has nothing to feed and is search. drift: for feedback with a whole matrix; where H is at
/// last the diagonal alone, it counts for nothing. Error when the gram or the drift holds NaN or infinity;
/// InternalError for other shapes and dtypes. Thread-safe; uses nibble's threads inside; the same bytes for
/// any number of them. Memory beside the arguments: one (in, in) matrix of fp32 for feedback, one like the
/// weight in fp32 with a drift, and for each thread three times the fp32 size of 64 rows (of 1024 rows at
/// most where `in` is no multiple of 64).
quant::Packed4 round4(const TensorView& weight, ConstMatrix gram, const RoundingOptions& options,
                      const Drift& drift = {});

}  // namespace nibble::kernels
