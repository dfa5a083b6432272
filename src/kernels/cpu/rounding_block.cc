#include "kernels/cpu/rounding_block.h"

#include <limits>

#include "kernels/rounding.h"
#include "quant/tables.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rounding_block.cc"
// foreach_target.h compiles this file once for each instruction set; it must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace nibble::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using RF = hn::CappedTag<float, static_cast<size_t>(kRoundLanes)>;
using RU = hn::RebindToUnsigned<RF>;
using Row = hn::Vec<RF>;
using Picks = hn::RebindToSigned<RF>;

constexpr int64_t kSize = quant::kBlock;
// Changes must lower the objective by this part of the curvature they pay: beyond the rounding of slopes.
constexpr float kMargin = 1e-3f;
// Absmax values tried at a time, whose chains of additions run beside each other.
constexpr int kTogether = 4;
static_assert(kScaleSteps % kTogether == 0);

HWY_INLINE int64_t width() {
  return static_cast<int64_t>(hn::Lanes(RF()));
}

/// Round a product of fp32 to nearest even to the dtype, as fp32.
struct KeepF32 {
  static HWY_INLINE Row round(Row x) { return x; }
};

struct ToNearBf16 {
  static HWY_INLINE Row round(Row x) {
    const RU d;
    const auto bits = hn::BitCast(d, x);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    const auto up = hn::Add(hn::Add(bits, hn::Set(d, 0x7fffu)), odd);
    return hn::BitCast(RF(), hn::And(up, hn::Set(d, 0xffff0000u)));
  }
};

/// For magnitudes below 65520.
struct ToNearF16 {
  static HWY_INLINE Row round(Row x) {
    const RF f;
    const RU d;
    const auto bits = hn::BitCast(d, x);
    const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(d, 1u));
    const auto up = hn::And(hn::Add(hn::Add(bits, hn::Set(d, 0xfffu)), odd), hn::Set(d, 0xffffe000u));
    // Below 2^-14 the values are multiples of 2^-24, as are the floats of [0.5, 1).
    const Row half = hn::Set(f, 0.75f);
    const Row subnormal = hn::Sub(hn::Add(x, half), half);
    return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(f, 0x1p-14f)), subnormal, hn::BitCast(f, up));
  }
};

/// The NF4 value nearest to y.
HWY_INLINE Row nearest_level(Row y) {
  const RF f;
  constexpr auto& kLevels = quant::kNf4Codes;
  Row level = hn::Set(f, kLevels[0]);
  for (size_t i = 0; i < 15; ++i)
    level =
        hn::IfThenElse(hn::Gt(y, hn::Set(f, quant::kNf4Thresholds[i])), hn::Set(f, kLevels[i + 1]), level);
  return level;
}

/// 1 / scale, and 0 where the scale is not positive or too small for that, so that everything takes level 0.
HWY_INLINE Row inverse_of(Row scale) {
  const RF f;
  const auto usable = hn::Gt(scale, hn::Set(f, 1e-37f));
  return hn::IfThenElseZero(usable, hn::Div(hn::Set(f, 1.0f), scale));
}

/// Codes one vector of lanes with n absmax values at a time. Sums of D r^2 to cost; errors and levels to
/// error and level [position][n] if n is 1.
template <class Round, bool kFeedback, int n>
HWY_INLINE void code_block(const RoundBlock& block, const float* target, int64_t lane, const Row (&scale)[n],
                           Row (&cost)[n]) {
  const RF f;
  HWY_ALIGN float errors[kSize][n][kRoundLanes];
  Row inverse[n];
  for (int i = 0; i < n; ++i) {
    inverse[i] = inverse_of(scale[i]);
    cost[i] = hn::Zero(f);
  }
  for (int64_t k = 0; k < kSize; ++k) {
    const float* u = block.coupling + k * kSize;
    Row even[n], odd[n];
    for (int i = 0; i < n; ++i) {
      even[i] = hn::LoadU(f, target + k * block.lanes + lane);
      odd[i] = hn::Zero(f);
    }
    for (int64_t j = 0; j + 1 < k; j += 2) {
      const Row u0 = hn::Set(f, u[j]), u1 = hn::Set(f, u[j + 1]);
      for (int i = 0; i < n; ++i) {
        even[i] = hn::MulAdd(u0, hn::Load(f, errors[j][i]), even[i]);
        odd[i] = hn::MulAdd(u1, hn::Load(f, errors[j + 1][i]), odd[i]);
      }
    }
    if (k % 2 == 1) {
      const Row u0 = hn::Set(f, u[k - 1]);
      for (int i = 0; i < n; ++i) even[i] = hn::MulAdd(u0, hn::Load(f, errors[k - 1][i]), even[i]);
    }
    const Row w = hn::LoadU(f, block.weight + k * block.lanes + lane);
    const Row pivot = hn::Set(f, block.pivots[k]);
    for (int i = 0; i < n; ++i) {
      const Row t = hn::Add(even[i], odd[i]);
      const Row level = nearest_level(hn::Mul(kFeedback ? t : w, inverse[i]));
      const Row q = Round::round(hn::Mul(level, scale[i]));
      const Row e = hn::Sub(w, q), r = hn::Sub(t, q);
      cost[i] = hn::MulAdd(hn::Mul(r, pivot), r, cost[i]);
      hn::Store(e, f, errors[k][i]);
      if constexpr (n == 1) {
        hn::StoreU(e, f, block.error + k * block.lanes + lane);
        hn::StoreU(level, f, block.level + k * block.lanes + lane);
      }
    }
  }
}

template <class Round, bool kFeedback>
void choose(const RoundBlock& block, const float* target, const float* scales, int32_t* picked) {
  const RF f;
  const Picks di;
  for (int64_t lane = 0; lane < block.lanes; lane += width()) {
    Row best_cost = hn::Set(f, std::numeric_limits<float>::max());
    Row best[1] = {hn::LoadU(f, scales + lane)};
    Row step = hn::Zero(f);
    for (int first = 0; first < kScaleSteps; first += kTogether) {
      Row scale[kTogether], cost[kTogether];
      for (int i = 0; i < kTogether; ++i) scale[i] = hn::LoadU(f, scales + (first + i) * block.lanes + lane);
      code_block<Round, kFeedback, kTogether>(block, target, lane, scale, cost);
      for (int i = 0; i < kTogether; ++i) {
        const auto better = hn::Lt(cost[i], best_cost);
        best_cost = hn::IfThenElse(better, cost[i], best_cost);
        best[0] = hn::IfThenElse(better, scale[i], best[0]);
        step = hn::IfThenElse(better, hn::Set(f, static_cast<float>(first + i)), step);
      }
    }
    Row cost[1];
    code_block<Round, kFeedback, 1>(block, target, lane, best, cost);
    hn::StoreU(hn::ConvertTo(di, step), di, picked + lane);
  }
}

/// Calls f with the rounding of a dtype.
template <class Function>
HWY_INLINE void with_rounding(DType dtype, const Function& f) {
  if (dtype == DType::bf16) return f(ToNearBf16());
  if (dtype == DType::f16) return f(ToNearF16());
  f(KeepF32());
}

void ChooseScale(const RoundBlock& block, const float* target, const float* scales, bool feedback,
                 int32_t* picked) {
  with_rounding(block.dtype, [&](auto rounding) {
    using Round = decltype(rounding);
    feedback ? choose<Round, true>(block, target, scales, picked)
             : choose<Round, false>(block, target, scales, picked);
  });
}

void LargestOfLanes(const float* x, int64_t lanes, float* out) {
  const RF f;
  for (int64_t lane = 0; lane < lanes; lane += width()) {
    Row top = hn::Zero(f);
    for (int64_t k = 0; k < kSize; ++k) top = hn::Max(top, hn::Abs(hn::LoadU(f, x + k * lanes + lane)));
    hn::StoreU(top, f, out + lane);
  }
}

/// slope += hessian row k * change, for one vector of lanes.
HWY_INLINE void move_slopes(const float* hessian, int64_t k, Row change, int64_t lanes, float* slope) {
  const RF f;
  for (int64_t j = 0; j < kSize; ++j) {
    float* at = slope + j * lanes;
    hn::StoreU(hn::MulAdd(hn::Set(f, hessian[k * kSize + j]), change, hn::LoadU(f, at)), f, at);
  }
}

template <class Round>
void descend(const RoundBlock& block, const float* hessian, const float* scales, float* slope) {
  const RF f;
  const int64_t lanes = block.lanes;
  for (int64_t lane = 0; lane < lanes; lane += width()) {
    const Row scale = hn::LoadU(f, scales + lane), inverse = inverse_of(scale);
    for (int64_t k = 0; k < kSize; ++k) {
      const int64_t at = k * lanes + lane;
      const float curvature = hessian[k * kSize + k];
      const Row h = hn::Set(f, curvature), g = hn::LoadU(f, slope + at);
      const Row old_level = hn::LoadU(f, block.level + at);
      const Row q = Round::round(hn::Mul(old_level, scale));
      const Row best = hn::MulAdd(g, hn::Set(f, 1 / curvature), q);
      const Row level = nearest_level(hn::Mul(best, inverse));
      const Row new_q = Round::round(hn::Mul(level, scale));
      const Row change = hn::Sub(q, new_q), paid = hn::Mul(hn::Mul(h, change), change);
      const Row gain = hn::MulAdd(hn::Add(g, g), change, hn::MulAdd(paid, hn::Set(f, kMargin), paid));
      const auto better = hn::Lt(gain, hn::Zero(f));
      if (hn::AllFalse(f, better)) continue;
      const Row w = hn::LoadU(f, block.weight + at), e = hn::LoadU(f, block.error + at);
      hn::StoreU(hn::IfThenElse(better, hn::Sub(w, new_q), e), f, block.error + at);
      hn::StoreU(hn::IfThenElse(better, level, old_level), f, block.level + at);
      move_slopes(hessian, k, hn::IfThenElseZero(better, change), lanes, slope + lane);
    }
  }
}

void DescendCodes(const RoundBlock& block, const float* hessian, const float* scale, float* slope) {
  with_rounding(block.dtype,
                [&](auto rounding) { descend<decltype(rounding)>(block, hessian, scale, slope); });
}

/// The sum over j of hessian[k][j] * x[j], for one vector of lanes of x (64, stride).
HWY_INLINE Row hessian_row(const float* hessian, int64_t k, const float* x, int64_t stride) {
  const RF f;
  Row even = hn::Zero(f), odd = hn::Zero(f);
  for (int64_t j = 0; j < kSize; j += 2) {
    even = hn::MulAdd(hn::Set(f, hessian[k * kSize + j]), hn::LoadU(f, x + j * stride), even);
    odd = hn::MulAdd(hn::Set(f, hessian[k * kSize + j + 1]), hn::LoadU(f, x + (j + 1) * stride), odd);
  }
  return hn::Add(even, odd);
}

void BestScale(const RoundBlock& block, const float* hessian, const float* scale, const float* slope,
               float* wanted) {
  const RF f;
  const int64_t lanes = block.lanes;
  for (int64_t lane = 0; lane < lanes; lane += width()) {
    // For levels c the objective moves by -2 ds c.g + ds^2 c'Hc when the scale moves by ds.
    Row dot = hn::Zero(f), curve = hn::Zero(f);
    for (int64_t k = 0; k < kSize; ++k) {
      const Row c = hn::LoadU(f, block.level + k * lanes + lane);
      dot = hn::MulAdd(c, hn::LoadU(f, slope + k * lanes + lane), dot);
      curve = hn::MulAdd(c, hessian_row(hessian, k, block.level + lane, lanes), curve);
    }
    const Row step = hn::IfThenElseZero(hn::Gt(curve, hn::Zero(f)), hn::Div(dot, curve));
    hn::StoreU(hn::Add(hn::LoadU(f, scale + lane), step), f, wanted + lane);
  }
}

template <class Round>
void try_scales(const RoundBlock& block, const float* hessian, const float* scales, const float* wanted,
                float* slope, int32_t* taken) {
  const RF f;
  const Picks di;
  const int64_t lanes = block.lanes;
  HWY_ALIGN float change[kSize][kRoundLanes], moved[kSize][kRoundLanes];
  for (int64_t lane = 0; lane < lanes; lane += width()) {
    const Row scale = hn::LoadU(f, scales + lane), next = hn::LoadU(f, wanted + lane);
    for (int64_t k = 0; k < kSize; ++k) {
      const Row c = hn::LoadU(f, block.level + k * lanes + lane);
      hn::Store(hn::Sub(Round::round(hn::Mul(c, scale)), Round::round(hn::Mul(c, next))), f, change[k]);
    }
    Row first = hn::Zero(f), second = hn::Zero(f);
    for (int64_t k = 0; k < kSize; ++k) {
      const Row along = hessian_row(hessian, k, change[0], kRoundLanes), d = hn::Load(f, change[k]);
      hn::Store(along, f, moved[k]);
      first = hn::MulAdd(d, hn::LoadU(f, slope + k * lanes + lane), first);
      second = hn::MulAdd(d, along, second);
    }
    const Row gain = hn::MulAdd(first, hn::Set(f, 2.0f), hn::MulAdd(second, hn::Set(f, kMargin), second));
    const auto better = hn::Lt(gain, hn::Zero(f));
    hn::StoreU(hn::ConvertTo(di, hn::IfThenElseZero(better, hn::Set(f, 1.0f))), di, taken + lane);
    for (int64_t k = 0; k < kSize; ++k) {
      const int64_t at = k * lanes + lane;
      const Row c = hn::LoadU(f, block.level + at), w = hn::LoadU(f, block.weight + at);
      const Row e = hn::Sub(w, Round::round(hn::Mul(c, next))), g = hn::LoadU(f, slope + at);
      hn::StoreU(hn::IfThenElse(better, e, hn::LoadU(f, block.error + at)), f, block.error + at);
      hn::StoreU(hn::IfThenElse(better, hn::Add(g, hn::Load(f, moved[k])), g), f, slope + at);
    }
  }
}

void TryScale(const RoundBlock& block, const float* hessian, const float* scale, const float* wanted,
              float* slope, int32_t* taken) {
  with_rounding(block.dtype, [&](auto rounding) {
    try_scales<decltype(rounding)>(block, hessian, scale, wanted, slope, taken);
  });
}

}  // namespace nibble::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::kernels {

HWY_EXPORT(LargestOfLanes);
HWY_EXPORT(ChooseScale);
HWY_EXPORT(DescendCodes);
HWY_EXPORT(BestScale);
HWY_EXPORT(TryScale);

void largest_of_lanes(const float* x, int64_t lanes, float* out) {
  HWY_DYNAMIC_DISPATCH(LargestOfLanes)(x, lanes, out);
}

void choose_scale(const RoundBlock& block, const float* target, const float* scales, bool feedback,
                  int32_t* picked) {
  HWY_DYNAMIC_DISPATCH(ChooseScale)(block, target, scales, feedback, picked);
}

void descend_codes(const RoundBlock& block, const float* hessian, const float* scale, float* slope) {
  HWY_DYNAMIC_DISPATCH(DescendCodes)(block, hessian, scale, slope);
}

void best_scale(const RoundBlock& block, const float* hessian, const float* scale, const float* slope,
                float* wanted) {
  HWY_DYNAMIC_DISPATCH(BestScale)(block, hessian, scale, slope, wanted);
}

void try_scale(const RoundBlock& block, const float* hessian, const float* scale, const float* wanted,
               float* slope, int32_t* taken) {
  HWY_DYNAMIC_DISPATCH(TryScale)(block, hessian, scale, wanted, slope, taken);
}

}  // namespace nibble::kernels
#endif
