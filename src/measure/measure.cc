#include "measure/measure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"
#include "data/answers.h"
#include "run/forward.h"

namespace nibble::measure {
namespace {

using records::Modality;

/// Gram matrices of the taps of one block, by modality.
class GramObserver : public run::Observer {
 public:
  struct Tap {
    std::vector<const model::Linear*> readers;
    std::array<Matrix, 2> gram;
    std::array<int64_t, 2> rows{};
  };

  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const Modality> modality) override {
    Tap& tap = taps_[readers[0]->tap];
    tap.readers.assign(readers.begin(), readers.end());
    for (Modality m : records::kModalities) add(tap, x, modality, m);
  }

  const std::map<std::string, Tap>& taps() const { return taps_; }
  void clear() { taps_.clear(); }

 private:
  static void add(Tap& tap, ConstMatrix x, std::span<const Modality> modality, Modality m) {
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

  std::map<std::string, Tap> taps_;
};

/// A linear rounded to NF4 with double quantization, and back.
struct Rounded {
  Tensor buffer;  // stands before what may view it
  TensorView original;
  Tensor decoded;
  int64_t bytes = 0;  // of all its tensors in a file

  Rounded(const model::Binding& binding, const model::Linear& linear)
      : original(binding.weight(linear, buffer)) {
    const quant::Packed4 packed = quant::encode4(original, quant::Format::nf4, true);
    decoded = quant::decode4(packed);
    bytes = model::nf4_bytes(linear.out, linear.in, original.dtype, packed.nested->offset);
  }
};

/// False for a weight with NaN or infinity, which stays as it is; throws unless that is allowed.
bool can_round(const model::Binding& binding, const model::Linear& linear, bool allow_nonfinite) {
  const std::string weight = binding.linear(linear).stored + ".weight";
  if (!allow_nonfinite) binding.check_finite(weight);
  return !allow_nonfinite || !quant::find_nonfinite(binding.checkpoint().tensor(weight));
}

/// Errors of rows w of a weight that became w - d, from the Gram matrices of their tap.
std::array<records::ActivationError, 2> activation_errors(ConstMatrix w, ConstMatrix d,
                                                          const GramObserver::Tap& tap) {
  std::array<records::ActivationError, 2> out;
  for (size_t m = 0; m < tap.rows.size(); ++m) {
    if (tap.rows[m] == 0) continue;
    const double noise = kernels::gram_norm(d, tap.gram[m].view());
    const double signal = kernels::gram_norm(w, tap.gram[m].view());
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

/// One measuring pass. Errors of a block are worked out as soon as all items went through it.
class Pass {
 public:
  Pass(run::Weights& weights, std::span<const data::Item> items, const std::string& model,
       bool allow_nonfinite)
      : weights_(weights),
        binding_(weights.binding()),
        runner_(weights, &observer_),
        items_(items),
        allow_nonfinite_(allow_nonfinite),
        progress_("measure", blocks(), "blocks") {
    out_.inventory = binding_.inventory(model);
    out_.samples = static_cast<int64_t>(items.size());
    out_.compute = weights.compute() == kernels::Compute::bf16 ? "bf16" : "f32";
    for (size_t i = 0; i < out_.inventory.linears.size(); ++i) place_[out_.inventory.linears[i].name] = i;
    out_.errors.resize(out_.inventory.linears.size());
  }

  records::Measurements run() {
    std::vector<run::Prompt> prompts;
    for (const data::Item& item : items_) prompts.push_back(item.fed());
    std::vector<run::Sequence> sequences = start(prompts);
    run_text(sequences);
    finish_unreached();
    return std::move(out_);
  }

 private:
  int64_t blocks() const {
    const model::Spec& spec = binding_.spec();
    return (spec.vision ? spec.vision->blocks_used + 1 : 0) +
           static_cast<int64_t>(spec.text.stack.blocks.size());
  }

  /// Sends all batches through the first `blocks` blocks of a stack, block by block.
  void run_stack(const model::Stack& stack, int64_t blocks, std::span<run::Batch> batches) {
    for (int64_t i = 0; i < blocks; ++i) {
      for (run::Batch& batch : batches) run::run_block(stack, i, batch, weights_, &observer_);
      finish_taps();
      weights_.release(stack.blocks[static_cast<size_t>(i)]);
      progress_.advance();
    }
  }

  /// Sequences of the prompts, their pictures through the tower.
  std::vector<run::Sequence> start(const std::vector<run::Prompt>& prompts) {
    std::vector<run::Sequence> out;
    std::vector<const run::Prompt*> pointers;
    for (const run::Prompt& prompt : prompts) {
      out.push_back(runner_.sequence(prompt));
      pointers.push_back(&prompt);
    }
    std::vector<run::Batch> towers;
    std::vector<std::pair<size_t, size_t>> owners;
    for (const auto& range : data::batches(items_, data::kBatchRows)) {
      std::vector<const run::Picture*> pictures;
      for (size_t i = range.first; i < range.second; ++i)
        for (const run::Picture& p : prompts[i].pictures) pictures.push_back(&p);
      if (pictures.empty()) continue;
      towers.push_back(runner_.embed_patches(pictures));
      owners.push_back(range);
      out_.rows[0] += towers.back().hidden.rows();
    }
    if (towers.empty()) return out;
    run_stack(binding_.spec().vision->stack, binding_.spec().vision->blocks_used, towers);
    for (size_t k = 0; k < towers.size(); ++k) {
      const auto [begin, end] = owners[k];
      runner_.share_features(runner_.connect(towers[k]), std::span(out).subspan(begin, end - begin),
                             std::span<const run::Prompt* const>(pointers).subspan(begin, end - begin));
    }
    finish_taps();
    progress_.advance();
    return out;
  }

  void run_text(std::vector<run::Sequence>& sequences) {
    std::vector<run::Batch> batches;
    for (const auto& [begin, end] : data::batches(items_, data::kBatchRows)) {
      std::vector<run::Sequence*> pointers;
      for (size_t i = begin; i < end; ++i) pointers.push_back(&sequences[i]);
      batches.push_back(runner_.embed(pointers, false));
      const auto& modality = batches.back().modality;
      out_.rows[1] += std::count(modality.begin(), modality.end(), Modality::text);
    }
    const model::Stack& stack = binding_.spec().text.stack;
    run_stack(stack, static_cast<int64_t>(stack.blocks.size()), batches);
  }

  /// Errors of all linears whose taps were seen since the last call.
  void finish_taps() {
    for (const auto& [name, tap] : observer_.taps())
      for (const model::Linear* linear : tap.readers) finish(*linear, tap);
    observer_.clear();
  }

  void finish(const model::Linear& linear, const GramObserver::Tap& tap) {
    const size_t at = place_.at(linear.name);
    records::LinearErrors& errors = out_.errors[at];
    errors = {};
    errors.name = linear.name;
    if (!can_round(binding_, linear, allow_nonfinite_)) {
      out_.inventory.linears[at].bytes4 = out_.inventory.linears[at].bytes16;
      return;
    }
    const Rounded rounded(binding_, linear);
    out_.inventory.linears[at].bytes4 = rounded.bytes;
    const quant::WeightError weight = quant::weight_error(rounded.original, rounded.decoded.view());
    errors.weight = weight.relative;
    errors.largest_block = weight.largest_block;
    Matrix w(linear.out, linear.in), d(linear.out, linear.in);
    to_float(rounded.original, w.data());
    to_float(rounded.decoded.view(), d.data());
    for (int64_t i = 0; i < linear.out * linear.in; ++i) d.data()[i] = w.data()[i] - d.data()[i];
    errors.activation = activation_errors(w.view(), d.view(), tap);
    for (const model::Slice& slice : linear.slices) {
      const ConstMatrix rows = w.view().row_range(slice.begin, slice.rows);
      const ConstMatrix noise = d.view().row_range(slice.begin, slice.rows);
      const double norm = frobenius(rows);
      errors.slices.push_back({.role = slice.role,
                               .weight = norm > 0 ? frobenius(noise) / norm : 0,
                               .activation = activation_errors(rows, noise, tap)});
    }
  }

  /// Linears that no item reached (the tower, when all data is text) have a weight error alone.
  void finish_unreached() {
    for (const model::Linear* linear : model::linears(binding_.spec()))
      if (out_.errors[place_.at(linear->name)].name.empty()) finish(*linear, {});
  }

  run::Weights& weights_;
  const model::Binding& binding_;
  GramObserver observer_;
  run::Runner runner_;
  std::span<const data::Item> items_;
  bool allow_nonfinite_;
  records::Measurements out_;
  std::map<std::string, size_t> place_;
  Progress progress_;
};

}  // namespace

records::Measurements measure(run::Weights& weights, std::span<const data::Item> items,
                              const std::string& model, bool allow_nonfinite) {
  if (items.empty()) fail("there is nothing to measure on; give samples, texts or pictures with --data");
  return Pass(weights, items, model, allow_nonfinite).run();
}

void exact_sizes(const model::Binding& binding, records::Inventory& inventory, bool allow_nonfinite) {
  const auto linears = model::linears(binding.spec());
  NIBBLE_CHECK(linears.size() == inventory.linears.size());
  for (size_t i = 0; i < linears.size(); ++i)
    inventory.linears[i].bytes4 = can_round(binding, *linears[i], allow_nonfinite)
                                      ? Rounded(binding, *linears[i]).bytes
                                      : inventory.linears[i].bytes16;
}

}  // namespace nibble::measure
