// Operations on one row of floats, in Highway, on the calling thread. Sums are in fp64 unless said otherwise.
#pragma once

#include <cstdint>

#include "kernels/ops.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

/// y = (x - mean) / sqrt(variance + eps) * scale + shift over n values; y may be x.
void layer_norm_row(const float* x, const float* scale, const float* shift, float eps, int64_t n, float* y);

/// y = x / sqrt(mean(x^2) + eps) * scale over n values; y may be x.
void rms_norm_row(const float* x, const float* scale, float eps, int64_t n, float* y);

/// x = f(x).
void activate_row(Activation f, int64_t n, float* x);

/// y = a * b; y may be a or b.
void multiply_row(const float* a, const float* b, int64_t n, float* y);

/// y += x.
void add_row(const float* x, int64_t n, float* y);

/// (a, b) = (a c - b s, b c + a s), element by element.
void rotate_row(const float* c, const float* s, int64_t n, float* a, float* b);

/// x = exp(scale * x - max(scale * x)); returns the sum of the results. n >= 1.
double softmax_row(float scale, int64_t n, float* x);

/// x *= factor.
void scale_row(float factor, int64_t n, float* x);

/// out[j] = q . k row j, in fp32; q and the rows of k have k.cols values, out k.rows.
void dot_rows(const float* q, ConstMatrix k, float* out);

/// out += the sum of weights[j] * v row j in ascending order of j, in fp32; out has v.cols values.
void add_weighted_rows(const float* weights, ConstMatrix v, float* out);

/// The largest of n >= 1 values.
float max_of_row(const float* x, int64_t n);

/// The sum of exp(x - peak), in fp64 throughout.
double exp_sum_of_row(const float* x, double peak, int64_t n);

/// The sums of exp(p - p_peak), of exp(q - q_peak) and of exp(p - p_peak) * (p - q), in fp64 throughout.
/// Where exp(p - p_peak) is 0, so is the last term.
struct DivergenceSums {
  double p = 0, q = 0, weighted = 0;
};
DivergenceSums divergence_sums(const float* p, double p_peak, const float* q, double q_peak, int64_t n);

/// The instruction set that Highway dispatches to ("AVX3", "SSE4", ...).
const char* row_target();

}  // namespace nibble::kernels
