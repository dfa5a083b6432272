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

/// Hears one tap, and wants nothing of the pass behind it.
class TapListener : public run::Observer {
 public:
  using Heard = std::function<void(ConstMatrix, std::span<const Modality>)>;

  TapListener(const std::string& tap, Heard heard) : tap_(tap), heard_(std::move(heard)) {}

  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const Modality> modality) override {
    enough_ = readers[0]->tap == tap_;
    if (enough_) heard_(x, modality);
  }
  bool enough() const override { return enough_; }

 private:
  const std::string& tap_;
  Heard heard_;
  bool enough_ = false;
};

Matrix copy_of(ConstMatrix m) {
  Matrix out(m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) std::copy_n(m.row(r), m.cols, out.row(r));
  return out;
}

/// Rows of one modality.
Matrix picked(ConstMatrix m, std::span<const Modality> modality, Modality wanted) {
  Matrix out(std::count(modality.begin(), modality.end(), wanted), m.cols);
  int64_t next = 0;
  for (int64_t r = 0; r < m.rows; ++r)
    if (modality[static_cast<size_t>(r)] == wanted) std::copy_n(m.row(r), m.cols, out.row(next++));
  return out;
}

/// What the inputs Y of a tap tell beside those X of the 16-bit model: Y'Y, and the drift (X - Y)'Y, by modality.
struct Drift {
  std::array<Matrix, 2> gram, drift;
  std::array<int64_t, 2> rows{};

  void add(ConstMatrix x, ConstMatrix y, std::span<const Modality> modality) {
    for (const Modality m : records::kModalities) {
      Matrix from = picked(x, modality, m);
      const Matrix to = picked(y, modality, m);
      if (to.rows() == 0) continue;
      const auto at = static_cast<size_t>(m);
      if (rows[at] == 0) {
        gram[at] = Matrix::zeros(y.cols, y.cols);
        drift[at] = Matrix::zeros(y.cols, y.cols);
      }
      rows[at] += to.rows();
      for (int64_t i = 0; i < to.rows() * to.cols(); ++i) from.data()[i] -= to.data()[i];
      kernels::add_gram(to.view(), gram[at].mut());
      kernels::add_cross(from.view(), to.view(), drift[at].mut());
    }
  }

  bool finite() const {
    for (size_t m = 0; m < 2; ++m)
      for (const Matrix* matrix : {&gram[m], &drift[m]})
        if (!std::all_of(matrix->data(), matrix->data() + matrix->rows() * matrix->cols(),
                         [](float v) { return std::isfinite(v); }))
          return false;
    return true;
  }
};

class InOrder {
 public:
  InOrder(Walk& walk, const records::Rounding& rounding, const std::map<std::string, Stored>& how, RoundedStore& store)
      : binding_(walk.runner().weights().binding()),
        rounding_(rounding),
        how_(how),
        store_(store),
        source_(walk),
        weights_(binding_, walk.runner().weights().compute()),
        runner_(weights_),
        written_(runner_, walk.items()) {}

  void run(Journal* journal) {
    const std::string name = name_of();
    if (journal && journal->find(name)) return;
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
    journal->keep(name, true);
    journal->settle();
  }

 private:
  /// What the journal calls this: codes depend on how every linear is stored.
  std::string name_of() const {
    std::string text;
    for (const auto& [linear, stored] : how_) text += fmt::format("{} {}\n", linear, static_cast<int>(stored));
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
    Drift drift;
    for (size_t batch = 0; batch < source_.batches(); ++batch) {
      std::vector<Matrix> inputs;
      TapListener meant(readers[0]->tap, [&](ConstMatrix x, auto) { inputs.push_back(copy_of(x)); });
      source_.look(step, batch, states[0], meant);
      size_t next = 0;
      TapListener real(readers[0]->tap, [&](ConstMatrix y, std::span<const Modality> modality) {
        drift.add(inputs.at(next++).view(), y, modality);
      });
      written_.look(step, batch, states[1], real);
    }
    const bool usable = drift.rows[0] + drift.rows[1] > 0 && drift.finite();
    const std::array<double, 2> weights = modality_weights(drift.rows, signal(readers, drift), rounding_.mix);
    const Matrix gram = mixed(drift.gram, weights, rounding_.damping), cross = mixed(drift.drift, weights, {});
    drift = {};
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
                   kernels::round4(weight, gram.view(), options, cross.view()));
    }
  }

  /// |YW'|^2 of all readers by modality, where there are two.
  std::array<double, 2> signal(const std::vector<const model::Linear*>& readers, const Drift& drift) const {
    std::array<double, 2> out{};
    if (drift.rows[0] == 0 || drift.rows[1] == 0) return out;
    for (const model::Linear* linear : readers) {
      Tensor buffer;
      const TensorView weight = binding_.weight(*linear, buffer);
      Matrix w(linear->out, linear->in);
      to_float(weight, w.data());
      for (size_t m = 0; m < 2; ++m) out[m] += kernels::gram_norm(w.view(), drift.gram[m].view());
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

void round_in_order(Walk& walk, const records::Rounding& rounding, const std::map<std::string, Stored>& how,
                    RoundedStore& store, Journal* journal) {
  InOrder(walk, rounding, how, store).run(journal);
}

}  // namespace nibble::measure
