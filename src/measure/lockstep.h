// Many ways to store a model, run side by side in one pass over its weights.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "measure/journal.h"
#include "records/groups.h"

namespace nibble::measure {

/// How a group is stored.
enum class Stored : uint8_t {
  as_source,
  plain,
  rounded,   // what the store holds by the linear's name
  in_order,  // what it holds by in_order_name()
};

/// The name in a store of a linear's codes for the plan that round_in_order() rounded last; by its own name
/// stand codes for the inputs of the 16-bit model.
std::string in_order_name(const std::string& linear);

/// Has a linear multiplied with what a reader decodes of it. `store` may be null where it holds nothing of
/// it.
void set_weight(run::Weights& weights, const model::Linear& linear, Stored stored, const RoundedStore* store);

/// How every group is stored, in the order of the groups.
using Assignment = std::vector<Stored>;

/// Runs assignments against the 16-bit model on inputs with answers. A branch of hidden states is that of the
/// base assignment up to the first step where it differs, and stays so for inputs that the difference does
/// not reach; a step's weights are made once for all branches that store its groups alike, and multiplied
/// with them as tall matrices. Not thread-safe.
class Lockstep {
 public:
  /// memory: bytes that hidden states may take; with more branches the pass is made several times. `store`
  /// may be null where nothing is `rounded`. With a journal, what was run is known after an interruption;
  /// `label` tells these inputs from others that it knows. All must outlive this.
  Lockstep(Walk& walk, std::span<const records::Group> groups, const records::Inventory& inventory,
           const RoundedStore* store, int64_t memory, Journal* journal = nullptr, std::string label = {});

  /// Mean KL(16 bit || assignment) in nats over each item's answer: a row for each hypothesis, a column for
  /// each item; 0 for items that a change cannot reach. The same as running the assignment alone, bit for
  /// bit.
  std::vector<std::vector<double>> run(const Assignment& base, std::span<const Assignment> hypotheses);

  /// Passes over the weights that so many hypotheses take.
  int64_t passes(size_t hypotheses) const;

 private:
  struct Branch;

  void run_pass(const Assignment& base, std::span<const Assignment> hypotheses,
                std::span<std::vector<double>> out);
  void run_branches(const Assignment& base, std::span<const Assignment> hypotheses,
                    std::span<std::vector<double>> out);
  size_t begin(const std::string& name, std::vector<Branch>& branches);
  std::string name_of(const Assignment& assignment) const;
  void advance(size_t step, std::vector<Branch>& branches);
  void set_weights(size_t step, const Assignment& assignment);
  const Matrix& reference();

  Walk& walk_;
  std::vector<std::vector<size_t>> step_groups_;  // of each step: the groups of its linears, ascending
  std::map<std::string, size_t> group_of_;        // of each linear
  size_t groups_;
  const RoundedStore* store_;
  int64_t memory_, state_bytes_ = 0;
  Journal* journal_;
  std::string label_;
  std::optional<Matrix> reference_;  // hidden states of the 16-bit model that predict the answers
};

}  // namespace nibble::measure
