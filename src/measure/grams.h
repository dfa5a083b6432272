// Gram matrices of the inputs of linears, by modality.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "measure/journal.h"
#include "records/rounding.h"

namespace nibble::measure {

/// What was seen of one tap: X'X and the number of rows X, by modality.
struct Tap {
  std::vector<const model::Linear*> readers;
  std::array<Matrix, 2> gram;
  std::array<int64_t, 2> rows{};
};

/// Sums the Gram matrices of all taps that it sees, in fp32 with a fixed order.
class GramObserver : public run::Observer {
 public:
  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const run::Modality> modality) override;

  const std::map<std::string, Tap>& taps() const { return taps_; }
  void clear() { taps_.clear(); }

 private:
  static void add(Tap& tap, ConstMatrix x, std::span<const run::Modality> modality, run::Modality m);

  std::map<std::string, Tap> taps_;
};

/// Runs the model over the inputs step by step and shows each step's taps when all inputs went through it.
/// One step's weights and Gram matrices are in memory at a time. `label` is for the progress line. Steps that
/// the journal knows to be done are left out.
void walk_taps(Walk& walk, const std::string& label, const Keeping& keeping,
               const std::function<void(const Tap&)>& seen);

/// One Gram matrix of both modalities: mix * vision / |XW'|^2 of vision + (1 - mix) * text / |XW'|^2 of text,
/// so that each modality counts by its relative error; `signal`: these squared norms. The diagonal of each is
/// taken 1 + damping times: in a model that is quantized throughout, inputs carry the noise of the layers before.
/// A modality without rows leaves the other alone. Empty without any rows.
Matrix mixed_gram(const Tap& tap, const std::array<double, 2>& signal, const records::Rounding& rounding);

}  // namespace nibble::measure
