// What the inputs of linears and their outputs tell: Gram matrices and sums of squares, by modality.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/rounding.h"
#include "measure/journal.h"
#include "records/rounding.h"

namespace nibble::measure {

/// Squares of some outputs, summed over rows: a sum for each output, by modality; empty where there are no
/// rows.
using Squares = std::array<std::vector<double>, 2>;

/// The sum over outputs [begin, begin + n).
double sum_of(const std::vector<double>& squares, int64_t begin, int64_t n);

/// What was seen of one tap: the number of rows X and, if wanted, X'X or its diagonal alone, by modality;
/// squares of X W' and, where that was multiplied, of X D', by linear.
struct Tap {
  std::vector<const model::Linear*> readers;
  std::array<Matrix, 2> gram;
  std::array<int64_t, 2> rows{};
  bool finite = true;  // there was no NaN or infinity in X
  std::map<std::string, Squares> signal, noise;
};

/// The difference D (out, in) that a linear's weight is to be measured with; empty for none. Called once for
/// a linear.
using DifferenceOf = std::function<Matrix(const model::Linear&)>;

/// What is wanted of taps. With `difference`, X D' is multiplied where that takes less than the Gram matrices
/// that it could be had from, which are summed up elsewhere; with `grams`, everywhere. Of inputs wider than
/// `widest` (0: of none) there is the diagonal alone, and X D' always multiplied. Of shapes alone.
struct Wanted {
  bool grams = false;
  DifferenceOf difference = {};
  int64_t widest = 0;
};

/// Sums up what is wanted of all taps, in a fixed order.
class TapObserver : public run::Observer {
 public:
  TapObserver(run::Weights& weights, Wanted wanted) : weights_(weights), wanted_(std::move(wanted)) {}

  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const run::Modality> modality) override;
  void output(const std::string& module, ConstMatrix y) override;

  const std::map<std::string, Tap>& taps() const { return taps_; }
  /// Forgets the taps. `rows`: how many rows the next ones will have, about.
  void start(int64_t rows);

 private:
  /// A linear whose input has been seen.
  struct Reader {
    const model::Linear* linear = nullptr;
    Tap* tap = nullptr;
    std::vector<run::Modality> modality;  // of the last input
    kernels::Weight difference;           // empty: not multiplied
  };

  bool multiplies(std::span<const model::Linear* const> readers,
                  std::span<const run::Modality> modality) const;
  void see_noise(Reader& reader, ConstMatrix x);

  run::Weights& weights_;
  Wanted wanted_;
  int64_t expected_ = 0;
  Tensor products_;  // used again and again
  std::map<std::string, Tap> taps_;
  std::map<std::string, Reader> readers_;
};

/// Runs the model over the inputs step by step and shows each step's taps when all inputs went through it.
/// One step's weights and Gram matrices are in memory at a time. `label` is for the progress line. Steps that
/// the journal knows to be done are left out.
void walk_taps(Walk& walk, const std::string& label, Wanted wanted, const Keeping& keeping,
               const std::function<void(const Tap&)>& seen);

/// The rows of x that are of one modality, in their order.
Matrix rows_of_modality(ConstMatrix x, std::span<const run::Modality> modality, run::Modality wanted);

/// Whether inputs of `width` are wider than `widest` (0: none are).
inline bool is_wide(int64_t width, int64_t widest) {
  return widest > 0 && width > widest;
}

/// A Gram matrix of `width` inputs before any rows, or its diagonal where these are wider than `widest` (0:
/// none are).
Matrix empty_gram(int64_t width, int64_t widest);

/// What the matrices of each modality count in one of both: mix / signal for vision, (1 - mix) / signal for
/// text, where signal is the |XW'|^2 of its rows, so that each counts by its relative error. A modality
/// without rows leaves the other alone.
std::array<double, 2> modality_weights(const std::array<int64_t, 2>& rows,
                                       const std::array<double, 2>& signal, double mix);
/// The sum of weight * matrix; the diagonal of each, Gram matrices where there is damping, is taken 1 +
/// damping times. Empty without any.
Matrix mixed(std::array<Matrix, 2> matrices, const std::array<double, 2>& weights,
             const std::array<double, 2>& damping);
/// One Gram matrix of both modalities; |XW'|^2 over all readers. It is damped because in a model that is
/// quantized throughout, inputs carry the noise of the layers before. Empty without any rows.
Matrix mixed_gram(const Tap& tap, const records::Rounding& rounding);

/// What kernels::round4 is to do with such a Gram matrix.
kernels::RoundingOptions round4_options(const records::Rounding& rounding);

}  // namespace nibble::measure
