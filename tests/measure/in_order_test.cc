// Rounding in order against the plain way: for every tap the whole model is run, as it is and as it is
// written.
#include "measure/in_order.h"

#include <gtest/gtest.h>

#include "kernels/ref/ref.h"
#include "measure/models.h"
#include "measure/taps.h"
#include "support/temp_folder.h"

namespace nibble::measure {
namespace {

const records::Rounding kRounding{.kind = "feedback", .damping = {0.03, 0.1}, .mix = 0.2, .in_order = true};

/// Every input of one tap in whole passes, by modality, and what outputs are added to.
class Collector : public run::Observer {
 public:
  explicit Collector(std::string tap) : tap_(std::move(tap)) {}

  void stream(ConstMatrix hidden) override { stream_ = hidden; }
  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const run::Modality> modality) override {
    const ConstMatrix stream = std::exchange(stream_, ConstMatrix());
    if (readers[0]->tap != tap_) return;
    for (int64_t r = 0; r < x.rows; ++r) {
      const auto m = static_cast<size_t>(modality[static_cast<size_t>(r)]);
      rows[m].emplace_back(x.row(r), x.row(r) + x.cols);
      if (stream.rows > 0) streams[m].emplace_back(stream.row(r), stream.row(r) + stream.cols);
    }
  }

  std::array<std::vector<std::vector<float>>, 2> rows, streams;

 private:
  std::string tap_;
  ConstMatrix stream_{};
};

Matrix matrix_of(const std::vector<std::vector<float>>& rows) {
  Matrix out(std::ssize(rows), rows.empty() ? 0 : std::ssize(rows[0]));
  for (size_t r = 0; r < rows.size(); ++r)
    std::copy(rows[r].begin(), rows[r].end(), out.row(static_cast<int64_t>(r)));
  return out;
}

/// (a - b)' y.
Matrix cross_of(const Matrix& a, const Matrix& b, const Matrix& y) {
  Matrix difference = Matrix::zeros(a.rows(), a.cols()), out = Matrix::zeros(a.cols(), y.cols());
  for (int64_t i = 0; i < a.rows() * a.cols(); ++i) difference.data()[i] = a.data()[i] - b.data()[i];
  kernels::ref::add_cross(difference.view(), y.view(), out.mut());
  return out;
}

class InOrderFamilies : public testing::TestWithParam<const char*> {
 protected:
  InOrderFamilies() {
    for (const model::Linear* linear : model::linears(model_.binding.spec())) {
      const size_t n = how_.size();
      how_[linear->name] = n % 7 == 3 ? Stored::as_source : n % 5 == 2 ? Stored::plain : Stored::rounded;
    }
  }

  void round(RoundedStore& store) {
    Walk walk(model_.runner, model_.items);
    round_in_order(walk, kRounding, how_, store);
  }

  /// Inputs by modality, then what outputs are added to, where that is known.
  std::array<Matrix, 4> inputs_of(const std::string& tap) {
    Collector collector(tap);
    model_.runner.observe(&collector);
    for (const data::Item& item : model_.items) (void)model_.logits(item);
    model_.runner.observe(nullptr);
    return {matrix_of(collector.rows[0]), matrix_of(collector.rows[1]), matrix_of(collector.streams[0]),
            matrix_of(collector.streams[1])};
  }

  /// What the plain way sees at a tap.
  struct Statistics {
    std::array<Matrix, 4> x, y;
    std::array<double, 2> weights{};
    Matrix gram, input, stream;  // Y'Y, (X - Y)'Y, (R - S)'Y, mixed
    std::vector<float> damping;  // what H has on its diagonal beside Y'Y

    double share = 1;  // of the drift, in it

    kernels::Drift drift() const { return {input.view(), stream.view()}; }

    /// share * |R + X W' - S - Y Q'|^2 + (1 - share) * |Y (W - Q)'|^2, mixed, and the damping times (W -
    /// Q)^2: what rounding is to make least.
    double error(const TensorView& weight, const quant::Packed4& packed) const {
      const std::vector<float> w = to_float(weight), q = to_float(quant::decode4(packed).view());
      const int64_t out = weight.shape[0], in = weight.shape[1];
      double sum = 0;
      for (size_t i = 0; i < w.size(); ++i)
        sum += damping[i % static_cast<size_t>(in)] * std::pow(double{w[i]} - q[i], 2);
      for (size_t m = 0; m < 2; ++m) {
        Matrix meant(x[m].rows(), out), real(x[m].rows(), out), alone(x[m].rows(), out);
        kernels::ref::linear(y[m].view(), {w.data(), out, in, in}, {}, kernels::Compute::f32, alone.mut());
        kernels::ref::linear(x[m].view(), {w.data(), out, in, in}, {}, kernels::Compute::f32, meant.mut());
        kernels::ref::linear(y[m].view(), {q.data(), out, in, in}, {}, kernels::Compute::f32, real.mut());
        for (int64_t i = 0; i < meant.rows() * out; ++i) {
          const double missing = x[m + 2].rows() > 0 ? double{x[m + 2].data()[i]} - y[m + 2].data()[i] : 0;
          sum += weights[m] * (share * std::pow(missing + meant.data()[i] - real.data()[i], 2) +
                               (1 - share) * std::pow(double{alone.data()[i]} - real.data()[i], 2));
        }
      }
      return sum;
    }
  };

  Statistics statistics(std::span<const model::Linear* const> readers, const RoundedStore& store) {
    Statistics out;
    out.x = inputs_of(readers[0]->tap);
    for (const model::Linear* done : done_) {
      const Stored stored = how_.at(done->name);
      set_weight(model_.weights, *done, stored == Stored::rounded ? Stored::in_order : stored, &store);
    }
    out.y = inputs_of(readers[0]->tap);
    for (const model::Linear* done : done_) set_weight(model_.weights, *done, Stored::as_source, nullptr);
    std::array<Matrix, 2> gram, input, stream;
    std::array<int64_t, 2> rows{};
    std::array<double, 2> signal{};
    for (size_t m = 0; m < 2; ++m) {
      const Matrix& y = out.y[m];
      rows[m] = y.rows();
      if (rows[m] == 0) continue;
      gram[m] = Matrix::zeros(y.cols(), y.cols());
      kernels::ref::add_gram(y.view(), gram[m].mut());
      input[m] = cross_of(out.x[m], y, y);
      if (out.x[m + 2].rows() > 0) stream[m] = cross_of(out.x[m + 2], out.y[m + 2], y);
      for (const model::Linear* reader : readers) {
        Tensor buffer;
        const std::vector<float> w = to_float(model_.binding.weight(*reader, buffer));
        signal[m] += kernels::ref::gram_norm({w.data(), reader->out, reader->in, reader->in}, gram[m].view());
      }
    }
    out.weights = modality_weights(rows, signal, kRounding.mix);
    std::vector<float> undamped(static_cast<size_t>(readers[0]->in));
    for (size_t m = 0; m < 2; ++m)
      for (int64_t i = 0; i < gram[m].rows(); ++i)
        undamped[static_cast<size_t>(i)] += static_cast<float>(out.weights[m] * gram[m].row(i)[i]);
    out.gram = mixed(std::move(gram), out.weights, kRounding.damping);
    out.damping = kernels::damped_diagonal(out.gram.view(), round4_options(kRounding).damping);
    for (size_t i = 0; i < undamped.size(); ++i) out.damping[i] -= undamped[i];
    out.share = share_of_drift(model_.maker.takes_pictures());
    const std::array<double, 2> shares = {out.share * out.weights[0], out.share * out.weights[1]};
    out.input = mixed(std::move(input), shares, {});
    out.stream = mixed(std::move(stream), shares, {});
    return out;
  }

  Loaded model_{GetParam()};
  std::map<std::string, Stored> how_;
  std::vector<const model::Linear*> done_;  // those that lie before the tap
};

// Sums over rows have another order here, so a target that lies next to a threshold may take the other code,
// and all that follow in its row see another error: of codes that are nearly as good as each other. One tap
// of three is looked at.
TEST_P(InOrderFamilies, CodesAreForWhatLinearsBeforeLeave) {
  RoundedStore store(testing::TempDir());
  round(store);
  Walk walk(model_.runner, model_.items);
  size_t taps = 0;
  double most = 1;  // times the error of codes for the inputs Y that do not heed the drift
  for (const Step& step : walk.steps()) {
    for (auto first = step.linears.begin(); first != step.linears.end();) {
      const auto last =
          std::find_if(first, step.linears.end(), [&](const auto* l) { return l->tap != (*first)->tap; });
      const std::span readers(&*first, static_cast<size_t>(last - first));
      const bool looked_at = taps++ % 3 == 0;
      const Statistics seen = looked_at ? statistics(readers, store) : Statistics();
      for (const model::Linear* reader : readers) {
        if (!looked_at || how_.at(reader->name) != Stored::rounded) continue;
        Tensor buffer;
        const TensorView weight = model_.binding.weight(*reader, buffer);
        kernels::RoundingOptions options = round4_options(kRounding);
        options.sweeps = kSweepsInOrder;
        const auto plainly = kernels::round4(weight, seen.gram.view(), options, seen.drift());
        const double expected = seen.error(weight, plainly);
        EXPECT_NEAR(seen.error(weight, store.get(in_order_name(reader->name))) / expected, 1, 0.05)
            << reader->name;
        most =
            std::max(most, seen.error(weight, kernels::round4(weight, seen.gram.view(), options)) / expected);
      }
      done_.insert(done_.end(), first, last);
      first = last;
    }
  }
  EXPECT_GT(most, 1.2) << "nothing drifted";
}

TEST_P(InOrderFamilies, OnlyWhatIsRoundedGetsCodes) {
  RoundedStore store(testing::TempDir());
  round(store);
  for (const auto& [linear, stored] : how_) {
    EXPECT_EQ(store.has(in_order_name(linear)), stored == Stored::rounded) << linear;
    EXPECT_FALSE(store.has(linear)) << linear;
  }
}

INSTANTIATE_TEST_SUITE_P(All, InOrderFamilies, testing::ValuesIn(kModels),
                         [](const auto& info) { return "model" + std::to_string(info.index); });

// Without pictures no input reaches the tower.
TEST(InOrder, WhatNoInputReachesIsRoundedPlainly) {
  Loaded model(kModels[0]);
  std::erase_if(model.items, [](const data::Item& item) { return !item.prompt.pictures.empty(); });
  std::map<std::string, Stored> how;
  for (const model::Linear* linear : model::linears(model.binding.spec()))
    how[linear->name] = Stored::rounded;
  RoundedStore store(testing::TempDir());
  Walk walk(model.runner, model.items);
  round_in_order(walk, kRounding, how, store);
  const model::Linear* first = model::linears(model.binding.spec())[0];
  Tensor buffer;
  const auto plain = quant::encode4(model.binding.weight(*first, buffer), quant::Format::nf4, true);
  EXPECT_EQ(store.get(in_order_name(first->name)).codes, plain.codes);
}

// The widest input decides, or one nearly as wide with more outputs.
TEST(InOrder, MemoryFollowsFromTheWidestInput) {
  const Loaded model(kModels[0]);
  int64_t in = 0, out = 0;
  for (const model::Linear* linear : model::linears(model.binding.spec()))
    if (linear->in > in) std::tie(in, out) = std::pair(linear->in, linear->out);
  const int64_t square = 4 * in * in, weight = 4 * in * out;
  EXPECT_GE(rounding_bytes(model.binding.spec(), false), 3 * square + weight);
  EXPECT_GE(rounding_bytes(model.binding.spec(), true), 5 * square + 2 * weight);
  EXPECT_LT(rounding_bytes(model.binding.spec(), true), 2 * (5 * square + 2 * weight));
}

TEST(InOrder, TheWidestInputsDoWithoutMatricesWhereMemoryIsShort) {
  const Loaded model(kModels[0]);
  const model::Spec& spec = model.binding.spec();
  const int64_t all = rounding_bytes(spec, true);
  EXPECT_EQ(widest_within(spec, true, all), 0);
  const int64_t width = widest_within(spec, true, all - 1);
  EXPECT_GT(width, 1);
  EXPECT_LT(rounding_bytes(spec, true, width), all);
  EXPECT_EQ(widest_within(spec, true, rounding_bytes(spec, true, width)), width);
  EXPECT_LT(widest_within(spec, true, rounding_bytes(spec, true, width) - 1), width);
  EXPECT_EQ(widest_within(spec, true, 1), 1);
  EXPECT_GT(rounding_bytes(spec, true, 1), 0);
  EXPECT_LT(rounding_bytes(spec, true, 1), all / 2);
}

// Those before the first wide one have the codes that they have anyway; that has those for squares of what
// really comes in, up to thresholds next to which a target lies, since sums have another order here.
TEST(InOrder, WideInputsAreRoundedByTheirSquaresAlone) {
  Loaded model(kModels[1]);
  std::map<std::string, Stored> how;
  int64_t widest = 0;
  for (const model::Linear* linear : model::linears(model.binding.spec())) {
    how[linear->name] = Stored::rounded;
    widest = std::max(widest, linear->in);
  }
  records::Rounding rounding = kRounding;
  rounding.widest = widest - 1;
  Walk walk(model.runner, model.items);
  RoundedStore whole(testing::TempDir()), narrow(testing::TempDir());
  round_in_order(walk, kRounding, how, whole);
  round_in_order(walk, rounding, how, narrow);
  for (const model::Linear* linear : model::linears(model.binding.spec())) {
    const std::string code = in_order_name(linear->name);
    if (linear->in < widest) {
      EXPECT_EQ(narrow.get(code).codes, whole.get(code).codes) << linear->name;
      set_weight(model.weights, *linear, Stored::in_order, &narrow);
      continue;
    }
    EXPECT_NE(narrow.get(code).codes, whole.get(code).codes) << linear->name;
    Collector collector(linear->tap);
    model.runner.observe(&collector);
    for (const data::Item& item : model.items) (void)model.logits(item);
    model.runner.observe(nullptr);
    Matrix diagonal = Matrix::zeros(1, linear->in);
    for (const auto& row : collector.rows[1])
      for (size_t i = 0; i < row.size(); ++i) diagonal.data()[i] += row[i] * row[i];
    const Matrix damped = mixed({Matrix(), std::move(diagonal)}, {1, 1}, kRounding.damping);
    Tensor buffer;
    const auto expected =
        kernels::round4(model.binding.weight(*linear, buffer), damped.view(), round4_options(rounding));
    const auto codes = narrow.get(code).codes;
    size_t same = 0;
    for (size_t i = 0; i < codes.size(); ++i) same += codes[i] == expected.codes[i];
    EXPECT_GT(same, codes.size() * 99 / 100) << linear->name;
    return;
  }
}

struct Stopped {};

// Their codes have one place in the store.
TEST(InOrder, APlanIsRoundedAgainAfterAnother) {
  const test::TempFolder folder;
  Loaded model(kModels[1]);
  std::map<std::string, Stored> how;
  for (const model::Linear* linear : model::linears(model.binding.spec()))
    how[linear->name] = Stored::rounded;
  auto other = how;
  other.begin()->second = Stored::as_source;
  const std::string last = model::linears(model.binding.spec()).back()->name;
  Walk walk(model.runner, model.items);
  Journal journal(folder / "out", io::JobKey{{{"another thing", "1"}}}, {});
  round_in_order(walk, kRounding, how, journal.store(), &journal);
  const auto first = journal.store().get(in_order_name(last)).codes;
  round_in_order(walk, kRounding, other, journal.store(), &journal);
  EXPECT_NE(journal.store().get(in_order_name(last)).codes, first);
  round_in_order(walk, kRounding, how, journal.store(), &journal);
  EXPECT_EQ(journal.store().get(in_order_name(last)).codes, first);
  const int64_t bytes = journal.store().bytes();
  round_in_order(walk, kRounding, how, journal.store(), &journal);
  EXPECT_EQ(journal.store().bytes(), bytes) << "rounded again, though it was the last";
}

TEST(InOrder, GoesOnWhereItWasInterrupted) {
  const test::TempFolder folder;
  const io::JobKey key{{{"another thing", "1"}}};
  Loaded model(kModels[0]);
  std::map<std::string, Stored> how;
  for (const model::Linear* linear : model::linears(model.binding.spec()))
    how[linear->name] = Stored::rounded;
  Walk walk(model.runner, model.items);
  RoundedStore expected(testing::TempDir());
  round_in_order(walk, kRounding, how, expected);
  // Each run is stopped when it has saved its first step.
  std::string told;
  const auto tell = [&](const std::string& line) {
    told += line + "\n";
    if (line.find("keeps how far") != std::string::npos) throw Stopped();
  };
  size_t runs = 0;
  for (bool done = false; !done && runs <= walk.steps().size(); ++runs) {
    Journal journal(folder / "out", key, {.seconds = 0, .tell = tell});
    try {
      round_in_order(walk, kRounding, how, journal.store(), &journal);
      done = true;
    } catch (const Stopped&) {
    }
    if (!done) continue;
    for (const auto& [linear, stored] : how)
      EXPECT_EQ(journal.store().get(in_order_name(linear)).codes, expected.get(in_order_name(linear)).codes)
          << linear;
  }
  EXPECT_EQ(runs, walk.steps().size() + 1);
  EXPECT_NE(told.find("round in order, after block 3 of"), std::string::npos) << told;
}

}  // namespace
}  // namespace nibble::measure
