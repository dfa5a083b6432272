#include "measure/grams.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/progress.h"

namespace nibble::measure {

using run::Modality;

void GramObserver::tap(std::span<const model::Linear* const> readers, ConstMatrix x,
                       std::span<const Modality> modality) {
  Tap& tap = taps_[readers[0]->tap];
  tap.readers.assign(readers.begin(), readers.end());
  for (Modality m : records::kModalities) add(tap, x, modality, m);
}

void GramObserver::add(Tap& tap, ConstMatrix x, std::span<const Modality> modality, Modality m) {
  const auto rows = std::count(modality.begin(), modality.end(), m);
  if (rows == 0) return;
  const auto k = static_cast<size_t>(m);
  tap.rows[k] += rows;
  if (tap.gram[k].rows() == 0) tap.gram[k] = Matrix::zeros(x.cols, x.cols);
  if (rows == x.rows) return kernels::add_gram(x, tap.gram[k].mut());
  Matrix picked(rows, x.cols);
  int64_t next = 0;
  for (int64_t r = 0; r < x.rows; ++r)
    if (modality[static_cast<size_t>(r)] == m) std::copy_n(x.row(r), x.cols, picked.row(next++));
  kernels::add_gram(picked.view(), tap.gram[k].mut());
}

void walk_taps(Walk& walk, const std::string& label, const Keeping& keeping,
               const std::function<void(const Tap&)>& seen) {
  GramObserver observer;
  Progress progress(label, std::ssize(walk.steps()), "blocks");
  size_t done = 0;
  walk_through(walk, keeping, &observer, [&](size_t step) {
    for (const auto& [name, tap] : observer.taps()) seen(tap);
    observer.clear();
    progress.advance(static_cast<int64_t>(step + 1 - std::exchange(done, step + 1)));
  });
}

Matrix mixed_gram(const Tap& tap, const std::array<double, 2>& signal, const records::Rounding& rounding) {
  Matrix out;
  const std::array<double, 2> share = {rounding.mix, 1 - rounding.mix};
  const bool both = tap.rows[0] > 0 && tap.rows[1] > 0;
  for (size_t m = 0; m < 2; ++m) {
    if (tap.rows[m] == 0) continue;
    if (out.rows() == 0) out = Matrix::zeros(tap.gram[m].rows(), tap.gram[m].cols());
    const double weight = (both ? share[m] : 1) / (signal[m] > 0 && std::isfinite(signal[m]) ? signal[m] : 1);
    for (int64_t i = 0; i < out.rows() * out.cols(); ++i)
      out.data()[i] += static_cast<float>(weight * static_cast<double>(tap.gram[m].data()[i]));
    for (int64_t i = 0; i < out.rows(); ++i)
      out.row(i)[i] += static_cast<float>(weight * rounding.damping[m] * static_cast<double>(tap.gram[m].row(i)[i]));
  }
  return out;
}

}  // namespace nibble::measure
