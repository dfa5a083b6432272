// The operations of a forward pass. One interface; `ref/` holds the plain oracle of each (namespace ref, same
// names), `cpu/` the fast ones (linears in Highway or on AMX tiles, other products in oneDNN, Highway for the
// rest). All activations are fp32, row-major. Functions are thread-safe, use nibble's threads inside, and
// give the same bits for any number of threads: work is cut by shape alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "quant/format.h"
#include "quant/int8.h"
#include "tensor/activation.h"
#include "tensor/tensor.h"

namespace nibble::kernels {

/// How matrix products are computed. f32: fp32 throughout, the reference. bf16: both factors rounded to bf16,
/// products summed in fp32.
enum class Compute { f32, bf16 };

/// True where the CPU multiplies bf16 natively (AMX-BF16, AVX512-BF16): several times as fast as f32.
bool fast_bf16();

/// The best instruction set in use for linear, for `--version`: "AMX-BF16", "AVX512-BF16", or Highway's name
/// ("AVX3", "AVX2", ...).
const char* instruction_set();

/// The weight (out, in) of a linear, laid out for products. Cheap to copy (shared, immutable).
class Weight {
 public:
  Weight() = default;
  /// From an f32, bf16 or f16 matrix (out, in); the bytes are repacked. Held in 2 bytes per element if
  /// `compute` is bf16 or the matrix is, else in 4.
  /// `done` (may be empty) is told, on the calling thread, the rows that have been packed and are not read
  /// again: all rows in order, some MiB at a time.
  static Weight pack(const TensorView& weight, Compute compute,
                     const std::function<void(const TensorView& rows)>& done = {});
  /// From 4-bit codes (out, in), which are held as they are, with their absmax values decoded to fp32; linear
  /// decodes what it multiplies. Products have the bits of those with the packed decode4(packed).
  static Weight pack(const quant::Packed4& packed, Compute compute);

  int64_t out() const;
  int64_t in() const;
  /// Bytes that this weight holds in memory.
  int64_t bytes() const;
  explicit operator bool() const { return impl_ != nullptr; }

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

/// y (rows, out) = x (rows, in) * weight' (in, out) + bias (out; empty for none), the bias added in fp32. A
/// row of y has the same bits whatever other rows are computed with it.
void linear(ConstMatrix x, const Weight& weight, std::span<const float> bias, MutableMatrix y);

/// The weight (out, in) of a linear in 8-bit codes, laid out for integer products. Cheap to copy (shared,
/// immutable).
class Int8Weight {
 public:
  Int8Weight() = default;
  /// One byte per element is kept. Error when `in` is above 2^17, where sums of products might not fit in
  /// int32.
  static Int8Weight pack(const quant::Packed8& weight);

  int64_t out() const;
  int64_t in() const;
  /// Bytes that this weight holds in memory.
  int64_t bytes() const;
  explicit operator bool() const { return impl_ != nullptr; }

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

/// LLM.int8 (arXiv:2208.07339) as bitsandbytes computes it on a CPU in a model loaded as float32. All rows of
/// x belong together (one call of the reference: one sequence), because an outlier in one row counts for all:
///   half    = x rounded to fp16; an element is an outlier where |half| >= threshold (itself rounded to fp16;
///   0:
///             there are none); a column with an outlier in any row is an outlier column;
///   s_r     = the largest |half| of row r, outliers left out, columns of outliers not;
///   code    = half * (1 / s_r * 127), as quant::encode8 rounds; 0 in outlier columns;
///   y(r, o) = int32 sum of codes * weight codes, as fp32, * (s_r * scb_o) * 6.200124e-05, + bias(o), each
///   step
///             rounded to fp32;
///   y(r, o) += the fp32 sum over outlier columns of x (not rounded) * decoded weight (quant::decode8 to
///   f32).
/// Without outliers this is exact, bit for bit; the last sum has the order of the columns, the reference's is
/// that of its BLAS. A NaN makes its row NaN. Models loaded as bfloat16 or float16 round y, bias and the
/// factors of the last sum to their type in the reference; nibble does not, whatever the Compute of the other
/// linears. y must not overlap x.
void linear_int8(ConstMatrix x, const Int8Weight& weight, std::span<const float> bias, float threshold,
                 MutableMatrix y);

/// gram (n, n) += x' (n, rows) * x (rows, n), in fp32 with a fixed reduction order. The result is symmetric.
/// Where memory is short, a Gram matrix is its diagonal alone, as one row (1, n): here, in gram_norm and in
/// round4.
void add_gram(ConstMatrix x, MutableMatrix gram);

/// Whether a Gram matrix is given as its diagonal alone.
inline bool is_diagonal(ConstMatrix gram) {
  return gram.rows == 1 && gram.cols > 1;
}
/// Its diagonal element i.
inline float on_diagonal(ConstMatrix gram, int64_t i) {
  return gram.row(is_diagonal(gram) ? 0 : i)[i];
}

/// out (n, m) += a' (n, rows) * b (rows, m), in fp32 with a fixed reduction order.
void add_cross(ConstMatrix a, ConstMatrix b, MutableMatrix out);

/// trace(d * gram * d') for d (out, in), gram (in, in): the squared Frobenius norm of x*d' over all x in the
/// gram; of a diagonal alone, what that would be if columns of x were orthogonal.
double gram_norm(ConstMatrix d, ConstMatrix gram);

/// y = (x - mean) / sqrt(variance + eps) * scale + shift, over each row. y may be x.
void layer_norm(ConstMatrix x, std::span<const float> scale, std::span<const float> shift, float eps,
                MutableMatrix y);

/// y = x / sqrt(mean(x^2) + eps) * scale, over each row. y may be x.
void rms_norm(ConstMatrix x, std::span<const float> scale, float eps, MutableMatrix y);

using nibble::Activation;

/// x = f(x), in place.
void activate(Activation f, MutableMatrix x);

/// y = a * b, element by element; y may be a or b.
void multiply(ConstMatrix a, ConstMatrix b, MutableMatrix y);

/// y += x.
void add(ConstMatrix x, MutableMatrix y);

/// Rotary embedding in place, "rotate half" form, on each of `heads` heads of x (rows, heads * head_dim): the
/// first 2 * half dims of a head are pairs (j, j + half), half = cosine.cols; cosine, sine (rows, half):
///   x_j' = x_j cos_j - x_{j+half} sin_j,   x_{j+half}' = x_{j+half} cos_j + x_j sin_j.
/// Dims of a head past 2 * half are left as they are.
void rope(MutableMatrix x, int64_t heads, ConstMatrix cosine, ConstMatrix sine);

/// Softmax attention with grouped queries. q (n, heads * d), k and v (m, kv_heads * d), out (n, heads * d);
/// head h reads kv head h / (heads / kv_heads). causal: query i sees keys 0 .. m - n + i (n <= m).
/// Rows may be strided views (a fused qkv). out must not overlap the inputs.
void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, int64_t heads, int64_t kv_heads, bool causal,
               float scale, MutableMatrix out);

/// out row i = table row ids[i] as fp32. table: (rows, cols) f32, bf16 or f16. Ids must be in range (CHECK).
void gather_rows(const TensorView& table, std::span<const int64_t> ids, MutableMatrix out);

/// The index of the largest value; the first of equals. Unspecified, but in range, with a NaN among them.
int64_t argmax(std::span<const float> logits);

/// Natural logarithm of softmax(logits)[id], computed in fp64 from fp32 logits.
double log_probability(std::span<const float> logits, int64_t id);

/// KL(softmax(p) || softmax(q)) in nats, computed in fp64 from fp32 logits, never below 0.
double kl_divergence(std::span<const float> p, std::span<const float> q);

}  // namespace nibble::kernels
