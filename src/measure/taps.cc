#include "measure/taps.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"

namespace nibble::measure {

using run::Modality;

namespace {

// Rows that are multiplied with a difference at a time: their products are all the memory that it takes.
constexpr int64_t kRows = 512;
// Outputs, and rows, of a task; rows whose squares are summed in fp32 before they go on in fp64.
constexpr int64_t kOutputs = 256, kTaskRows = 64, kPartialRows = 16;

bool all_finite(ConstMatrix x) {
  std::atomic<bool> finite = true;
  parallel_ranges(x.rows, kTaskRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      if (!std::all_of(x.row(r), x.row(r) + x.cols, [](float v) { return std::isfinite(v); })) finite = false;
  });
  return finite;
}

/// sums += the squares of y - bias (none: empty), by modality of the rows.
void add_squares(ConstMatrix y, std::span<const float> bias, std::span<const Modality> modality,
                 Squares& sums) {
  for (const Modality m : modality) sums[static_cast<size_t>(m)].resize(static_cast<size_t>(y.cols));
  parallel_ranges(y.cols, kOutputs, [&](int64_t begin, int64_t end) {
    std::array<float, kOutputs> shift{}, partial{};  // of at most kPartialRows rows, in fp32
    if (!bias.empty()) std::copy(bias.begin() + begin, bias.begin() + end, shift.begin());
    for (int64_t r = 0, rows = 1; r < y.rows; ++r, ++rows) {
      const float* row = y.row(r) + begin;
      for (int64_t i = 0; i < end - begin; ++i) {
        const float value = row[i] - shift[static_cast<size_t>(i)];
        partial[static_cast<size_t>(i)] += value * value;
      }
      const Modality m = modality[static_cast<size_t>(r)];
      if (rows < kPartialRows && r + 1 < y.rows && modality[static_cast<size_t>(r) + 1] == m) continue;
      double* sum = sums[static_cast<size_t>(m)].data() + begin;
      for (int64_t i = 0; i < end - begin; ++i) sum[i] += partial[static_cast<size_t>(i)];
      partial = {};
      rows = 0;
    }
  });
}

void add_grams(ConstMatrix x, std::span<const Modality> modality, int64_t widest,
               std::array<Matrix, 2>& grams) {
  for (const Modality m : records::kModalities) {
    const auto rows = std::count(modality.begin(), modality.end(), m);
    if (rows == 0) continue;
    Matrix& gram = grams[static_cast<size_t>(m)];
    if (gram.rows() == 0) gram = empty_gram(x.cols, widest);
    if (rows == x.rows) {
      kernels::add_gram(x, gram.mut());
      continue;
    }
    kernels::add_gram(rows_of_modality(x, modality, m).view(), gram.mut());
  }
}

/// out, empty at first, += weight * from, the diagonal of which is taken 1 + damping times.
void add_weighted(const Matrix& from, double weight, double damping, Matrix& out) {
  if (from.rows() == 0) return;
  if (out.rows() == 0) out = Matrix::zeros(from.rows(), from.cols());
  for (int64_t i = 0; i < out.rows() * out.cols(); ++i)
    out.data()[i] += static_cast<float>(weight * static_cast<double>(from.data()[i]));
  if (damping <= 0) return;
  const bool diagonal = kernels::is_diagonal(from.view());
  for (int64_t i = 0; i < out.cols(); ++i)
    out.row(diagonal ? 0 : i)[i] +=
        static_cast<float>(weight * damping * static_cast<double>(kernels::on_diagonal(from.view(), i)));
}

}  // namespace

Matrix rows_of_modality(ConstMatrix x, std::span<const Modality> modality, Modality wanted) {
  Matrix out(std::count(modality.begin(), modality.end(), wanted), x.cols);
  int64_t next = 0;
  for (int64_t r = 0; r < x.rows; ++r)
    if (modality[static_cast<size_t>(r)] == wanted) std::copy_n(x.row(r), x.cols, out.row(next++));
  return out;
}

Matrix empty_gram(int64_t width, int64_t widest) {
  return Matrix::zeros(is_wide(width, widest) ? 1 : width, width);
}

double sum_of(const std::vector<double>& squares, int64_t begin, int64_t n) {
  return std::accumulate(squares.begin() + begin, squares.begin() + begin + n, 0.0);
}

/// A Gram matrix, half of which is computed, takes rows * in^2 / 2 multiplications, a product by it outs *
/// in^2, both in fp32; one of the rows rows * outs * in, twice as fast in bf16.
bool TapObserver::multiplies(std::span<const model::Linear* const> readers,
                             std::span<const Modality> modality) const {
  if (is_wide(readers[0]->in, wanted_.widest)) return true;
  int64_t outs = 0, grams = 0;
  for (const model::Linear* reader : readers) outs += reader->out;
  for (const Modality m : records::kModalities)
    grams += std::find(modality.begin(), modality.end(), m) != modality.end();
  const auto rows = static_cast<double>(expected_), in = static_cast<double>(readers[0]->in);
  const double products = rows * static_cast<double>(outs) * in;
  const double by_grams = (rows / 2 + static_cast<double>(grams * outs)) * in * in;
  return (weights_.compute() == kernels::Compute::bf16 ? products / 2 : products) < by_grams;
}

void TapObserver::tap(std::span<const model::Linear* const> readers, ConstMatrix x,
                      std::span<const Modality> modality) {
  Tap& tap = taps_[readers[0]->tap];
  const bool multiplied =
      wanted_.difference && (tap.readers.empty() ? multiplies(readers, modality) : !tap.noise.empty());
  tap.readers.assign(readers.begin(), readers.end());
  tap.finite = tap.finite && all_finite(x);
  for (const Modality m : modality) ++tap.rows[static_cast<size_t>(m)];
  if (wanted_.grams || !multiplied) add_grams(x, modality, wanted_.widest, tap.gram);
  for (const model::Linear* linear : readers) {
    Reader& reader = readers_[linear->name];
    const bool fresh = !reader.linear;
    reader = {linear, &tap, {modality.begin(), modality.end()}, std::move(reader.difference)};
    if (!multiplied) continue;
    if (fresh) {
      const Matrix difference = wanted_.difference(*linear);
      if (difference.rows() > 0)
        reader.difference = kernels::Weight::pack(difference.tensor(), weights_.compute());
    }
    see_noise(reader, x);
  }
}

void TapObserver::see_noise(Reader& reader, ConstMatrix x) {
  Squares& noise = reader.tap->noise[reader.linear->name];
  if (!reader.difference) return;
  const int64_t out = reader.linear->out;
  if (products_.count() < kRows * out) products_ = Tensor(DType::f32, {kRows * out});
  const std::span<const Modality> modality = reader.modality;
  for (int64_t r = 0; r < x.rows; r += kRows) {
    const int64_t n = std::min(kRows, x.rows - r);
    const MutableMatrix y{products_.as<float>(), n, out, out};
    kernels::linear(x.row_range(r, n), reader.difference, {}, y);
    add_squares(y, {}, modality.subspan(static_cast<size_t>(r), static_cast<size_t>(n)), noise);
  }
}

void TapObserver::output(const std::string& module, ConstMatrix y) {
  const auto it = readers_.find(module);
  if (it == readers_.end()) return;
  const Reader& reader = it->second;
  const auto bias = reader.linear->bias ? weights_.vector(module + ".bias") : std::span<const float>();
  add_squares(y, bias, reader.modality, reader.tap->signal[module]);
}

void TapObserver::start(int64_t rows) {
  readers_.clear();
  taps_.clear();
  expected_ = rows;
}

void walk_taps(Walk& walk, const std::string& label, Wanted wanted, const Keeping& keeping,
               const std::function<void(const Tap&)>& seen) {
  TapObserver observer(walk.runner().weights(), std::move(wanted));
  Progress progress(label, std::ssize(walk.steps()), "blocks");
  size_t done = 0;
  const auto before = [&](int64_t rows) { observer.start(rows); };
  const auto after = [&](size_t step) {
    for (const auto& [name, tap] : observer.taps()) seen(tap);
    observer.start(0);
    progress.advance(static_cast<int64_t>(step + 1 - std::exchange(done, step + 1)));
  };
  walk_through(walk, keeping, {.observer = &observer, .before = before, .after = after});
}

std::array<double, 2> modality_weights(const std::array<int64_t, 2>& rows,
                                       const std::array<double, 2>& signal, double mix) {
  const std::array<double, 2> share = {mix, 1 - mix};
  const bool both = rows[0] > 0 && rows[1] > 0;
  std::array<double, 2> out{};
  for (size_t m = 0; m < 2; ++m)
    out[m] = (both ? share[m] : 1) / (signal[m] > 0 && std::isfinite(signal[m]) ? signal[m] : 1);
  return out;
}

Matrix mixed(std::array<Matrix, 2> matrices, const std::array<double, 2>& weights,
             const std::array<double, 2>& damping) {
  Matrix out;
  for (size_t m = 0; m < 2; ++m) {
    add_weighted(matrices[m], weights[m], damping[m], out);
    matrices[m] = {};
  }
  return out;
}

Matrix mixed_gram(const Tap& tap, const records::Rounding& rounding) {
  std::array<double, 2> signal{};
  for (size_t m = 0; m < 2; ++m)
    for (const model::Linear* linear : tap.readers)
      if (tap.rows[m] > 0) signal[m] += sum_of(tap.signal.at(linear->name)[m], 0, linear->out);
  const auto weights = modality_weights(tap.rows, signal, rounding.mix);
  Matrix out;
  for (size_t m = 0; m < 2; ++m) add_weighted(tap.gram[m], weights[m], rounding.damping[m], out);
  return out;
}

kernels::RoundingOptions round4_options(const records::Rounding& rounding) {
  const auto kind = kernels::parse_rounding(rounding.kind);
  NIBBLE_CHECK(kind, "{}", rounding.kind);
  // The modalities are damped on their own (mixed); what is left keeps a matrix without rows definite.
  return {.kind = *kind, .damping = 1e-4};
}

}  // namespace nibble::measure
