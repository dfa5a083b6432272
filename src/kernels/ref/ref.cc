#include "kernels/ref/ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace nibble::kernels::ref {
namespace {

float rounded(float value, Compute compute) {
  return compute == Compute::bf16 ? bf16_to_float(float_to_bf16(value)) : value;
}

double activation(Activation f, double x) {
  switch (f) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::gelu_tanh:
      // x * (1 + tanh(u)) / 2 without the cancellation of 1 + tanh(u) for negative u
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::relu:
      return std::max(x, 0.0);
  }
  return x;
}

double log_sum_exp(std::span<const float> logits) {
  const double peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(v - peak);
  return peak + std::log(sum);
}

}  // namespace

void linear(ConstMatrix x, ConstMatrix weight, std::span<const float> bias, Compute compute,
            MutableMatrix y) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        sum += static_cast<double>(rounded(x.row(r)[i], compute)) * rounded(weight.row(o)[i], compute);
      }
      y.row(r)[o] = static_cast<float>(bias.empty() ? sum : sum + bias[o]);
    }
  }
}

void add_gram(ConstMatrix x, MutableMatrix gram) {
  for (int64_t i = 0; i < x.cols; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) {
      if (is_diagonal(gram) && i != j) continue;
      float& element = gram.row(is_diagonal(gram) ? 0 : i)[j];
      double sum = element;
      for (int64_t r = 0; r < x.rows; ++r) sum += static_cast<double>(x.row(r)[i]) * x.row(r)[j];
      element = static_cast<float>(sum);
    }
  }
}

void add_cross(ConstMatrix a, ConstMatrix b, MutableMatrix out) {
  for (int64_t i = 0; i < a.cols; ++i) {
    for (int64_t j = 0; j < b.cols; ++j) {
      double sum = out.row(i)[j];
      for (int64_t r = 0; r < a.rows; ++r) sum += static_cast<double>(a.row(r)[i]) * b.row(r)[j];
      out.row(i)[j] = static_cast<float>(sum);
    }
  }
}

double gram_norm(ConstMatrix d, ConstMatrix gram) {
  double sum = 0;
  for (int64_t o = 0; o < d.rows; ++o) {
    for (int64_t i = 0; i < d.cols; ++i) {
      double product = 0;
      for (int64_t j = 0; j < d.cols; ++j)
        if (!is_diagonal(gram) || i == j)
          product += static_cast<double>(gram.row(is_diagonal(gram) ? 0 : i)[j]) * d.row(o)[j];
      sum += d.row(o)[i] * product;
    }
  }
  return std::max(sum, 0.0);
}

void layer_norm(ConstMatrix x, std::span<const float> scale, std::span<const float> shift, float eps,
                MutableMatrix y) {
  for (int64_t r = 0; r < x.rows; ++r) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < x.cols; ++i) mean += x.row(r)[i];
    mean /= static_cast<double>(x.cols);
    for (int64_t i = 0; i < x.cols; ++i) variance += (x.row(r)[i] - mean) * (x.row(r)[i] - mean);
    variance /= static_cast<double>(x.cols);
    for (int64_t i = 0; i < x.cols; ++i) {
      const double unit = (x.row(r)[i] - mean) / std::sqrt(variance + eps);
      y.row(r)[i] = static_cast<float>(unit * scale[i] + shift[i]);
    }
  }
}

void rms_norm(ConstMatrix x, std::span<const float> scale, float eps, MutableMatrix y) {
  for (int64_t r = 0; r < x.rows; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < x.cols; ++i) sum += static_cast<double>(x.row(r)[i]) * x.row(r)[i];
    const double root = std::sqrt(sum / static_cast<double>(x.cols) + eps);
    for (int64_t i = 0; i < x.cols; ++i) y.row(r)[i] = static_cast<float>(x.row(r)[i] / root * scale[i]);
  }
}

void activate(Activation f, MutableMatrix x) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < x.cols; ++i) x.row(r)[i] = static_cast<float>(activation(f, x.row(r)[i]));
  }
}

void multiply(ConstMatrix a, ConstMatrix b, MutableMatrix y) {
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t i = 0; i < a.cols; ++i) y.row(r)[i] = a.row(r)[i] * b.row(r)[i];
  }
}

void add(ConstMatrix x, MutableMatrix y) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < x.cols; ++i) y.row(r)[i] += x.row(r)[i];
  }
}

void rope(MutableMatrix x, int64_t heads, ConstMatrix cosine, ConstMatrix sine) {
  const int64_t head_dim = x.cols / heads, half = cosine.cols;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x.row(r) + h * head_dim;
      for (int64_t j = 0; j < half; ++j) {
        const double a = head[j], b = head[j + half], c = cosine.row(r)[j], s = sine.row(r)[j];
        head[j] = static_cast<float>(a * c - b * s);
        head[j + half] = static_cast<float>(b * c + a * s);
      }
    }
  }
}

void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, int64_t heads, int64_t kv_heads, bool causal,
               float scale, MutableMatrix out) {
  const int64_t n = q.rows, m = k.rows, d = q.cols / heads;
  std::vector<double> p(static_cast<size_t>(m));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t kv = h / (heads / kv_heads) * d;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t seen = causal ? m - n + i + 1 : m;
      double peak = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t j = 0; j < seen; ++j) {
        p[j] = 0;
        for (int64_t c = 0; c < d; ++c) {
          p[j] += static_cast<double>(q.row(i)[h * d + c]) * k.row(j)[kv + c] * scale;
        }
        peak = std::max(peak, p[j]);
      }
      for (int64_t j = 0; j < seen; ++j) sum += p[j] = std::exp(p[j] - peak);
      for (int64_t c = 0; c < d; ++c) {
        double value = 0;
        for (int64_t j = 0; j < seen; ++j) value += p[j] / sum * v.row(j)[kv + c];
        out.row(i)[h * d + c] = static_cast<float>(value);
      }
    }
  }
}

void gather_rows(const TensorView& table, std::span<const int64_t> ids, MutableMatrix out) {
  const std::vector<float> all = to_float(table);
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t c = 0; c < out.cols; ++c) {
      out.row(static_cast<int64_t>(i))[c] = all[static_cast<size_t>(ids[i] * out.cols + c)];
    }
  }
}

int64_t argmax(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

double log_probability(std::span<const float> logits, int64_t id) {
  return logits[static_cast<size_t>(id)] - log_sum_exp(logits);
}

double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const double zp = log_sum_exp(p), zq = log_sum_exp(q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double probability = std::exp(p[i] - zp);
    if (probability > 0) sum += probability * ((p[i] - zp) - (q[i] - zq));
  }
  return std::max(sum, 0.0);
}

}  // namespace nibble::kernels::ref
