// A forward pass over all inputs, step by step, for several branches of hidden states at once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/answers.h"
#include "data/prompts.h"
#include "run/forward.h"

namespace nibble::measure {

/// The hidden states of one branch between two steps: a part for each batch of inputs. Copies share parts
/// until one of them is taken over a step alone, and the pictures' features also after that.
struct States {
  struct Part {
    Matrix hidden;                        // (rows, hidden)
    std::map<int64_t, Matrix> kept;       // outputs of the tower's kept blocks
    std::shared_ptr<const Matrix> cross;  // features for cross attention, or null

    Part() = default;
    explicit Part(Matrix rows, std::shared_ptr<const Matrix> features = nullptr)
        : hidden(std::move(rows)), cross(std::move(features)) {}
  };
  std::vector<std::shared_ptr<Part>> parts;  // one that is shared is not changed
};

/// One step of the pass: a block of the tower, the connector, or a block of the language model.
struct Step {
  enum class Kind { tower, connector, text } kind = Kind::text;
  int64_t index = 0;                          // of the block in its stack
  std::vector<const model::Linear*> linears;  // that it multiplies with
};

/// Drives a model over inputs that have answers. Without pictures among the inputs there are no steps of the
/// tower. Inputs with pictures and inputs without are in batches of their own: the latter are embedded from
/// the start, and stay as they are in the tower, in the connector and in cross attention. Not thread-safe;
/// the runner, its weights and the items must outlive it.
class Walk {
 public:
  Walk(run::Runner& runner, std::span<const data::Item> items);

  const std::vector<Step>& steps() const { return steps_; }
  /// States before the first step.
  States start();
  /// Gets ready to advance from `step` on, with states that an earlier walk over the same items left there.
  void go_to(size_t step);
  /// Takes branches over a step with the weights as they are set now: their rows are stacked into tall
  /// products. Parts that they share go once, and stay shared. Every row has the same bits as if its branch
  /// were alone. The observer may be null.
  void advance(size_t step, std::span<States* const> branches, run::Observer* observer);
  /// Inputs go through a step in batches. Shows the observer one of them, which leaves the branch as it is;
  /// nothing where the step does not reach it.
  size_t batches() const { return batches_.size(); }
  void look(size_t step, size_t batch, const States& branch, run::Observer& observer);
  /// Forgets the weights that a step loaded; replacements stay.
  void release(size_t step);
  /// After the last step: the hidden states that predict the answers' tokens, one row each, items in order.
  Matrix answers(const States& states) const;
  /// Mean KL(softmax of reference || softmax of branch) of each item over its answer, from what answers()
  /// gave.
  std::vector<double> divergence(const Matrix& reference, const Matrix& branch);
  /// The same for each of several branches after the last step. The reference's logits, and those of parts
  /// that branches share, are made once.
  std::vector<std::vector<double>> divergence(const Matrix& reference,
                                              std::span<const States* const> branches);

  /// Rows of the inputs by modality: patches at the tower's entry, and tokens of text.
  const std::array<int64_t, 2>& rows() const { return rows_; }
  /// Rows of a branch that a step will change.
  int64_t rows_at(size_t step, const States& states) const;
  run::Runner& runner() { return runner_; }
  std::span<const data::Item> items() const { return items_; }

 private:
  /// Inputs that go together, and what their batch has besides hidden states.
  struct Inputs {
    std::vector<size_t> items;
    bool pictures = false;
    run::Batch tower, text;
  };
  /// Where the rows lie that predict the answers' tokens, items in order.
  using AnswerRows = std::vector<const float*>;

  bool reaches(const Step& step, const Inputs& inputs) const;
  void advance_parts(const Step& step, Inputs& inputs, std::span<States::Part* const> parts,
                     run::Observer* observer);
  void connect(Inputs& inputs, States::Part& part, run::Observer* observer);
  States::Part embed(Inputs& inputs, std::span<run::Sequence> sequences);
  std::vector<run::Sequence> sequences_of(const Inputs& inputs) const;
  std::vector<const run::Prompt*> prompts_of(const Inputs& inputs) const;
  AnswerRows answer_rows(const States& states) const;
  std::vector<std::vector<double>> divergence(const Matrix& reference, std::span<const AnswerRows> branches);
  void add_divergence(const Matrix& p, std::span<const float* const> row_of,
                      std::unordered_map<const float*, double>& known);
  Matrix logits(std::span<const float* const> rows);
  std::vector<double> means_of_items(std::span<const double> rows) const;

  run::Runner& runner_;
  std::span<const data::Item> items_;
  std::vector<run::Prompt> prompts_;
  std::vector<Step> steps_;
  std::vector<Inputs> batches_;
  std::array<int64_t, 2> rows_{};
};

}  // namespace nibble::measure
