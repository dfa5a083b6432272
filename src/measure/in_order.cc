#include "measure/in_order.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "base/text.h"
#include "measure/taps.h"

namespace nibble::measure {
namespace {

using run::Modality;

/// What one tap tells: its inputs, what the outputs are added to (empty where that is unknown), and
/// modalities of rows.
struct Heard {
  ConstMatrix x, stream;
  std::span<const Modality> modality;
};

/// Hears one tap, and wants nothing of the pass behind it.
class TapListener : public run::Observer {
 public:
  TapListener(const std::string& tap, std::function<void(const Heard&)> heard)
      : tap_(tap), heard_(std::move(heard)) {}

  void stream(ConstMatrix hidden) override { stream_ = hidden; }
  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const Modality> modality) override {
    enough_ = readers[0]->tap == tap_;
    if (enough_) heard_({x, stream_, modality});
    stream_ = {};
  }
  bool enough() const override { return enough_; }

 private:
  const std::string& tap_;
  std::function<void(const Heard&)> heard_;
  ConstMatrix stream_{};
  bool enough_ = false;
};

Matrix copy_of(ConstMatrix m) {
  Matrix out(m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) std::copy_n(m.row(r), m.cols, out.row(r));
  return out;
}

/// to (n, m) += (a - b)' y.
void add_difference(Matrix a, const Matrix& b, const Matrix& y, Matrix& to) {
  if (to.rows() == 0) to = Matrix::zeros(a.cols(), y.cols());
  for (int64_t i = 0; i < b.rows() * b.cols(); ++i) a.data()[i] -= b.data()[i];
  kernels::add_cross(a.view(), y.view(), to.mut());
}

/// What a tap of the model as it is written (inputs Y, added to S) tells beside that of the 16-bit model (X,
/// R), by modality: Y'Y, (X - Y)'Y and, where the outputs are added as they are, (R - S)'Y.
struct Drifts {
  int64_t widest;  // beyond which there is the diagonal of Y'Y alone
  std::array<Matrix, 2> gram = {}, input = {}, stream = {};
  std::array<int64_t, 2> rows{};

  void add(ConstMatrix x, ConstMatrix r, const Heard& real) {
    for (const Modality m : records::kModalities) {
      const auto at = static_cast<size_t>(m);
      const Matrix y = rows_of_modality(real.x, real.modality, m);
      if (y.rows() == 0) continue;
      rows[at] += y.rows();
      if (gram[at].rows() == 0) gram[at] = empty_gram(y.cols(), widest);
      kernels::add_gram(y.view(), gram[at].mut());
      if (kernels::is_diagonal(gram[at].view())) continue;
      add_difference(rows_of_modality(x, real.modality, m), y, y, input[at]);
      if (r.rows > 0)
        add_difference(rows_of_modality(r, real.modality, m), rows_of_modality(real.stream, real.modality, m),
                       y, stream[at]);
    }
  }

  bool finite() const {
    for (size_t m = 0; m < 2; ++m)
      for (const Matrix* matrix : {&gram[m], &input[m], &stream[m]})
        if (!std::all_of(matrix->data(), matrix->data() + matrix->rows() * matrix->cols(),
                         [](float v) { return std::isfinite(v); }))
          return false;
    return true;
  }
};

class InOrder {
 public:
  InOrder(Walk& walk, const records::Rounding& rounding, const std::map<std::string, Stored>& how,
          RoundedStore& store)
      : binding_(walk.runner().weights().binding()),
        rounding_(rounding),
        how_(how),
        store_(store),
        source_(walk),
        weights_(binding_, walk.runner().weights().compute()),
        runner_(weights_),
        written_(runner_, walk.items()) {}

  void run(Journal* journal) {
    // Codes of different plans have one place, so only those of the last one are known.
    const std::string name = name_of(), last = "round in order";
    if (journal) {
      const io::Json* known = journal->find(last);
      if (known && *known == name) return;
      journal->keep(last, "");
    }
    const size_t steps = source_.steps().size();
    std::array<States, 2> states;
    auto place = journal ? journal->take(name) : std::nullopt;
    size_t step = 0;
    if (place && place->states.size() == 2 && place->step <= steps) {
      step = place->step;
      source_.go_to(step);
      written_.go_to(step);
      states = {std::move(place->states[0]), std::move(place->states[1])};
    } else {
      states = {source_.start(), written_.start()};
    }
    Progress progress("round in order", static_cast<int64_t>(steps), "blocks");
    progress.advance(static_cast<int64_t>(step));
    for (; step < steps; ++step) {
      round_step(step, states);
      progress.advance();
      if (journal) journal->pass(name, step + 1, steps, {{&states[0], &states[1]}});
    }
    std::set<std::string> reached;
    for (const Step& of : source_.steps())
      for (const model::Linear* linear : of.linears) reached.insert(linear->name);
    for (const model::Linear* linear : model::linears(binding_.spec()))
      if (rounds(*linear) && !reached.contains(linear->name)) put_plain(*linear);
    give_back_freed_memory();
    if (!journal) return;
    journal->keep(last, name);
    journal->settle();
  }

 private:
  /// What the journal calls this: codes depend on how every linear is stored.
  std::string name_of() const {
    std::string text;
    for (const auto& [linear, stored] : how_)
      text += fmt::format("{} {}\n", linear, static_cast<int>(stored));
    return "round in order#" + sha256(text);
  }

  bool rounds(const model::Linear& linear) const { return how_.at(linear.name) == Stored::rounded; }

  void round_step(size_t step, std::array<States, 2>& states) {
    std::vector<std::vector<const model::Linear*>> taps;
    for (const model::Linear* linear : source_.steps()[step].linears) {
      if (taps.empty() || taps.back()[0]->tap != linear->tap) taps.emplace_back();
      taps.back().push_back(linear);
    }
    for (const auto& readers : taps) {
      if (std::any_of(readers.begin(), readers.end(), [&](const auto* l) { return rounds(*l); }))
        round_tap(step, readers, states);
      for (const model::Linear* linear : readers) use(*linear);
    }
    for (size_t i = 0; i < 2; ++i) {
      Walk& walk = i == 0 ? source_ : written_;
      States* branch = &states[i];
      walk.advance(step, {&branch, 1}, nullptr);
      for (const model::Linear* linear : walk.steps()[step].linears)
        walk.runner().weights().replace(linear->name, {});
      walk.release(step);
    }
  }

  void round_tap(size_t step, const std::vector<const model::Linear*>& readers,
                 const std::array<States, 2>& states) {
    Drifts drifts{.widest = rounding_.widest};
    const bool wide = is_wide(readers[0]->in, rounding_.widest);
    for (size_t batch = 0; batch < source_.batches(); ++batch) {
      std::vector<std::array<Matrix, 2>> heard;  // inputs, and what outputs are added to
      TapListener meant(readers[0]->tap, [&](const Heard& h) {
        heard.push_back({copy_of(h.x), copy_of(h.stream)});
      });
      if (!wide) source_.look(step, batch, states[0], meant);
      size_t next = 0;
      TapListener real(readers[0]->tap, [&](const Heard& h) {
        if (wide) return drifts.add({}, {}, h);
        const auto& [x, r] = heard.at(next++);
        drifts.add(x.view(), r.view(), h);
      });
      written_.look(step, batch, states[1], real);
    }
    const bool usable = drifts.rows[0] + drifts.rows[1] > 0 && drifts.finite();
    const std::array<double, 2> weights =
        modality_weights(drifts.rows, signal(readers, drifts), rounding_.mix);
    const Matrix gram = mixed(std::move(drifts.gram), weights, rounding_.damping);
    const double share = share_of_drift(source_.rows()[0] > 0);
    const std::array<double, 2> shares = {share * weights[0], share * weights[1]};
    const Matrix input = mixed(std::move(drifts.input), shares, {});
    const Matrix stream = mixed(std::move(drifts.stream), shares, {});
    kernels::RoundingOptions options = round4_options(rounding_);
    options.sweeps = kSweepsInOrder;
    for (const model::Linear* linear : readers) {
      if (!rounds(*linear)) continue;
      Tensor buffer;
      const TensorView weight = binding_.weight(*linear, buffer);
      if (!usable)
        put_plain(*linear);
      else if (!quant::find_nonfinite(weight))
        store_.put(in_order_name(linear->name),
                   kernels::round4(weight, gram.view(), options, {input.view(), stream.view()}));
    }
  }

  /// |YW'|^2 of all readers by modality, where there are two.
  std::array<double, 2> signal(const std::vector<const model::Linear*>& readers, const Drifts& drifts) const {
    std::array<double, 2> out{};
    if (drifts.rows[0] == 0 || drifts.rows[1] == 0) return out;
    for (const model::Linear* linear : readers) {
      Tensor buffer;
      const TensorView weight = binding_.weight(*linear, buffer);
      Matrix w(linear->out, linear->in);
      to_float(weight, w.data());
      for (size_t m = 0; m < 2; ++m) out[m] += kernels::gram_norm(w.view(), drifts.gram[m].view());
    }
    return out;
  }

  void put_plain(const model::Linear& linear) {
    Tensor buffer;
    const TensorView weight = binding_.weight(linear, buffer);
    if (!quant::find_nonfinite(weight))
      store_.put(in_order_name(linear.name), quant::encode4(weight, quant::Format::nf4, true));
  }

  /// From now on the branch of what is written has the linear as that.
  void use(const model::Linear& linear) {
    Stored stored = how_.at(linear.name);
    if (stored == Stored::rounded) stored = Stored::in_order;
    Tensor buffer;
    if (stored != Stored::as_source && quant::find_nonfinite(binding_.weight(linear, buffer)))
      stored = Stored::as_source;
    set_weight(weights_, linear, stored, &store_);
  }

  const model::Binding& binding_;
  const records::Rounding& rounding_;
  const std::map<std::string, Stored>& how_;
  RoundedStore& store_;
  Walk& source_;
  run::Weights weights_;  // as they are written
  run::Runner runner_;
  Walk written_;
};

}  // namespace

int64_t rounding_bytes(const model::Spec& spec, bool both_modalities, int64_t widest) {
  const int64_t modalities = both_modalities ? 2 : 1;
  int64_t most = 0;
  for (const model::Linear* linear : model::linears(spec)) {
    const int64_t square = linear->in * linear->in, weight = linear->out * linear->in;
    if (is_wide(linear->in, widest)) {
      most = std::max(most, 2 * weight);
      continue;
    }
    const int64_t summed = modalities * (2 * square + weight) + std::max(square, weight);
    most = std::max({most, summed, 3 * square + 2 * weight});
  }
  return most * static_cast<int64_t>(sizeof(float));
}

int64_t widest_within(const model::Spec& spec, bool both_modalities, int64_t limit) {
  if (rounding_bytes(spec, both_modalities) <= limit) return 0;
  std::set<int64_t, std::greater<>> widths;
  for (const model::Linear* linear : model::linears(spec)) widths.insert(linear->in);
  for (const int64_t width : widths)
    if (rounding_bytes(spec, both_modalities, width) <= limit) return width;
  return 1;
}

void round_in_order(Walk& walk, const records::Rounding& rounding, const std::map<std::string, Stored>& how,
                    RoundedStore& store, Journal* journal) {
  InOrder(walk, rounding, how, store).run(journal);
}

}  // namespace nibble::measure
