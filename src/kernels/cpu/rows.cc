#include "kernels/cpu/rows.h"

#include <cmath>
#include <iterator>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
// foreach_target.h compiles this file once for each instruction set; it must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace nibble::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using H = hn::Half<F>;
using D = hn::RepartitionToWide<F>;
using Floats = hn::Vec<F>;
using Doubles = hn::Vec<D>;

HWY_INLINE int64_t lanes() {
  return static_cast<int64_t>(hn::Lanes(F()));
}

/// out[i] = f(vectors of the inputs at i) for i < n; the last, partial vector goes through a buffer.
template <typename Function, typename... In>
HWY_INLINE void map(int64_t n, float* out, Function f, const In*... in) {
  const F d;
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) hn::StoreU(f(hn::LoadU(d, in + i)...), d, out + i);
  if (i == n) return;
  const auto load_rest = [&](const float* from) {
    HWY_ALIGN float rest[hn::MaxLanes(d)] = {};
    for (int64_t j = 0; j < n - i; ++j) rest[j] = from[i + j];
    return hn::Load(d, rest);
  };
  HWY_ALIGN float rest[hn::MaxLanes(d)];
  hn::Store(f(load_rest(in)...), d, rest);
  for (int64_t j = 0; j < n - i; ++j) out[i + j] = rest[j];
}

/// The sum of f(x) for n values in fp64; f takes and returns a vector of doubles.
template <typename Function>
HWY_INLINE double sum_of(int64_t n, const float* x, Function f) {
  const D d;
  const H h;
  const auto half = static_cast<int64_t>(hn::Lanes(h));
  Doubles a = hn::Zero(d), b = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * half <= n; i += 2 * half) {
    a = hn::Add(a, f(hn::PromoteTo(d, hn::LoadU(h, x + i))));
    b = hn::Add(b, f(hn::PromoteTo(d, hn::LoadU(h, x + i + half))));
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
  for (; i < n; ++i) sum += hn::GetLane(f(hn::Set(d, static_cast<double>(x[i]))));
  return sum;
}

void LayerNorm(const float* x, const float* scale, const float* shift, float eps, int64_t n, float* y) {
  const F f;
  const D d;
  const auto count = static_cast<double>(n);
  const double mean = sum_of(n, x, [](Doubles v) { return v; }) / count;
  const Doubles center = hn::Set(d, mean);
  const double squares = sum_of(n, x, [&](Doubles v) {
    const Doubles c = hn::Sub(v, center);
    return hn::Mul(c, c);
  });
  const double inverse = 1 / std::sqrt(squares / count + static_cast<double>(eps));
  // x - mean in two parts, so that a mean far from zero costs no digits.
  const auto high = static_cast<float>(mean);
  const Floats vh = hn::Set(f, high), vl = hn::Set(f, static_cast<float>(mean - static_cast<double>(high)));
  const Floats vi = hn::Set(f, static_cast<float>(inverse));
  map(
      n, y,
      [&](Floats v, Floats s, Floats t) {
        const Floats unit = hn::Mul(hn::Sub(hn::Sub(v, vh), vl), vi);
        return hn::MulAdd(unit, s, t);
      },
      x, scale, shift);
}

void RmsNorm(const float* x, const float* scale, float eps, int64_t n, float* y) {
  const double squares = sum_of(n, x, [](Doubles v) { return hn::Mul(v, v); });
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
  const Floats vi = hn::Set(F(), static_cast<float>(inverse));
  map(
      n, y, [&](Floats v, Floats s) { return hn::Mul(hn::Mul(v, vi), s); }, x, scale);
}

/// exp(x) for x <= 0; below -110 it is 0 in fp32.
HWY_INLINE Floats exp_negative(Floats x) {
  const F f;
  return hn::Exp(f, hn::Max(x, hn::Set(f, -110.0f)));
}

/// x * sigmoid(u), with the exponential of -|u| only: nothing overflows and small values keep their digits.
HWY_INLINE Floats times_sigmoid(Floats x, Floats u) {
  const F f;
  const Floats one = hn::Set(f, 1.0f), e = exp_negative(hn::Neg(hn::Abs(u)));
  const Floats top = hn::IfThenElse(hn::Lt(u, hn::Zero(f)), e, one);
  return hn::Div(hn::Mul(x, top), hn::Add(one, e));
}

/// x * erfc(-x / sqrt(2)) / 2. erfc(z) = exp(-z^2) t P(t) for t = 1 / (1 + z / 2), z >= 0: P is our own fit
/// for z < 10.6 (relative error 4e-9; evaluated in fp32 3e-7), where half of erfc falls below the fp32 range.
HWY_INLINE Floats gelu(Floats x) {
  const F f;
  constexpr float kFit[] = {0.03649246320128441f, -0.19533051550388336f,  0.39257487654685974f,
                            -0.306264728307724f,  -0.006110729184001684f, 0.025418560951948166f,
                            0.05909133329987526f, 0.18442302942276f,      0.2453843057155609f,
                            0.28223204612731934f, 0.28208938241004944f};
  const Floats one = hn::Set(f, 1.0f), half = hn::Set(f, 0.5f);
  const Floats z = hn::Mul(hn::Abs(x), hn::Set(f, 0.70710678118654752f));
  const Floats t = hn::Div(one, hn::MulAdd(half, z, one));
  Floats p = hn::Set(f, kFit[0]);
  for (size_t i = 1; i < std::size(kFit); ++i) p = hn::MulAdd(p, t, hn::Set(f, kFit[i]));
  const Floats tail = hn::Mul(hn::Mul(half, exp_negative(hn::Neg(hn::Mul(z, z)))), hn::Mul(t, p));
  return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(f)), tail, hn::Sub(one, tail)));
}

void Activate(Activation kind, int64_t n, float* x) {
  const F f;
  switch (kind) {
    case Activation::silu:
      return map(
          n, x, [](Floats v) { return times_sigmoid(v, v); }, x);
    case Activation::quick_gelu:
      return map(
          n, x, [&](Floats v) { return times_sigmoid(v, hn::Mul(v, hn::Set(f, 1.702f))); }, x);
    case Activation::gelu_tanh:
      // (1 + tanh(u)) / 2 = sigmoid(2 u)
      return map(
          n, x,
          [&](Floats v) {
            const Floats cubic = hn::MulAdd(hn::Mul(hn::Mul(v, v), v), hn::Set(f, 0.044715f), v);
            return times_sigmoid(v, hn::Mul(cubic, hn::Set(f, 1.5957691216057308f)));  // 2 sqrt(2 / pi)
          },
          x);
    case Activation::gelu:
      return map(
          n, x, [](Floats v) { return gelu(v); }, x);
    case Activation::relu:
      return map(
          n, x, [&](Floats v) { return hn::Max(v, hn::Zero(f)); }, x);
  }
}

void Multiply(const float* a, const float* b, int64_t n, float* y) {
  map(
      n, y, [](Floats u, Floats v) { return hn::Mul(u, v); }, a, b);
}

void AddTo(const float* x, int64_t n, float* y) {
  map(
      n, y, [](Floats u, Floats v) { return hn::Add(u, v); }, x, y);
}

void Rotate(const float* c, const float* s, int64_t n, float* a, float* b) {
  const F f;
  const int64_t whole = n / lanes() * lanes();
  for (int64_t i = 0; i < whole; i += lanes()) {
    const Floats va = hn::LoadU(f, a + i), vb = hn::LoadU(f, b + i);
    const Floats vc = hn::LoadU(f, c + i), vs = hn::LoadU(f, s + i);
    hn::StoreU(hn::Sub(hn::Mul(va, vc), hn::Mul(vb, vs)), f, a + i);
    hn::StoreU(hn::Add(hn::Mul(vb, vc), hn::Mul(va, vs)), f, b + i);
  }
  for (int64_t i = whole; i < n; ++i) {
    const float va = a[i], vb = b[i];
    a[i] = va * c[i] - vb * s[i];
    b[i] = vb * c[i] + va * s[i];
  }
}

void Scale(float factor, int64_t n, float* x) {
  const Floats v = hn::Set(F(), factor);
  map(
      n, x, [&](Floats u) { return hn::Mul(u, v); }, x);
}

float Max(const float* x, int64_t n) {
  const F f;
  Floats top = hn::Set(f, x[0]);
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) top = hn::Max(top, hn::LoadU(f, x + i));
  float peak = hn::GetLane(hn::MaxOfLanes(f, top));
  for (; i < n; ++i) peak = std::fmax(peak, x[i]);
  return peak;
}

double Softmax(float scale, int64_t n, float* x) {
  const F f;
  const Floats vs = hn::Set(f, scale);
  map(
      n, x, [&](Floats v) { return hn::Mul(v, vs); }, x);
  const Floats peak = hn::Set(f, Max(x, n));
  map(
      n, x, [&](Floats v) { return exp_negative(hn::Sub(v, peak)); }, x);
  return sum_of(n, x, [](Doubles v) { return v; });
}

void DotRows(const float* q, ConstMatrix k, float* out) {
  const F f;
  const int64_t n = k.cols;
  for (int64_t j = 0; j < k.rows; ++j) {
    const float* row = k.row(j);
    Floats s0 = hn::Zero(f), s1 = hn::Zero(f);
    int64_t i = 0;
    for (; i + 2 * lanes() <= n; i += 2 * lanes()) {
      s0 = hn::MulAdd(hn::LoadU(f, q + i), hn::LoadU(f, row + i), s0);
      s1 = hn::MulAdd(hn::LoadU(f, q + i + lanes()), hn::LoadU(f, row + i + lanes()), s1);
    }
    float sum = hn::GetLane(hn::SumOfLanes(f, hn::Add(s0, s1)));
    for (; i < n; ++i) sum += q[i] * row[i];
    out[j] = sum;
  }
}

/// Columns [c, c + kVectors * Lanes) of the weighted sum; all sums stay in registers.
template <int kVectors>
HWY_INLINE void weighted_columns(const float* weights, ConstMatrix v, int64_t c, float* out) {
  const F f;
  Floats sum[kVectors];
  for (int u = 0; u < kVectors; ++u) sum[u] = hn::Zero(f);
  for (int64_t j = 0; j < v.rows; ++j) {
    const Floats weight = hn::Set(f, weights[j]);
    for (int u = 0; u < kVectors; ++u) {
      sum[u] = hn::MulAdd(weight, hn::LoadU(f, v.row(j) + c + u * lanes()), sum[u]);
    }
  }
  for (int u = 0; u < kVectors; ++u) {
    float* place = out + c + u * lanes();
    hn::StoreU(hn::Add(hn::LoadU(f, place), sum[u]), f, place);
  }
}

void AddWeighted(const float* weights, ConstMatrix v, float* out) {
  constexpr int kVectors = 4;
  int64_t c = 0;
  for (; c + kVectors * lanes() <= v.cols; c += kVectors * lanes())
    weighted_columns<kVectors>(weights, v, c, out);
  for (; c + lanes() <= v.cols; c += lanes()) weighted_columns<1>(weights, v, c, out);
  for (; c < v.cols; ++c) {
    float sum = 0;
    for (int64_t j = 0; j < v.rows; ++j) sum += weights[j] * v.row(j)[c];
    out[c] += sum;
  }
}

double ExpSum(const float* x, double peak, int64_t n) {
  const D d;
  const Doubles vp = hn::Set(d, peak);
  return sum_of(n, x, [&](Doubles v) { return hn::Exp(d, hn::Sub(v, vp)); });
}

DivergenceSums Divergence(const float* p, double p_peak, const float* q, double q_peak, int64_t n) {
  const D d;
  const H h;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  const Doubles vp = hn::Set(d, p_peak), vq = hn::Set(d, q_peak);
  Doubles sp = hn::Zero(d), sq = hn::Zero(d), sw = hn::Zero(d);
  const auto add = [&](Doubles a, Doubles b) {
    const Doubles ea = hn::Exp(d, hn::Sub(a, vp));
    sp = hn::Add(sp, ea);
    sq = hn::Add(sq, hn::Exp(d, hn::Sub(b, vq)));
    sw = hn::Add(sw, hn::IfThenElseZero(hn::Gt(ea, hn::Zero(d)), hn::Mul(ea, hn::Sub(a, b))));
  };
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    add(hn::PromoteTo(d, hn::LoadU(h, p + i)), hn::PromoteTo(d, hn::LoadU(h, q + i)));
  }
  if (i < n) {
    // The rest is filled up with -infinity, which adds nothing to any sum.
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    HWY_ALIGN float rest_p[hn::MaxLanes(h)], rest_q[hn::MaxLanes(h)];
    for (int64_t j = 0; j < step; ++j) {
      rest_p[j] = i + j < n ? p[i + j] : kNothing;
      rest_q[j] = i + j < n ? q[i + j] : kNothing;
    }
    add(hn::PromoteTo(d, hn::Load(h, rest_p)), hn::PromoteTo(d, hn::Load(h, rest_q)));
  }
  return {hn::GetLane(hn::SumOfLanes(d, sp)), hn::GetLane(hn::SumOfLanes(d, sq)),
          hn::GetLane(hn::SumOfLanes(d, sw))};
}

const char* Target() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace nibble::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::kernels {

HWY_EXPORT(LayerNorm);
HWY_EXPORT(RmsNorm);
HWY_EXPORT(Activate);
HWY_EXPORT(Multiply);
HWY_EXPORT(AddTo);
HWY_EXPORT(Rotate);
HWY_EXPORT(Softmax);
HWY_EXPORT(Scale);
HWY_EXPORT(DotRows);
HWY_EXPORT(AddWeighted);
HWY_EXPORT(Max);
HWY_EXPORT(ExpSum);
HWY_EXPORT(Divergence);
HWY_EXPORT(Target);

void layer_norm_row(const float* x, const float* scale, const float* shift, float eps, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(LayerNorm)(x, scale, shift, eps, n, y);
}

void rms_norm_row(const float* x, const float* scale, float eps, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x, scale, eps, n, y);
}

void activate_row(Activation f, int64_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(Activate)(f, n, x);
}

void multiply_row(const float* a, const float* b, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(Multiply)(a, b, n, y);
}

void add_row(const float* x, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(AddTo)(x, n, y);
}

void rotate_row(const float* c, const float* s, int64_t n, float* a, float* b) {
  HWY_DYNAMIC_DISPATCH(Rotate)(c, s, n, a, b);
}

double softmax_row(float scale, int64_t n, float* x) {
  return HWY_DYNAMIC_DISPATCH(Softmax)(scale, n, x);
}

void scale_row(float factor, int64_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(Scale)(factor, n, x);
}

void dot_rows(const float* q, ConstMatrix k, float* out) {
  HWY_DYNAMIC_DISPATCH(DotRows)(q, k, out);
}

void add_weighted_rows(const float* weights, ConstMatrix v, float* out) {
  HWY_DYNAMIC_DISPATCH(AddWeighted)(weights, v, out);
}

float max_of_row(const float* x, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(Max)(x, n);
}

double exp_sum_of_row(const float* x, double peak, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(ExpSum)(x, peak, n);
}

DivergenceSums divergence_sums(const float* p, double p_peak, const float* q, double q_peak, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(Divergence)(p, p_peak, q, q_peak, n);
}

const char* row_target() {
  return HWY_DYNAMIC_DISPATCH(Target)();
}

}  // namespace nibble::kernels
#endif
