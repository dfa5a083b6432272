// The plain oracle of every operation in kernels/ops.h and kernels/rounding.h: same names, same contracts,
// straight loops on one thread, sums in fp64. Tests hold the fast operations against it; nothing else may
// call it.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"
#include "kernels/rounding.h"
#include "tensor/tensor.h"

namespace nibble::kernels::ref {

/// As kernels::linear with the weight (out, in) as a plain matrix. Compute::bf16 rounds x and the weight to
/// bf16 first; sums are in fp64 either way.
void linear(ConstMatrix x, ConstMatrix weight, std::span<const float> bias, Compute compute, MutableMatrix y);

/// As kernels::linear_int8; the sum over outlier columns is in fp64.
void linear_int8(ConstMatrix x, const quant::Packed8& weight, std::span<const float> bias, float threshold,
                 MutableMatrix y);

void add_gram(ConstMatrix x, MutableMatrix gram);
void add_cross(ConstMatrix a, ConstMatrix b, MutableMatrix out);
double gram_norm(ConstMatrix d, ConstMatrix gram);
void layer_norm(ConstMatrix x, std::span<const float> scale, std::span<const float> shift, float eps,
                MutableMatrix y);
void rms_norm(ConstMatrix x, std::span<const float> scale, float eps, MutableMatrix y);
void activate(Activation f, MutableMatrix x);
void multiply(ConstMatrix a, ConstMatrix b, MutableMatrix y);
void add(ConstMatrix x, MutableMatrix y);
void rope(MutableMatrix x, int64_t heads, ConstMatrix cosine, ConstMatrix sine);
void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, int64_t heads, int64_t kv_heads, bool causal,
               float scale, MutableMatrix out);
void gather_rows(const TensorView& table, std::span<const int64_t> ids, MutableMatrix out);
int64_t argmax(std::span<const float> logits);
double log_probability(std::span<const float> logits, int64_t id);
double kl_divergence(std::span<const float> p, std::span<const float> q);

/// As kernels::round4 with H factored as a whole and all sums in fp64, for finite grams.
quant::Packed4 round4(const TensorView& weight, ConstMatrix gram, const RoundingOptions& options,
                      const Drift& drift = {});

}  // namespace nibble::kernels::ref
