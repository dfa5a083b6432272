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

void tell_stream(Observer* observer, const std::string& gate, const Matrix& hidden) {
  if (observer && gate.empty()) observer->stream(hidden.view());
}

bool has_enough(const Observer* observer) {
  return observer && observer->enough();
}

/// The norm over the features of each head of x (rows, heads * head_dim), if there is one.
void norm_heads(const std::optional<model::Norm>& norm, Matrix& x, Weights& weights, Observer* observer) {
  if (!norm) return;
  const ConstMatrix heads{x.data(), x.rows() * x.cols() / norm->dim, norm->dim, norm->dim};
  const Matrix y = apply(*norm, heads, weights, observer);
  std::copy_n(y.data(), x.rows() * x.cols(), x.data());
}

/// Queries, keys and values; nothing where the observer has enough. Of a block of cross attention, keys and
/// values of the batch's new features only.
struct Projections {
  std::vector<Matrix> owners;
  MutableMatrix q, k, v;
};

Projections project(const model::Stack& stack, const model::Block& block, ConstMatrix x, const Batch& batch,
                    std::span<const Range> calls, Weights& weights, Observer* observer) {
  Projections out;
  const std::span<const model::Linear> readers = block.qkv;
  if (block.cross) {
    tell_tap(observer, readers.first(1), x, batch.modality);
    if (has_enough(observer)) return out;
    out.owners.push_back(apply(readers[0], x, calls, weights, observer));
    if (batch.cross) {
      const std::vector<Modality> modality(static_cast<size_t>(batch.cross->rows()), Modality::vision);
      tell_tap(observer, readers.subspan(1), batch.cross->view(), modality);
      if (has_enough(observer)) return out;
      std::vector<Range> cross_calls;
      for (const Segment& s : batch.segments)
        if (s.cross_rows > 0) cross_calls.push_back({s.cross_begin, s.cross_begin + s.cross_rows});
      for (const auto& l : readers.subspan(1))
        out.owners.push_back(apply(l, batch.cross->view(), cross_calls, weights, observer));
    } else {
      out.owners.resize(3);
    }
  } else {
    tell_tap(observer, readers, x, batch.modality);
    if (has_enough(observer)) return out;
    for (const auto& l : readers) out.owners.push_back(apply(l, x, calls, weights, observer));
  }
  if (out.owners.size() == 3) {
    norm_heads(block.q_norm, out.owners[0], weights, observer);
    norm_heads(block.k_norm, out.owners[1], weights, observer);
    out.q = out.owners[0].mut();
    out.k = out.owners[1].mut();
    out.v = out.owners[2].mut();
    return out;
  }
  NIBBLE_CHECK(out.owners.size() == 1 && !block.q_norm && !block.k_norm);
  const int64_t q = stack.heads * stack.head_dim, kv = stack.kv_heads * stack.head_dim;
  const MutableMatrix fused = out.owners[0].mut();
  out.q = fused.col_range(0, q);
  out.k = fused.col_range(q, kv);
  out.v = fused.col_range(q + kv, kv);
  return out;
}

/// The rows of some ranges: a view where they follow each other, else a copy in `buffer`.
ConstMatrix pick(ConstMatrix m, std::span<const Range> ranges, Matrix& buffer) {
  if (ranges.size() == 1) return m.row_range(ranges[0].begin, ranges[0].end - ranges[0].begin);
  int64_t rows = 0;
  for (const Range& r : ranges) rows += r.end - r.begin;
  buffer = Matrix(rows, m.cols);
  int64_t at = 0;
  for (const Range& r : ranges)
    for (int64_t i = r.begin; i < r.end; ++i) std::copy_n(m.row(i), m.cols, buffer.row(at++));
  return buffer.view();
}

/// Attention of the queries of a reach to its keys; other rows of `out` stay.
void attend_reach(const model::Stack& stack, ConstMatrix q, ConstMatrix k, ConstMatrix v, const Reach& reach,
                  float scale, MutableMatrix out) {
  Matrix q_rows, k_rows, v_rows;
  const ConstMatrix queries = pick(q, reach.queries, q_rows);
  Matrix attended(queries.rows, queries.cols);
  kernels::attention(queries, pick(k, reach.keys, k_rows), pick(v, reach.keys, v_rows), stack.heads,
                     stack.kv_heads, false, scale, attended.mut());
  int64_t at = 0;
  for (const Range& r : reach.queries)
    for (int64_t i = r.begin; i < r.end; ++i) std::copy_n(attended.row(at++), out.cols, out.row(i));
}

Matrix attend(const model::Stack& stack, int64_t index, const Projections& p, const Batch& batch) {
  Matrix out(p.q.rows, p.q.cols);
  const float scale = 1.0f / std::sqrt(static_cast<float>(stack.head_dim));
  const bool cross = stack.blocks[static_cast<size_t>(index)].cross;
  const auto one = [&](int64_t i) {
    const Segment& s = batch.segments[static_cast<size_t>(i)];
    const Range keys = cross ? Range{s.cross_begin, s.cross_rows} : Range{s.begin, s.rows};
    ConstMatrix k = ConstMatrix(p.k).row_range(keys.begin, keys.end);
    ConstMatrix v = ConstMatrix(p.v).row_range(keys.begin, keys.end);
    if (s.cache) {
      LayerCache& cache = (*s.cache)[static_cast<size_t>(index)];
      cache.append(k, v);
      k = cache.keys();
      v = cache.values();
    }
    const ConstMatrix q = ConstMatrix(p.q).row_range(s.begin, s.rows);
    const MutableMatrix y = out.mut().row_range(s.begin, s.rows);
    const std::vector<Reach>& reaches = cross ? s.sights : s.reach;
    if (reaches.empty()) kernels::attention(q, k, v, stack.heads, stack.kv_heads, stack.causal, scale, y);
    for (const Reach& reach : reaches) attend_reach(stack, q, k, v, reach, scale, y);
  };
  // Few segments are long: threads share each. Many are short: a thread takes each.
  const auto n = static_cast<int64_t>(batch.segments.size());
  if (n >= 4)
    parallel_for(n, one);
  else
    for (int64_t i = 0; i < n; ++i) one(i);
  return out;
}

Matrix mlp(const model::Stack& stack, const model::Block& block, ConstMatrix x, std::span<const Range> calls,
           Weights& weights, Observer* observer) {
  Matrix inner = apply(block.mlp_in[0], x, calls, weights, observer);
  if (stack.gated && block.mlp_in.size() == 1) {  // one fused linear, rows gate, up
    Matrix out(x.rows, block.mlp_out.in);
    for (int64_t r = 0; r < x.rows; ++r) std::copy_n(inner.row(r), out.cols(), out.row(r));
    kernels::activate(stack.activation, out.mut());
    tell(observer, block.activation_name, out.view());
    kernels::multiply(out.view(), inner.view().col_range(out.cols(), out.cols()), out.mut());
    return out;
  }
  kernels::activate(stack.activation, inner.mut());
  tell(observer, block.activation_name, inner.view());
  if (stack.gated) {
    const Matrix up = apply(block.mlp_in[1], x, calls, weights, observer);
    kernels::multiply(inner.view(), up.view(), inner.mut());
  }
  return inner;
}

/// tanh of a gate's one element; 1 where there is no gate.
float gate_of(const std::string& gate, Weights& weights) {
  return gate.empty() ? 1.0f : std::tanh(weights.vector(gate)[0]);
}

/// hidden += gate * y.
void add_gated(Matrix& y, const std::string& gate, Weights& weights, Matrix& hidden) {
  if (!gate.empty()) {
    const float g = gate_of(gate, weights);
    for (int64_t i = 0; i < y.rows() * y.cols(); ++i) y.data()[i] *= g;
  }
  kernels::add(y.view(), hidden.mut());
}

/// The chosen segments of a batch, as a batch for one block of cross attention.
Batch part_of(const Batch& batch, std::span<const size_t> segments) {
  Batch out;
  out.cross = batch.cross;
  int64_t rows = 0;
  for (size_t i : segments) {
    const Segment& s = batch.segments[i];
    out.segments.push_back(s);
    out.segments.back().begin = rows;
    out.modality.insert(out.modality.end(), batch.modality.begin() + s.begin,
                        batch.modality.begin() + s.begin + s.rows);
    rows += s.rows;
  }
  out.hidden = Matrix(rows, batch.hidden.cols());
  for (size_t k = 0; k < segments.size(); ++k) {
    const Segment& from = batch.segments[segments[k]];
    std::copy_n(batch.hidden.row(from.begin), from.rows * out.hidden.cols(),
                out.hidden.row(out.segments[k].begin));
  }
  return out;
}

/// Sends those sequences through a block of cross attention that have pictures.
void run_seeing(const model::Stack& stack, int64_t index, Batch& batch, std::span<const size_t> segments,
                Weights& weights, Observer* observer) {
  Batch seeing = part_of(batch, segments);
  run_block(stack, index, seeing, weights, observer);
  for (size_t k = 0; k < segments.size(); ++k) {
    const Segment& s = seeing.segments[k];
    std::copy_n(seeing.hidden.row(s.begin), s.rows * seeing.hidden.cols(),
                batch.hidden.row(batch.segments[segments[k]].begin));
  }
}

Matrix copy_of(const Matrix& m) {
  Matrix out(m.rows(), m.cols());
  std::copy_n(m.data(), m.rows() * m.cols(), out.data());
  return out;
}

void enter(const model::Entry& entry, Batch& batch, Weights& weights, Observer* observer) {
  batch.hidden = apply(entry.norm, batch.hidden.view(), weights, observer);
  for (const Segment& s : batch.segments)
    add_tile_embedding(entry.tile_embedding, s.picture->aspect_ratio, weights,
                       batch.hidden.mut().row_range(s.begin, s.rows));
  tell(observer, entry.tile_embedding, batch.hidden.view());
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

Matrix apply(const model::Linear& linear, ConstMatrix x, std::span<const Range> calls, Weights& weights,
             Observer* observer) {
  // Of bitsandbytes' configuration, where no reader changes it.
  constexpr float kOutliersFrom = 6.0f;
  Matrix y(x.rows, linear.out);
  const auto bias = linear.bias ? weights.vector(linear.name + ".bias") : std::span<const float>();
  if (const kernels::Int8Weight* weight = weights.linear8(linear)) {
    for (const Range& r : calls)
      kernels::linear_int8(x.row_range(r.begin, r.end - r.begin), *weight, bias, kOutliersFrom,
                           y.mut().row_range(r.begin, r.end - r.begin));
  } else {
    kernels::linear(x, weights.linear(linear), bias, y.mut());
  }
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

void tell_tap(Observer* observer, std::span<const model::Linear> readers, ConstMatrix x,
              std::span<const Modality> modality) {
  if (!observer) return;
  std::vector<const model::Linear*> pointers;
  for (const auto& reader : readers) pointers.push_back(&reader);
  observer->tap(pointers, x, modality);
}

void add_tile_embedding(const std::string& module, int64_t aspect_ratio, Weights& weights,
                        MutableMatrix rows) {
  const TensorView table = weights.binding().tensor(module + ".embedding.weight");
  Matrix row(1, table.shape[1]);
  kernels::gather_rows(table, {&aspect_ratio, 1}, row.mut());
  const float gate = gate_of(module + ".gate", weights);
  const int64_t tiles = table.shape[1] / rows.cols, per_tile = rows.rows / tiles;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const float* embedding = row.data() + r / per_tile * rows.cols;
    float* x = rows.row(r);
    for (int64_t c = 0; c < rows.cols; ++c) x[c] += embedding[c] * gate;
  }
}

void run_block(const model::Stack& stack, int64_t index, Batch& batch, Weights& weights, Observer* observer) {
  const model::Block& block = stack.blocks[static_cast<size_t>(index)];
  if (block.cross) {
    std::vector<size_t> seeing;
    for (size_t i = 0; i < batch.segments.size(); ++i)
      if (!batch.segments[i].sights.empty()) seeing.push_back(i);
    if (seeing.empty()) return;
    if (seeing.size() < batch.segments.size())
      return run_seeing(stack, index, batch, seeing, weights, observer);
  }
  if (block.entry) enter(*block.entry, batch, weights, observer);
  std::vector<Range> calls;
  for (const Segment& s : batch.segments) calls.push_back({s.begin, s.begin + s.rows});
  {
    const Matrix x = apply(block.attention_norm, batch.hidden.view(), weights, observer);
    Projections p = project(stack, block, x.view(), batch, calls, weights, observer);
    if (has_enough(observer)) return;
    if (!block.cross && batch.cosine.cols() > 0) {
      kernels::rope(p.q, stack.heads, batch.cosine.view(), batch.sine.view());
      kernels::rope(p.k, stack.kv_heads, batch.cosine.view(), batch.sine.view());
    }
    const Matrix attended = attend(stack, index, p, batch);
    tell_stream(observer, block.attention_gate, batch.hidden);
    tell_tap(observer, {&block.attention_out, 1}, attended.view(), batch.modality);
    if (has_enough(observer)) return;
    Matrix y = apply(block.attention_out, attended.view(), calls, weights, observer);
    tell(observer, block.attention_name, y.view());
    add_gated(y, block.attention_gate, weights, batch.hidden);
  }
  const Matrix x = apply(block.mlp_norm, batch.hidden.view(), weights, observer);
  tell_tap(observer, block.mlp_in, x.view(), batch.modality);
  if (has_enough(observer)) return;
  const Matrix inner = mlp(stack, block, x.view(), calls, weights, observer);
  tell_stream(observer, block.mlp_gate, batch.hidden);
  tell_tap(observer, {&block.mlp_out, 1}, inner.view(), batch.modality);
  if (has_enough(observer)) return;
  Matrix y = apply(block.mlp_out, inner.view(), calls, weights, observer);
  tell(observer, block.mlp_name, y.view());
  if (block.cross)
    for (const Segment& s : batch.segments)
      for (const Range& r : s.blind)
        std::fill_n(y.row(s.begin + r.begin), (r.end - r.begin) * y.cols(), 0.0f);
  add_gated(y, block.mlp_gate, weights, batch.hidden);
  tell(observer, block.name, batch.hidden.view());
  if (std::find(stack.kept.begin(), stack.kept.end(), index) != stack.kept.end())
    batch.kept[index] = copy_of(batch.hidden);
}

}  // namespace nibble::run
