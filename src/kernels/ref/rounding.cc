#include "kernels/rounding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "quant/ref.h"

namespace nibble::kernels::ref {
namespace {

using quant::kBlock;

/// Row-major (n, n) in fp64.
using Square = std::vector<double>;

/// H = U D U' by its definition; false where a pivot is not above 1e-6 of the diagonal.
bool factor(const Square& h, int64_t n, Square& u, std::vector<double>& d) {
  u.assign(h.size(), 0);
  d.assign(static_cast<size_t>(n), 0);
  for (int64_t k = n - 1; k >= 0; --k) {
    for (int64_t i = 0; i <= k; ++i) {
      double sum = h[i * n + k];
      for (int64_t m = k + 1; m < n; ++m) sum -= u[i * n + m] * d[m] * u[k * n + m];
      u[i * n + k] = sum;
    }
    d[k] = u[k * n + k];
    if (!(d[k] > 1e-6 * h[k * n + k])) return false;
    for (int64_t i = 0; i <= k; ++i) u[i * n + k] /= d[k];
  }
  return true;
}

/// One weight, rounded group by group (a group: as few rows as hold whole blocks), block by block.
class Rounder {
 public:
  Rounder(const TensorView& weight, ConstMatrix gram, const RoundingOptions& options, const Drift& drift)
      : in_(weight.shape[1]),
        dtype_(weight.dtype),
        options_(options),
        weight_(to_float(weight)),
        source_(weight_) {
    error_.assign(weight_.size(), 0);
    level_.assign(weight_.size(), 0);
    for (double damping = options.damping; damping < 1e9; damping = damping == 0 ? 1e-4 : damping * 10) {
      make_hessian(gram, damping);
      if (!factor(hessian_, in_, u_, d_)) continue;
      if (!drift.empty()) add_drift(drift);
      return;
    }
    make_hessian(Matrix::zeros(in_, in_).view(), 0);
    factor(hessian_, in_, u_, d_);
  }

  /// All blocks, with any absmax or with those that `nested` can hold; returns the absmax values.
  std::vector<float> round(quant::NestedAbsmax* nested) {
    std::vector<float> chosen;
    for (int64_t begin = 0; begin < count(); begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, count()), block = begin / kBlock;
      float target = 0, weight = 0;
      for (int64_t p = begin; p < end; ++p) {
        target = std::max(target, static_cast<float>(std::fabs(fed_forward(p, begin))));
        weight = std::max(weight, std::fabs(source_[p]));
      }
      double least = std::numeric_limits<double>::infinity();
      float best = 0;
      for (float scale : scale_grid(target, weight)) {
        scale = std::min(scale, largest());
        const int code = nested ? nearest(*nested, block, scale) : 0;
        if (nested) scale = value(*nested, block, code);
        const double cost = code_block(begin, end, scale);
        if (!(cost < least)) continue;
        least = cost;
        best = scale;
        if (nested) nested->q[block] = static_cast<uint8_t>(code);
      }
      code_block(begin, end, best);
      chosen.push_back(best);
    }
    return chosen;
  }

  /// Codes to their nearest optimum, then the absmax, then codes again; block by block.
  void descend(quant::NestedAbsmax& nested) {
    for (int64_t begin = 0; begin < count(); begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, count()), block = begin / kBlock;
      descend_codes(begin, end, value(nested, block, nested.q[block]));
      descend_scale(begin, end, nested);
      descend_codes(begin, end, value(nested, block, nested.q[block]));
    }
  }

  void store(std::vector<uint8_t>& codes) const {
    for (int64_t p = 0; p < count(); ++p) {
      const auto code = quant::ref::code_of(level_[p], quant::Format::nf4);
      uint8_t& byte = codes[p / 2];
      byte = static_cast<uint8_t>(p % 2 == 0 ? code << 4 | 7 : (byte & 0xf0) | code);
    }
  }

 private:
  int64_t count() const { return std::ssize(weight_); }

  /// Each row w becomes w + z with z U D U' = w K + its row of L.
  void add_drift(const Drift& drift) {
    for (int64_t row = 0; row < count(); row += in_) {
      std::vector<double> z(static_cast<size_t>(in_), 0);
      for (int64_t i = 0; i < in_; ++i) {
        for (int64_t j = 0; j < drift.input.rows; ++j)
          z[i] += double{weight_[row + j]} * drift.input.row(j)[i];
        if (drift.stream.rows > 0) z[i] += drift.stream.row(row / in_)[i];
      }
      for (int64_t k = in_ - 1; k >= 0; --k)
        for (int64_t j = k + 1; j < in_; ++j) z[k] -= u_[k * in_ + j] * z[j];
      for (int64_t k = 0; k < in_; ++k) z[k] /= d_[k];
      for (int64_t k = 0; k < in_; ++k)
        for (int64_t j = 0; j < k; ++j) z[k] -= u_[j * in_ + k] * z[j];
      for (int64_t k = 0; k < in_; ++k) weight_[row + k] += static_cast<float>(z[k]);
    }
  }

  void make_hessian(ConstMatrix gram, double damping) {
    const std::vector<float> diagonal = damped_diagonal(gram, damping);
    hessian_.resize(static_cast<size_t>(in_ * in_));
    for (int64_t i = 0; i < in_; ++i)
      for (int64_t j = 0; j < in_; ++j)
        hessian_[i * in_ + j] = i == j ? diagonal[i] : is_diagonal(gram) ? 0 : gram.row(i)[j];
  }

  float largest() const {
    if (dtype_ == DType::f16) return 65504.0f;
    return dtype_ == DType::bf16 ? bf16_to_float(0x7f7f) : std::numeric_limits<float>::max();
  }

  static float value(const quant::NestedAbsmax& nested, int64_t block, int code) {
    const float product = nested.map[code] * nested.absmax[block / nested.nested_block];
    return product + nested.offset;
  }

  int nearest(const quant::NestedAbsmax& nested, int64_t block, float wanted) const {
    int low = 0, high = 255;
    while (low < 255 && !(value(nested, block, low) > 0)) ++low;
    while (high > low && value(nested, block, high) > largest()) --high;
    const float y = (wanted - nested.offset) / nested.absmax[block / nested.nested_block];
    return std::clamp<int>(quant::ref::dynamic_index(y), low, high);
  }

  /// What a reader decodes.
  double decoded(float level, float scale) const {
    const float product = level * scale;
    if (dtype_ == DType::bf16) return bf16_to_float(float_to_bf16(product));
    return dtype_ == DType::f16 ? f16_to_float(float_to_f16(product)) : product;
  }

  float nearest_level(double wanted, float scale) const {
    const float y = scale > 1e-37f ? static_cast<float>(wanted) * (1.0f / scale) : 0.0f;
    return quant::code_values(quant::Format::nf4)[quant::ref::code_of(y, quant::Format::nf4)];
  }

  /// The weight with the feedback of the columns of its row that lie before position `end`.
  double fed_forward(int64_t p, int64_t end) const {
    double t = weight_[p];
    if (options_.kind != Rounding::feedback) return t;
    for (int64_t j = p / in_ * in_; j < std::min(p, end); ++j) t += error_[j] * u_[j % in_ * in_ + p % in_];
    return t;
  }

  /// Codes positions [begin, end) and returns what they add to the objective: with feedback given what lies
  /// before, else by themselves.
  double code_block(int64_t begin, int64_t end, float scale) {
    double cost = 0;
    for (int64_t p = begin; p < end; ++p) {
      const double t = fed_forward(p, p);
      level_[p] = nearest_level(t, scale);
      const double q = decoded(level_[p], scale);
      error_[p] = weight_[p] - q;
      if (options_.kind == Rounding::feedback) {
        cost += d_[p % in_] * (t - q) * (t - q);
        continue;
      }
      const int64_t first = std::max(begin, p / in_ * in_);
      double g = 0;
      for (int64_t j = first; j < p; ++j) g += hessian_[p % in_ * in_ + j % in_] * error_[j];
      cost += error_[p] * (hessian_[p % in_ * in_ + p % in_] * error_[p] + 2 * g);
    }
    return cost;
  }

  /// (H e)_p over the row of p.
  double slope(int64_t p) const {
    const int64_t row = p / in_ * in_;
    double g = 0;
    for (int64_t j = 0; j < in_; ++j) g += hessian_[p % in_ * in_ + j] * error_[row + j];
    return g;
  }

  void descend_codes(int64_t begin, int64_t end, float scale) {
    for (int64_t p = begin; p < end; ++p) {
      const double h = hessian_[p % in_ * in_ + p % in_], g = slope(p), q = decoded(level_[p], scale);
      const float level = nearest_level(q + g / h, scale);
      const double change = q - decoded(level, scale);
      if (!(2 * g * change + 1.001 * h * change * change < 0)) continue;
      level_[p] = level;
      error_[p] += change;
    }
  }

  void descend_scale(int64_t begin, int64_t end, quant::NestedAbsmax& nested) {
    const int64_t block = begin / kBlock;
    const float scale = value(nested, block, nested.q[block]);
    double dot = 0, curve = 0, first = 0, second = 0;
    const auto inside = [&](int64_t p, const auto& x) {
      double sum = 0;
      for (int64_t j = std::max(begin, p / in_ * in_); j < std::min(end, (p / in_ + 1) * in_); ++j)
        sum += hessian_[p % in_ * in_ + j % in_] * x(j);
      return sum;
    };
    for (int64_t p = begin; p < end; ++p) {
      dot += level_[p] * slope(p);
      curve += level_[p] * inside(p, [&](int64_t j) { return double{level_[j]}; });
    }
    const float wanted = scale + (curve > 0 ? static_cast<float>(dot / curve) : 0.0f);
    const int code = nearest(nested, block, wanted);
    const float next = value(nested, block, code);
    const auto change = [&](int64_t j) { return decoded(level_[j], scale) - decoded(level_[j], next); };
    for (int64_t p = begin; p < end; ++p) {
      first += change(p) * slope(p);
      second += change(p) * inside(p, change);
    }
    if (!(2 * first + 1.001 * second < 0)) return;
    for (int64_t p = begin; p < end; ++p) error_[p] += change(p);
    nested.q[block] = static_cast<uint8_t>(code);
  }

  int64_t in_;
  DType dtype_;
  RoundingOptions options_;
  std::vector<float> weight_, source_, level_;  // weight_: with what the drift adds
  std::vector<double> error_, d_;
  Square hessian_, u_;
};

}  // namespace

quant::Packed4 round4(const TensorView& weight, ConstMatrix gram, const RoundingOptions& options,
                      const Drift& drift) {
  quant::Packed4 packed = quant::ref::encode4(weight, quant::Format::nf4, true);
  if (options.kind == Rounding::plain || weight.count() == 0) return packed;
  RoundingOptions kind = options;
  if (is_diagonal(gram)) kind.kind = Rounding::search;
  Rounder rounder(weight, gram, kind, drift);
  const std::vector<float> absmax = rounder.round(nullptr);
  packed.nested = quant::ref::encode_absmax(absmax, short_offset(packed.nested->offset));
  rounder.round(&*packed.nested);
  if (kind.kind == Rounding::feedback)
    for (int sweep = 0; sweep < options.sweeps; ++sweep) rounder.descend(*packed.nested);
  rounder.store(packed.codes);
  return packed;
}

}  // namespace nibble::kernels::ref
