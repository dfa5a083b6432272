// The one block function of every family, over a batch of rows that belong to several sequences.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "records/inventory.h"
#include "run/weights.h"

namespace nibble::run {

using records::Modality;

/// Sees what flows through the model. One hook before each linear serves measuring and probes; one after each
/// module serves tracing. Called by the thread that drives the pass.
class Observer {
 public:
  virtual ~Observer() = default;
  /// The one input x (rows, in) that all of `readers` are about to be multiplied with. `modality` has one
  /// entry a row.
  virtual void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
                   std::span<const Modality> modality) {
    (void)readers, (void)x, (void)modality;
  }
  /// The output y (rows, features) of a module, by its published name.
  virtual void output(const std::string& module, ConstMatrix y) { (void)module, (void)y; }
};

/// Keys and values of one block for one sequence, growing as tokens are fed.
class LayerCache {
 public:
  /// Appends rows of keys and values (rows, kv_heads * head_dim).
  void append(ConstMatrix k, ConstMatrix v);
  int64_t rows() const { return rows_; }
  ConstMatrix keys() const { return keys_.view().row_range(0, rows_); }
  ConstMatrix values() const { return values_.view().row_range(0, rows_); }

 private:
  Matrix keys_, values_;
  int64_t rows_ = 0;
};

/// Rows [begin, begin + rows) of a batch are one sequence (or one picture), which attends to itself only.
struct Segment {
  int64_t begin = 0, rows = 0;
  std::vector<LayerCache>* cache = nullptr;  // one for each block; null: nothing is kept
};

/// Hidden states on their way through a stack of blocks.
struct Batch {
  Matrix hidden;                   // (rows, hidden)
  Matrix cosine, sine;             // (rows, half): rotary angles of each row
  std::vector<Modality> modality;  // (rows)
  std::vector<Segment> segments;   // cover all rows, in order
};

/// The output of a linear: x (rows, in) * W' + bias; tells the observer its output.
Matrix apply(const model::Linear& linear, ConstMatrix x, Weights& weights, Observer* observer);
/// The output of a norm, likewise.
Matrix apply(const model::Norm& norm, ConstMatrix x, Weights& weights, Observer* observer);

/// Sends the batch through block number `index` of the stack, in place.
void run_block(const model::Stack& stack, int64_t index, Batch& batch, Weights& weights, Observer* observer);

}  // namespace nibble::run
