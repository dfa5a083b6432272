#include "run/block.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace nibble::run {
namespace {

void tell(Observer* observer, const std::string& module, ConstMatrix y) {
  if (observer && !module.empty()) observer->output(module, y);
}

void tell_tap(Observer* observer, const std::vector<model::Linear>& readers, ConstMatrix x,
              const Batch& batch) {
  if (!observer) return;
  std::vector<const model::Linear*> pointers;
  for (const auto& reader : readers) pointers.push_back(&reader);
  observer->tap(pointers, x, batch.modality);
}

void tell_tap(Observer* observer, const model::Linear& reader, ConstMatrix x, const Batch& batch) {
  const model::Linear* pointer = &reader;
  if (observer) observer->tap({&pointer, 1}, x, batch.modality);
}

/// Queries, keys and values of the batch, from one fused linear (rows q, k, v) or from three.
struct Projections {
  std::vector<Matrix> owners;
  MutableMatrix q, k, v;
};

Projections project(const model::Stack& stack, const model::Block& block, ConstMatrix x, Weights& weights,
                    Observer* observer) {
  Projections out;
  for (const auto& l : block.qkv) out.owners.push_back(apply(l, x, weights, observer));
  if (out.owners.size() == 3) {
    out.q = out.owners[0].mut();
    out.k = out.owners[1].mut();
    out.v = out.owners[2].mut();
    return out;
  }
  NIBBLE_CHECK(out.owners.size() == 1);
  const int64_t q = stack.heads * stack.head_dim, kv = stack.kv_heads * stack.head_dim;
  const MutableMatrix fused = out.owners[0].mut();
  out.q = fused.col_range(0, q);
  out.k = fused.col_range(q, kv);
  out.v = fused.col_range(q + kv, kv);
  return out;
}

Matrix attend(const model::Stack& stack, int64_t index, const Projections& p, const Batch& batch) {
  Matrix out(p.q.rows, p.q.cols);
  const float scale = 1.0f / std::sqrt(static_cast<float>(stack.head_dim));
  const auto one = [&](int64_t i) {
    const Segment& s = batch.segments[static_cast<size_t>(i)];
    ConstMatrix k = ConstMatrix(p.k).row_range(s.begin, s.rows),
                v = ConstMatrix(p.v).row_range(s.begin, s.rows);
    if (s.cache) {
      LayerCache& cache = (*s.cache)[static_cast<size_t>(index)];
      cache.append(k, v);
      k = cache.keys();
      v = cache.values();
    }
    kernels::attention(ConstMatrix(p.q).row_range(s.begin, s.rows), k, v, stack.heads, stack.kv_heads,
                       stack.causal, scale, out.mut().row_range(s.begin, s.rows));
  };
  // Few segments are long: threads share each. Many are short: a thread takes each.
  const auto n = static_cast<int64_t>(batch.segments.size());
  if (n >= 4)
    parallel_for(n, one);
  else
    for (int64_t i = 0; i < n; ++i) one(i);
  return out;
}

Matrix mlp(const model::Stack& stack, const model::Block& block, ConstMatrix x, Weights& weights,
           Observer* observer) {
  Matrix inner = apply(block.mlp_in[0], x, weights, observer);
  kernels::activate(stack.activation, inner.mut());
  tell(observer, block.activation_name, inner.view());
  if (stack.gated) {
    const Matrix up = apply(block.mlp_in[1], x, weights, observer);
    kernels::multiply(inner.view(), up.view(), inner.mut());
  }
  return inner;
}

}  // namespace

void LayerCache::append(ConstMatrix k, ConstMatrix v) {
  NIBBLE_CHECK(k.rows == v.rows && k.cols == v.cols);
  const int64_t needed = rows_ + k.rows;
  if (needed > keys_.rows()) {
    const int64_t capacity = std::max(needed, keys_.rows() * 2);
    for (Matrix* m : {&keys_, &values_}) {
      Matrix larger(capacity, k.cols);
      std::copy_n(m->data(), rows_ * k.cols, larger.data());
      *m = std::move(larger);
    }
  }
  for (int64_t r = 0; r < k.rows; ++r) {
    std::copy_n(k.row(r), k.cols, keys_.row(rows_ + r));
    std::copy_n(v.row(r), v.cols, values_.row(rows_ + r));
  }
  rows_ = needed;
}

Matrix apply(const model::Linear& linear, ConstMatrix x, Weights& weights, Observer* observer) {
  Matrix y(x.rows, linear.out);
  const auto bias = linear.bias ? weights.vector(linear.name + ".bias") : std::span<const float>();
  kernels::linear(x, weights.linear(linear), bias, y.mut());
  tell(observer, linear.name, y.view());
  return y;
}

Matrix apply(const model::Norm& norm, ConstMatrix x, Weights& weights, Observer* observer) {
  Matrix y(x.rows, x.cols);
  const auto scale = weights.vector(norm.name + ".weight");
  if (norm.kind == model::Norm::Kind::rms)
    kernels::rms_norm(x, scale, norm.eps, y.mut());
  else
    kernels::layer_norm(x, scale, weights.vector(norm.name + ".bias"), norm.eps, y.mut());
  tell(observer, norm.name, y.view());
  return y;
}

void run_block(const model::Stack& stack, int64_t index, Batch& batch, Weights& weights, Observer* observer) {
  const model::Block& block = stack.blocks[static_cast<size_t>(index)];
  {
    const Matrix x = apply(block.attention_norm, batch.hidden.view(), weights, observer);
    tell_tap(observer, block.qkv, x.view(), batch);
    Projections p = project(stack, block, x.view(), weights, observer);
    kernels::rope(p.q, stack.heads, batch.cosine.view(), batch.sine.view());
    kernels::rope(p.k, stack.kv_heads, batch.cosine.view(), batch.sine.view());
    const Matrix attended = attend(stack, index, p, batch);
    tell_tap(observer, block.attention_out, attended.view(), batch);
    const Matrix y = apply(block.attention_out, attended.view(), weights, observer);
    tell(observer, block.attention_name, y.view());
    kernels::add(y.view(), batch.hidden.mut());
  }
  const Matrix x = apply(block.mlp_norm, batch.hidden.view(), weights, observer);
  tell_tap(observer, block.mlp_in, x.view(), batch);
  const Matrix inner = mlp(stack, block, x.view(), weights, observer);
  tell_tap(observer, block.mlp_out, inner.view(), batch);
  const Matrix y = apply(block.mlp_out, inner.view(), weights, observer);
  tell(observer, block.mlp_name, y.view());
  kernels::add(y.view(), batch.hidden.mut());
  tell(observer, block.name, batch.hidden.view());
}

}  // namespace nibble::run
