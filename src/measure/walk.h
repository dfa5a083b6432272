// A forward pass over all inputs, step by step, for several branches of hidden states at once.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/answers.h"
#include "data/prompts.h"
#include "run/forward.h"

namespace nibble::measure {

/// The hidden states of one branch between two steps: one entry for each batch of inputs. Cheap to move; the
/// pictures' features are shared between branches that have the same.
struct States {
  struct Part {
    Matrix hidden;                        // (rows, hidden)
    std::map<int64_t, Matrix> kept;       // outputs of the tower's kept blocks
    std::shared_ptr<const Matrix> cross;  // features for cross attention, or null

    Part() = default;
    explicit Part(Matrix rows, std::shared_ptr<const Matrix> features = nullptr)
        : hidden(std::move(rows)), cross(std::move(features)) {}
  };
  std::vector<Part> parts;

  States copy() const;
  /// Bytes of the hidden states.
  int64_t bytes() const;
};

/// One step of the pass: a block of the tower, the connector, or a block of the language model.
struct Step {
  enum class Kind { tower, connector, text } kind = Kind::text;
  int64_t index = 0;                          // of the block in its stack
  std::vector<const model::Linear*> linears;  // that it multiplies with
};

/// Drives a model over inputs that have answers. Without pictures among the inputs there are no steps of the
/// tower. Not thread-safe; the runner, its weights and the items must outlive it.
class Walk {
 public:
  Walk(run::Runner& runner, std::span<const data::Item> items);

  const std::vector<Step>& steps() const { return steps_; }
  /// States before the first step.
  States start();
  /// Gets ready to advance from `step` on, with states that an earlier walk over the same items left there.
  void go_to(size_t step);
  /// Takes branches over a step, in place, with the weights as they are set now: their rows are stacked into
  /// tall products. Every row has the same bits as if its branch were alone. The observer may be null.
  void advance(size_t step, std::span<States* const> branches, run::Observer* observer);
  /// Forgets the weights that a step loaded; replacements stay.
  void release(size_t step);
  /// After the last step: the hidden states that predict the answers' tokens, one row each, items in order.
  Matrix answers(const States& states) const;
  /// Mean KL(softmax of reference || softmax of branch) of each item over its answer, from what answers() gave.
  std::vector<double> divergence(const Matrix& reference, const Matrix& branch);

  /// Rows of the inputs by modality: patches at the tower's entry, and tokens of text.
  const std::array<int64_t, 2>& rows() const { return rows_; }
  run::Runner& runner() { return runner_; }
  std::span<const data::Item> items() const { return items_; }

 private:
  /// Inputs that go together: items [begin, end), and what their batch has besides hidden states.
  struct Inputs {
    size_t begin = 0, end = 0;
    run::Batch shape;
  };

  void advance_blocks(const model::Stack& stack, int64_t index, const Inputs& inputs, size_t part,
                      std::span<States* const> branches, run::Observer* observer);
  void connect(States& states, run::Observer* observer);
  States::Part embed(Inputs& inputs, std::span<run::Sequence> sequences);

  run::Runner& runner_;
  std::span<const data::Item> items_;
  std::vector<run::Prompt> prompts_;
  std::vector<Step> steps_;
  std::vector<Inputs> towers_, texts_;
  std::array<int64_t, 2> rows_{};
};

}  // namespace nibble::measure
