#include "measure/measure.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "kernels/rounding.h"
#include "measure/grams.h"

namespace nibble::measure {
namespace {

/// False for a weight with NaN or infinity, which stays as it is; throws unless that is allowed.
bool can_round(const model::Binding& binding, const model::Linear& linear, bool allow_nonfinite) {
  const std::string weight = binding.linear(linear).stored + ".weight";
  if (!allow_nonfinite) binding.check_finite(weight);
  return !allow_nonfinite || !quant::find_nonfinite(binding.checkpoint().tensor(weight));
}

int64_t stored_bytes(const model::Linear& linear, const quant::Packed4& packed) {
  return model::nf4_bytes(linear.out, linear.in, packed.dtype, packed.nested->offset);
}

Matrix as_float(const TensorView& tensor) {
  Matrix out(tensor.shape[0], tensor.shape[1]);
  to_float(tensor, out.data());
  return out;
}

/// w - q.
Matrix difference(const Matrix& w, const Matrix& q) {
  Matrix out(w.rows(), w.cols());
  for (int64_t i = 0; i < w.rows() * w.cols(); ++i) out.data()[i] = w.data()[i] - q.data()[i];
  return out;
}

/// |X W'|^2 by modality.
std::array<double, 2> signals(ConstMatrix w, const Tap& tap) {
  std::array<double, 2> out{};
  for (size_t m = 0; m < 2; ++m)
    if (tap.rows[m] > 0) out[m] = kernels::gram_norm(w, tap.gram[m].view());
  return out;
}

/// Errors of rows w of a weight that became w - d, from the Gram matrices of their tap.
std::array<records::ActivationError, 2> activation_errors(ConstMatrix d, const Tap& tap,
                                                          const std::array<double, 2>& signal) {
  std::array<records::ActivationError, 2> out;
  for (size_t m = 0; m < 2; ++m) {
    if (tap.rows[m] == 0) continue;
    const double noise = kernels::gram_norm(d, tap.gram[m].view());
    // Behind a weight that is not finite there is nothing to measure.
    if (std::isfinite(noise) && std::isfinite(signal[m]))
      out[m] = {.rows = tap.rows[m], .noise = noise, .signal = signal[m]};
  }
  return out;
}

double frobenius(ConstMatrix m) {
  double sum = 0;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) sum += static_cast<double>(m.row(r)[c]) * m.row(r)[c];
  return std::sqrt(sum);
}

/// False where NaN or infinity came up: the diagonal of a Gram matrix shows it.
bool finite_rows(const Tap& tap) {
  for (const Matrix& gram : tap.gram)
    for (int64_t i = 0; i < gram.rows(); ++i)
      if (!std::isfinite(gram.row(i)[i])) return false;
  return true;
}

kernels::RoundingOptions options_of(const records::Rounding& rounding) {
  const auto kind = kernels::parse_rounding(rounding.kind);
  NIBBLE_CHECK(kind, "{}", rounding.kind);
  // The modalities are damped on their own (mixed_gram); what is left keeps a matrix without rows definite.
  return {.kind = *kind, .damping = 1e-4};
}

/// The rounder of all readers of one tap: their common Gram matrix, made when the first of them needs it.
class TapRounder {
 public:
  TapRounder(const Tap& tap, const records::Rounding& rounding, const model::Binding& binding)
      : rounding_(options_of(rounding)) {
    std::array<double, 2> signal{};
    for (const model::Linear* linear : tap.readers) {
      Tensor buffer;
      const std::array<double, 2> own = signals(as_float(binding.weight(*linear, buffer)).view(), tap);
      for (size_t m = 0; m < 2; ++m) signal[m] += own[m];
    }
    gram_ = mixed_gram(tap, signal, rounding);
  }

  quant::Packed4 round(const TensorView& weight) const {
    return kernels::round4(weight, gram_.view(), rounding_);
  }

 private:
  kernels::RoundingOptions rounding_;
  Matrix gram_;
};

/// Fills a record of measurements, step by step.
class Recorder {
 public:
  Recorder(Walk& walk, const std::string& model, const Options& options, RoundedStore* store)
      : binding_(walk.runner().weights().binding()), options_(options), store_(store) {
    out_.inventory = binding_.inventory(model);
    out_.samples = std::ssize(walk.items());
    out_.compute = walk.runner().weights().compute() == kernels::Compute::bf16 ? "bf16" : "f32";
    out_.rounding = options.rounding;
    out_.fuse = options.fuse;
    for (const auto& linear : out_.inventory.linears) {
      place_[linear.name] = out_.errors.size();
      out_.errors.emplace_back().name = linear.name;
      if (!options.rounding.plain()) out_.errors.back().rounded.emplace();
    }
  }

  void see(const Tap& tap) {
    std::optional<TapRounder> rounder;
    const bool finite = finite_rows(tap);
    if (!finite && !options_.allow_nonfinite)
      fail("{}: what comes into it is NaN or infinite on these inputs; look for weights that are not finite, or go on "
           "with --allow-nonfinite",
           tap.readers[0]->name);
    for (const model::Linear* linear : tap.readers) {
      if (!options_.rounding.plain() && finite && !rounder) rounder.emplace(tap, options_.rounding, binding_);
      finish(*linear, tap, rounder ? &*rounder : nullptr);
    }
  }

  /// What was found so far, for a journal.
  io::Json found() const { return {{"record", records::to_json(out_)}, {"finished", finished_}}; }
  void restore(const io::Json& found) {
    out_ = records::measurements_from_json(found.at("record"), "journal");
    finished_ = found.at("finished").get<std::set<std::string>>();
  }

  /// Linears that no input reached (the tower, when all data is text) have a weight error alone.
  records::Measurements result(const std::array<int64_t, 2>& rows) {
    for (const model::Linear* linear : model::linears(binding_.spec()))
      if (!finished_.contains(linear->name)) finish(*linear, {}, nullptr);
    out_.rows = rows;
    return std::move(out_);
  }

 private:
  void finish(const model::Linear& linear, const Tap& tap, const TapRounder* rounder) {
    const size_t at = place_.at(linear.name);
    records::LinearErrors& errors = out_.errors[at];
    errors = {};
    errors.name = linear.name;
    finished_.insert(linear.name);
    int64_t& bytes4 = out_.inventory.linears[at].bytes4;
    if (!can_round(binding_, linear, options_.allow_nonfinite)) {
      bytes4 = out_.inventory.linears[at].bytes16;
      if (!options_.rounding.plain()) errors.rounded = {.bytes4 = bytes4, .weight = 0, .activation = {}};
      return;
    }
    Tensor buffer;
    const TensorView weight = binding_.weight(linear, buffer);
    const Matrix w = as_float(weight);
    const std::array<double, 2> signal = signals(w.view(), tap);
    plain_errors(linear, weight, w, tap, signal, errors, bytes4);
    if (options_.rounding.plain()) return;
    const quant::Packed4 packed = rounder ? rounder->round(weight) : quant::encode4(weight, quant::Format::nf4, true);
    store_->put(linear.name, packed);
    const Tensor decoded = quant::decode4(packed);
    errors.rounded = {
        .bytes4 = stored_bytes(linear, packed),
        .weight = quant::weight_error(weight, decoded.view()).relative,
        .activation = activation_errors(difference(w, as_float(decoded.view())).view(), tap, signal)};
  }

  static void plain_errors(const model::Linear& linear, const TensorView& weight, const Matrix& w, const Tap& tap,
                           const std::array<double, 2>& signal, records::LinearErrors& errors, int64_t& bytes4) {
    const quant::Packed4 packed = quant::encode4(weight, quant::Format::nf4, true);
    const Tensor decoded = quant::decode4(packed);
    bytes4 = stored_bytes(linear, packed);
    const quant::WeightError error = quant::weight_error(weight, decoded.view());
    errors.weight = error.relative;
    errors.largest_block = error.largest_block;
    const Matrix d = difference(w, as_float(decoded.view()));
    errors.activation = activation_errors(d.view(), tap, signal);
    for (const model::Slice& slice : linear.slices) {
      const ConstMatrix rows = w.view().row_range(slice.begin, slice.rows);
      const ConstMatrix noise = d.view().row_range(slice.begin, slice.rows);
      const double norm = frobenius(rows);
      errors.slices.push_back({.role = slice.role,
                               .weight = norm > 0 ? frobenius(noise) / norm : 0,
                               .activation = activation_errors(noise, tap, signals(rows, tap))});
    }
  }

  const model::Binding& binding_;
  const Options& options_;
  RoundedStore* store_;
  records::Measurements out_;
  std::map<std::string, size_t> place_;
  std::set<std::string> finished_;
};

}  // namespace

records::Measurements measure(Walk& walk, const std::string& model, const Options& options, RoundedStore* store) {
  NIBBLE_CHECK(options.rounding.plain() || store);
  const std::string name = "measure";
  if (options.journal)
    if (const io::Json* known = options.journal->find(name))
      return records::measurements_from_json(*known, name);
  Recorder recorder(walk, model, options, store);
  const Keeping keeping{.journal = options.journal,
                        .walk = name,
                        .more = [&] { return recorder.found(); },
                        .restore = [&](const io::Json& found) { recorder.restore(found); }};
  walk_taps(walk, name, keeping, [&](const Tap& tap) { recorder.see(tap); });
  records::Measurements out = recorder.result(walk.rows());
  if (options.journal) {
    options.journal->keep(name, records::to_json(out));
    options.journal->settle();
  }
  return out;
}

void round_linears(Walk& walk, const records::Rounding& rounding, const std::set<std::string>& names,
                   RoundedStore& store, Journal* journal) {
  const model::Binding& binding = walk.runner().weights().binding();
  const Keeping keeping{.journal = journal,
                        .walk = fmt::format("round#{}", sha256(fmt::format("{}", fmt::join(names, "\n"))))};
  walk_taps(walk, "round", keeping, [&](const Tap& tap) {
    std::optional<TapRounder> rounder;
    for (const model::Linear* linear : tap.readers) {
      if (!names.contains(linear->name) || store.has(linear->name) || !finite_rows(tap)) continue;
      Tensor buffer;
      const TensorView weight = binding.weight(*linear, buffer);
      if (quant::find_nonfinite(weight)) continue;
      if (!rounder) rounder.emplace(tap, rounding, binding);
      store.put(linear->name, rounder->round(weight));
    }
  });
  for (const model::Linear* linear : model::linears(binding.spec())) {
    if (!names.contains(linear->name) || store.has(linear->name)) continue;
    Tensor buffer;
    const TensorView weight = binding.weight(*linear, buffer);
    if (!quant::find_nonfinite(weight)) store.put(linear->name, quant::encode4(weight, quant::Format::nf4, true));
  }
}

}  // namespace nibble::measure
