#include "measure/measure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "kernels/rounding.h"
#include "measure/taps.h"

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

/// Rows [begin, begin + n) of a weight.
TensorView rows_of(const TensorView& tensor, int64_t begin, int64_t n) {
  return {
      tensor.dtype, {n, tensor.shape[1]}, tensor.data + begin * tensor.shape[1] * dtype_size(tensor.dtype)};
}

Matrix as_float(const TensorView& tensor) {
  Matrix out(tensor.shape[0], tensor.shape[1]);
  to_float(tensor, out.data());
  return out;
}

/// w - q, in fp32.
Matrix difference(const TensorView& w, const TensorView& q) {
  constexpr int64_t kGrain = 64;
  Matrix out(w.shape[0], w.shape[1]);
  parallel_ranges(out.rows(), kGrain, [&](int64_t begin, int64_t end) {
    const Matrix rows = as_float(rows_of(q, begin, end - begin));
    float* to = out.row(begin);
    to_float(rows_of(w, begin, end - begin), to);
    for (int64_t i = 0; i < rows.rows() * rows.cols(); ++i) to[i] -= rows.data()[i];
  });
  return out;
}

/// Errors of outputs [begin, begin + n) of a linear. `noises` of all its outputs, or null: then from d, these
/// rows of W - Q(W), and the tap's Gram matrices.
std::array<records::ActivationError, 2> activation_errors(const model::Linear& linear, const Tap& tap,
                                                          int64_t begin, int64_t n, const Squares* noises,
                                                          ConstMatrix d) {
  std::array<records::ActivationError, 2> out;
  for (size_t m = 0; m < 2; ++m) {
    if (tap.rows[m] == 0) continue;
    const double signal = sum_of(tap.signal.at(linear.name)[m], begin, n);
    const double noise = noises ? sum_of((*noises)[m], begin, n) : kernels::gram_norm(d, tap.gram[m].view());
    // Behind a weight that is not finite there is nothing to measure.
    if (std::isfinite(noise) && std::isfinite(signal))
      out[m] = {.rows = tap.rows[m], .noise = noise, .signal = signal};
  }
  return out;
}

double frobenius(ConstMatrix m) {
  double sum = 0;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) sum += static_cast<double>(m.row(r)[c]) * m.row(r)[c];
  return std::sqrt(sum);
}

/// W - Q(W) for plain codes.
Matrix plain_difference(const TensorView& weight) {
  return difference(weight, quant::decode4(quant::encode4(weight, quant::Format::nf4, true)).view());
}

/// What the Gram matrices of the modalities say of d; 0 where there are no rows.
std::array<double, 2> norms(const Tap& tap, ConstMatrix d) {
  std::array<double, 2> out{};
  for (size_t m = 0; m < 2; ++m)
    if (tap.rows[m] > 0) out[m] = kernels::gram_norm(d, tap.gram[m].view());
  return out;
}

/// The activation errors `plain` of a weight for other codes, where there are no more than the diagonals of
/// the Gram matrices: as the norms by these tell plain codes from the others.
std::array<records::ActivationError, 2> estimated_errors(std::array<records::ActivationError, 2> plain,
                                                         const std::array<double, 2>& plain_norms,
                                                         const std::array<double, 2>& other_norms) {
  for (size_t m = 0; m < 2; ++m) {
    if (plain[m].rows == 0) continue;
    if (!std::isfinite(plain_norms[m]) || !std::isfinite(other_norms[m]))
      plain[m] = {};
    else if (plain_norms[m] > 0)
      plain[m].noise *= other_norms[m] / plain_norms[m];
  }
  return plain;
}

/// False where NaN or infinity came up, also in a Gram matrix, whose diagonal shows it.
bool finite_rows(const Tap& tap) {
  if (!tap.finite) return false;
  for (const Matrix& gram : tap.gram)
    for (int64_t i = 0; i < gram.cols(); ++i)
      if (!std::isfinite(kernels::on_diagonal(gram.view(), i))) return false;
  return true;
}

/// The rounder of all readers of one tap by their common Gram matrix.
class TapRounder {
 public:
  TapRounder(const Tap& tap, const records::Rounding& rounding)
      : rounding_(round4_options(rounding)), gram_(mixed_gram(tap, rounding)) {}

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
      if (!options.rounding
               .plain())  // a likely size until it is rounded: a journal's record holds no linear of none
        out_.errors.back().rounded = {.bytes4 = linear.bytes4, .weight = 0, .activation = {}};
    }
  }

  void see(const Tap& tap) {
    std::optional<TapRounder> rounder;
    const bool finite = finite_rows(tap);
    if (!finite && !options_.allow_nonfinite) refuse_rows(*tap.readers[0]);
    for (const model::Linear* linear : tap.readers) {
      if (!options_.rounding.plain() && finite && !rounder) rounder.emplace(tap, options_.rounding);
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

  /// Rounds a linear plainly, records what needs no inputs, and returns W - Q(W); empty for a weight that
  /// stays.
  Matrix round_plainly(const model::Linear& linear) {
    const size_t at = place_.at(linear.name);
    records::LinearErrors& errors = out_.errors[at];
    errors = {};
    errors.name = linear.name;
    finished_.insert(linear.name);
    int64_t& bytes4 = out_.inventory.linears[at].bytes4;
    if (!can_round(binding_, linear, options_.allow_nonfinite)) {
      bytes4 = out_.inventory.linears[at].bytes16;
      if (!options_.rounding.plain()) errors.rounded = {.bytes4 = bytes4, .weight = 0, .activation = {}};
      left_out_.insert(linear.name);
      return {};
    }
    Tensor buffer;
    const TensorView weight = binding_.weight(linear, buffer);
    const quant::Packed4 packed = quant::encode4(weight, quant::Format::nf4, true);
    const Tensor decoded = quant::decode4(packed);
    bytes4 = stored_bytes(linear, packed);
    const quant::WeightError error = quant::weight_error(weight, decoded.view());
    errors.weight = error.relative;
    errors.largest_block = error.largest_block;
    Matrix d = difference(weight, decoded.view());
    for (const model::Slice& slice : linear.slices) {
      const double norm = frobenius(as_float(rows_of(weight, slice.begin, slice.rows)).view());
      const double noise = frobenius(d.view().row_range(slice.begin, slice.rows));
      errors.slices.push_back({.role = slice.role, .weight = norm > 0 ? noise / norm : 0, .activation = {}});
    }
    return d;
  }

 private:
  /// Throws Error for what comes into a linear that is not finite: names the tensor that it comes from where
  /// one is not finite itself.
  [[noreturn]] void refuse_rows(const model::Linear& linear) const {
    const auto unused = binding_.unused_tensors();
    const io::Checkpoint& checkpoint = binding_.checkpoint();
    for (const auto& [name, info] : checkpoint.tensors()) {
      if (std::find(unused.begin(), unused.end(), name) != unused.end()) continue;
      binding_.check_finite(name);
      checkpoint.drop(checkpoint.tensor(name));
    }
    fail(
        "{}: what comes into it is NaN or infinite on these inputs, though no weight is; leave out the input "
        "that "
        "makes it so, or go on with --allow-nonfinite",
        linear.name);
  }

  void finish(const model::Linear& linear, const Tap& tap, const TapRounder* rounder) {
    const auto noises = tap.noise.find(linear.name);
    const bool multiplied = noises != tap.noise.end();
    Matrix d = multiplied ? Matrix() : round_plainly(linear);
    if (left_out_.contains(linear.name)) return;
    records::LinearErrors& errors = out_.errors[place_.at(linear.name)];
    const auto plain = [&](int64_t begin, int64_t n) {
      return activation_errors(linear, tap, begin, n, multiplied ? &noises->second : nullptr,
                               multiplied ? ConstMatrix() : d.view().row_range(begin, n));
    };
    errors.activation = plain(0, linear.out);
    for (size_t i = 0; i < linear.slices.size(); ++i)
      errors.slices[i].activation = plain(linear.slices[i].begin, linear.slices[i].rows);
    if (options_.rounding.plain()) return;
    const bool narrow = std::any_of(tap.gram.begin(), tap.gram.end(),
                                    [](const Matrix& gram) { return kernels::is_diagonal(gram.view()); });
    Tensor buffer;
    const TensorView weight = binding_.weight(linear, buffer);
    // One difference at a time is in memory: each is twice the weight.
    std::array<double, 2> plain_norms{};
    if (narrow) {
      if (multiplied) d = plain_difference(weight);
      plain_norms = norms(tap, d.view());
    }
    d = Matrix();
    const quant::Packed4 packed =
        rounder ? rounder->round(weight) : quant::encode4(weight, quant::Format::nf4, true);
    store_->put(linear.name, packed);
    records::RoundedErrors rounded{.bytes4 = stored_bytes(linear, packed), .weight = 0, .activation = {}};
    Matrix lost;
    {
      const Tensor decoded = quant::decode4(packed);
      rounded.weight = quant::weight_error(weight, decoded.view()).relative;
      lost = difference(weight, decoded.view());
    }
    rounded.activation = narrow ? estimated_errors(errors.activation, plain_norms, norms(tap, lost.view()))
                                : activation_errors(linear, tap, 0, linear.out, nullptr, lost.view());
    errors.rounded = rounded;
  }

  const model::Binding& binding_;
  const Options& options_;
  RoundedStore* store_;
  records::Measurements out_;
  std::map<std::string, size_t> place_;
  std::set<std::string> finished_;
  std::set<std::string> left_out_;
};

}  // namespace

records::Measurements measure(Walk& walk, const std::string& model, const Options& options,
                              RoundedStore* store) {
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
  const Wanted wanted{
      .grams = !options.rounding.plain(),
      .difference = [&](const model::Linear& linear) { return recorder.round_plainly(linear); },
      .widest = options.rounding.widest};
  walk_taps(walk, name, wanted, keeping, [&](const Tap& tap) { recorder.see(tap); });
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
  walk_taps(walk, "round", {.grams = true, .difference = {}, .widest = rounding.widest}, keeping,
            [&](const Tap& tap) {
              std::optional<TapRounder> rounder;
              for (const model::Linear* linear : tap.readers) {
                if (!names.contains(linear->name) || store.has(linear->name) || !finite_rows(tap)) continue;
                Tensor buffer;
                const TensorView weight = binding.weight(*linear, buffer);
                if (quant::find_nonfinite(weight)) continue;
                if (!rounder) rounder.emplace(tap, rounding);
                store.put(linear->name, rounder->round(weight));
              }
            });
  for (const model::Linear* linear : model::linears(binding.spec())) {
    if (!names.contains(linear->name) || store.has(linear->name)) continue;
    Tensor buffer;
    const TensorView weight = binding.weight(*linear, buffer);
    if (!quant::find_nonfinite(weight))
      store.put(linear->name, quant::encode4(weight, quant::Format::nf4, true));
  }
}

}  // namespace nibble::measure
