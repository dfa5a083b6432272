// The one block function of every family, over a batch of rows that belong to several sequences.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "records/inventory.h"
#include "run/inputs.h"
#include "run/weights.h"

namespace nibble::run {

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
  /// The hidden states (rows, hidden) that the output of the next tap's linear is added to, where no gate
  /// scales it. They stay as they are until that tap was told.
  virtual void stream(ConstMatrix hidden) { (void)hidden; }
  /// The output y (rows, features) of a module, by its published name.
  virtual void output(const std::string& module, ConstMatrix y) { (void)module, (void)y; }
  /// True when nothing after the last tap is wanted: a block may end there, its hidden states unfinished.
  virtual bool enough() const { return false; }
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

/// The rows `queries` attend to the rows `keys`.
struct Reach {
  std::vector<Range> queries, keys;
};

/// Rows [begin, begin + rows) of a batch are one sequence (or one picture), which attends to itself only.
/// Ranges within count from the segment's begin.
struct Segment {
  int64_t begin = 0, rows = 0;
  std::vector<LayerCache>* cache = nullptr;  // one for each block; null: nothing is kept
  const Picture* picture = nullptr;          // of a tower's segment
  std::vector<Reach> reach = {};             // self attention; empty: all rows to all (or causal)
  // Cross attention: keys are rows of features of this sequence's pictures, all of them.
  int64_t cross_begin = 0, cross_rows = 0;  // of Batch::cross, when it is new; later it is in the cache
  std::vector<Reach> sights = {};           // empty: the sequence has no pictures
  std::vector<Range> blind = {};            // rows that see none of them: the blocks' MLPs add nothing there
};

/// Hidden states on their way through a stack of blocks.
struct Batch {
  Matrix hidden;                        // (rows, hidden)
  Matrix cosine, sine;                  // (rows, angles): rotary angles of each row
  std::vector<Modality> modality;       // (rows)
  std::vector<Segment> segments;        // cover all rows, in order
  std::shared_ptr<const Matrix> cross;  // features of pictures for cross attention, or null
  std::map<int64_t, Matrix> kept;       // outputs of the stack's kept blocks
};

/// The output of a linear: x (rows, in) * W' + bias; tells the observer its output. `calls` are the rows that
/// a model run alone would multiply at once, and cover x: 8-bit linears leave outliers out call by call.
Matrix apply(const model::Linear& linear, ConstMatrix x, std::span<const Range> calls, Weights& weights,
             Observer* observer);
/// The output of a norm, likewise.
Matrix apply(const model::Norm& norm, ConstMatrix x, Weights& weights, Observer* observer);

/// Tells the observer, if there is one, what `readers` (of one tap) are about to be multiplied with.
void tell_tap(Observer* observer, std::span<const model::Linear> readers, ConstMatrix x,
              std::span<const Modality> modality);

/// rows (tiles * n, hidden) of one picture += tanh(module.gate) * module.embedding.weight[aspect_ratio], a
/// row of which holds the features of each tile.
void add_tile_embedding(const std::string& module, int64_t aspect_ratio, Weights& weights,
                        MutableMatrix rows);

/// Sends the batch through block number `index` of the stack, in place. Sequences without pictures pass by
/// blocks of cross attention.
void run_block(const model::Stack& stack, int64_t index, Batch& batch, Weights& weights, Observer* observer);

}  // namespace nibble::run
