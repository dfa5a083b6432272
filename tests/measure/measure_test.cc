#include "measure/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "data/answers.h"
#include "kernels/ref/ref.h"
#include "measure/sizes.h"
#include "measure/taps.h"
#include "run/forward.h"

namespace nibble::measure {
namespace {

using records::Modality;

struct Loaded {
  model::Binding binding{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  data::PromptMaker maker{binding};
  run::Weights weights{binding, kernels::Compute::f32};

  std::vector<data::Item> items(size_t n) const {
    const std::vector<std::string> files = {NIBBLE_ROOT "/pictures/calibration/samples.jsonl"};
    auto samples = data::read_samples(files);
    samples.resize(n);
    return data::make_items(samples, maker, 2048);
  }

  records::Measurements measured(std::span<const data::Item> items, const Options& options = {},
                                 RoundedStore* store = nullptr) {
    run::Runner runner(weights);
    Walk walk(runner, items);
    return measure(walk, "tiny", options, store);
  }
};

/// Squared norms of outputs, plainly: every row of a tap times both weights, in fp64.
class PlainErrors : public run::Observer {
 public:
  explicit PlainErrors(const model::Binding& binding) : binding_(binding) {}

  void tap(std::span<const model::Linear* const> readers, ConstMatrix x,
           std::span<const Modality> modality) override {
    for (const model::Linear* reader : readers) {
      if (!wanted.contains(reader->name)) continue;
      Tensor buffer;
      const TensorView view = binding_.weight(*reader, buffer);
      const std::vector<float> w = to_float(view);
      const std::vector<float> q =
          to_float(quant::decode4(quant::encode4(view, quant::Format::nf4, true)).view());
      auto& error = wanted[reader->name];
      for (int64_t r = 0; r < x.rows; ++r)
        for (int64_t o = 0; o < reader->out; ++o) {
          double signal = 0, noise = 0;
          for (int64_t i = 0; i < reader->in; ++i) {
            const auto at = static_cast<size_t>(o * reader->in + i);
            signal += static_cast<double>(x.row(r)[i]) * w[at];
            noise += static_cast<double>(x.row(r)[i]) * (static_cast<double>(w[at]) - q[at]);
          }
          auto& e = error[static_cast<size_t>(modality[static_cast<size_t>(r)])];
          e.signal += signal * signal;
          e.noise += noise * noise;
          e.rows += o == 0;
        }
    }
  }

  std::map<std::string, std::array<records::ActivationError, 2>> wanted;

 private:
  const model::Binding& binding_;
};

// With few items rows are multiplied, with many most Gram matrices are.
constexpr size_t kFew = 2, kMany = 12;

class Errors : public testing::TestWithParam<size_t> {};

TEST_P(Errors, AreThoseOfTheOutputs) {
  Loaded model;
  const auto items = model.items(GetParam());
  PlainErrors plain(model.binding);
  for (const char* name : {"visual.blocks.1.mlp.fc1", "visual.blocks.5.attn.proj", "visual.merger.mlp.2",
                           "model.layers.2.mlp.up_proj", "model.layers.7.self_attn.k_proj"})
    plain.wanted[name];
  run::Runner runner(model.weights, &plain);
  std::vector<run::Prompt> prompts;
  for (const auto& item : items) prompts.push_back(item.fed());
  std::vector<const run::Prompt*> pointers;
  for (const run::Prompt& prompt : prompts) pointers.push_back(&prompt);
  auto sequences = runner.start(pointers);
  std::vector<run::Sequence*> batch;
  for (run::Sequence& sequence : sequences) batch.push_back(&sequence);
  runner.feed(batch, std::vector<int64_t>(batch.size(), 1), false);

  const records::Measurements m = model.measured(items);
  ASSERT_EQ(m.errors.size(), 82u);
  for (size_t i = 0; i < m.errors.size(); ++i) {
    ASSERT_EQ(m.errors[i].name, m.inventory.linears[i].name);
    const auto it = plain.wanted.find(m.errors[i].name);
    if (it == plain.wanted.end()) continue;
    for (size_t k = 0; k < 2; ++k) {
      const auto &ours = m.errors[i].activation[k], &theirs = it->second[k];
      EXPECT_EQ(ours.rows, theirs.rows) << it->first;
      // fp32 products, and Gram matrices of some hundred rows: sums of squares agree to about 1e-5.
      EXPECT_NEAR(ours.signal, theirs.signal, 1e-4 * theirs.signal) << it->first;
      EXPECT_NEAR(ours.noise, theirs.noise, 1e-4 * theirs.noise) << it->first;
    }
  }
  EXPECT_EQ(m.samples, std::ssize(items));
  int64_t patches = 0;
  for (const run::Prompt& prompt : prompts)
    for (const run::Picture& picture : prompt.pictures) patches += picture.patches();
  EXPECT_EQ(m.rows[0], patches);
  EXPECT_GT(m.rows[1], 0);
}

INSTANTIATE_TEST_SUITE_P(Measure, Errors, testing::Values(kFew, kMany));

TEST(Measure, MultipliesRowsWhereThatTakesLess) {
  Loaded model;
  run::Runner runner(model.weights);
  std::array<size_t, 2> multiplied{}, summed{};
  for (const size_t few : {0, 1}) {
    const auto items = model.items(few ? kFew : kMany);
    Walk walk(runner, items);
    const auto difference = [](const model::Linear& linear) { return Matrix::zeros(linear.out, linear.in); };
    walk_taps(walk, "test", {.difference = difference}, {}, [&](const Tap& tap) {
      EXPECT_NE(tap.noise.empty(), tap.gram[0].rows() + tap.gram[1].rows() == 0) << tap.readers[0]->tap;
      ++(tap.noise.empty() ? summed : multiplied)[few];
    });
  }
  EXPECT_EQ(summed[1], 0u);
  EXPECT_GT(multiplied[1], 0u);
  EXPECT_GT(summed[0], multiplied[0]);
}

TEST(Measure, SizesAreThoseOfTheWrittenTensors) {
  Loaded model;
  const records::Measurements m = model.measured(model.items(1));
  records::Inventory exact = model.binding.inventory("tiny");
  exact_sizes(model.binding, exact, false);
  EXPECT_EQ(m.inventory, exact);
  for (size_t i = 0; i < exact.linears.size(); ++i) {
    const model::Linear& linear = *model::linears(model.binding.spec())[i];
    Tensor buffer;
    const auto packed = quant::encode4(model.binding.weight(linear, buffer), quant::Format::nf4, true);
    int64_t bytes = 0;
    for (const auto& tensor : quant::to_tensors(packed)) bytes += tensor.view.bytes();
    EXPECT_EQ(exact.linears[i].bytes4, bytes) << linear.name;
  }
}

TEST(Measure, TextAloneLeavesTheTowerUnseen) {
  Loaded model;
  data::Sample sample;
  sample.id = "text";
  sample.plain = true;
  sample.text = "The quick brown fox jumps over the lazy dog, and then it rests.";
  const auto items = data::make_items({&sample, 1}, model.maker, 8);
  ASSERT_GE(items.size(), 2u);
  const records::Measurements m = model.measured(items);
  EXPECT_EQ(m.rows[0], 0);
  for (size_t i = 0; i < m.errors.size(); ++i) {
    const bool text = m.inventory.linears[i].part == records::Part::text;
    EXPECT_EQ(m.errors[i].activation[0].rows, 0);
    EXPECT_EQ(m.errors[i].activation[1].rows > 0, text) << m.errors[i].name;
    EXPECT_GT(m.errors[i].weight, 0.05) << m.errors[i].name;
    EXPECT_LT(m.errors[i].weight, 0.2) << m.errors[i].name;
  }
}

TEST(Measure, SameBitsForAnyNumberOfThreads) {
  Loaded model;
  const auto items = model.items(3);
  set_num_threads(1);
  const auto one = model.measured(items);
  set_num_threads(3);
  const auto three = model.measured(items);
  EXPECT_EQ(one, three);
}

TEST(Measure, BetterCodesAreMeasuredBesideThePlainOnes) {
  Loaded model;
  const auto items = model.items(12);
  RoundedStore store(testing::TempDir());
  const Options options{.rounding = {"feedback", {0.03, 0.2}, 0, 0.25}};
  const records::Measurements m = model.measured(items, options, &store);
  const records::Measurements plain = model.measured(items);
  EXPECT_EQ(m.rounding.kind, "feedback");
  double ours = 0, theirs = 0;
  for (size_t i = 0; i < m.errors.size(); ++i) {
    EXPECT_EQ(m.errors[i].activation, plain.errors[i].activation) << "plain errors stay";
    const auto& rounded = *m.errors[i].rounded;
    int64_t bytes = 0;
    const quant::Packed4 packed = store.get(m.errors[i].name);
    for (const auto& tensor : quant::to_tensors(packed)) bytes += tensor.view.bytes();
    EXPECT_EQ(rounded.bytes4, bytes) << m.errors[i].name;
    for (size_t k = 0; k < 2; ++k) {
      ours += rounded.activation[k].relative();
      theirs += plain.errors[i].activation[k].relative();
    }
  }
  EXPECT_LT(ours, 0.5 * theirs);
  EXPECT_GT(ours, 0.01 * theirs) << "too good to be true";
}

// Where memory is short, wide inputs have no more than the diagonals of their Gram matrices.
TEST(Measure, WideInputsAreRoundedByTheirSquaresAlone) {
  constexpr int64_t kWidest = 128;
  Loaded model;
  const auto items = model.items(6);
  RoundedStore whole(testing::TempDir()), narrow(testing::TempDir()), again(testing::TempDir());
  Options options{.rounding = {.kind = "feedback", .damping = {0.03, 0.2}, .mix = 0.25}};
  const records::Measurements all = model.measured(items, options, &whole);
  options.rounding.widest = kWidest;
  const records::Measurements m = model.measured(items, options, &narrow);
  std::map<std::string, std::array<double, 2>> true_noise, diagonal_noise;
  std::map<std::string, quant::Packed4> expected;
  run::Runner runner(model.weights);
  Walk walk(runner, items);
  const auto each = [&](const Tap& tap, const auto& f) {
    for (const model::Linear* linear : tap.readers) {
      if (linear->in <= kWidest) continue;
      Tensor buffer;
      f(*linear, model.binding.weight(*linear, buffer));
    }
  };
  walk_taps(walk, "test", {.grams = true, .difference = {}, .widest = kWidest}, {}, [&](const Tap& tap) {
    for (const Matrix& gram : tap.gram) {
      if (gram.rows() == 0) continue;
      EXPECT_EQ(gram.rows(), tap.readers[0]->in > kWidest ? 1 : gram.cols());
    }
    each(tap, [&](const model::Linear& linear, const TensorView& weight) {
      expected[linear.name] = kernels::round4(weight, mixed_gram(tap, options.rounding).view(),
                                              {.kind = kernels::Rounding::search, .damping = 1e-4});
    });
  });
  walk_taps(walk, "test", {.grams = true}, {}, [&](const Tap& tap) {
    each(tap, [&](const model::Linear& linear, const TensorView& weight) {
      const std::vector<float> w = to_float(weight),
                               q = to_float(quant::decode4(narrow.get(linear.name)).view());
      Matrix d(linear.out, linear.in);
      for (size_t i = 0; i < w.size(); ++i) d.data()[i] = w[i] - q[i];
      for (size_t k = 0; k < 2; ++k)
        if (tap.rows[k] > 0) true_noise[linear.name][k] = kernels::gram_norm(d.view(), tap.gram[k].view());
    });
  });
  size_t wide = 0;
  for (size_t i = 0; i < m.errors.size(); ++i) {
    const std::string& name = m.errors[i].name;
    EXPECT_EQ(m.errors[i].activation[1].rows, all.errors[i].activation[1].rows) << name;
    if (m.inventory.linears[i].in <= kWidest) {
      EXPECT_EQ(m.errors[i], all.errors[i]) << name;
      EXPECT_EQ(narrow.get(name).codes, whole.get(name).codes) << name;
      continue;
    }
    ++wide;
    EXPECT_EQ(narrow.get(name).codes, expected.at(name).codes) << name;
    EXPECT_NE(narrow.get(name).codes, whole.get(name).codes) << name;
    for (size_t k = 0; k < 2; ++k) {
      // Products in place of Gram matrices, both in fp32.
      EXPECT_NEAR(m.errors[i].activation[k].noise, all.errors[i].activation[k].noise,
                  1e-4 * all.errors[i].activation[k].noise)
          << name;
      if (m.errors[i].activation[k].rows == 0) continue;
      // An estimate: correlations between inputs are unknown.
      const double ratio = m.errors[i].rounded->activation[k].noise / true_noise.at(name)[k];
      EXPECT_GT(ratio, 0.5) << name;
      EXPECT_LT(ratio, 2) << name;
    }
  }
  EXPECT_GT(wide, 5u);
  EXPECT_LT(wide, m.errors.size());
  round_linears(walk, options.rounding, {expected.begin()->first}, again);
  EXPECT_EQ(again.get(expected.begin()->first).codes, expected.begin()->second.codes);
}

TEST(Measure, RoundingAgainGivesTheSameCodes) {
  Loaded model;
  const auto items = model.items(3);
  RoundedStore store(testing::TempDir()), again(testing::TempDir());
  const Options options{.rounding = {"search", {0.03, 0.2}, 0, 0.25}};
  const records::Measurements m = model.measured(items, options, &store);
  run::Runner runner(model.weights);
  Walk walk(runner, items);
  const std::string name = m.errors[40].name;
  round_linears(walk, options.rounding, {name}, again);
  EXPECT_TRUE(again.has(name));
  EXPECT_FALSE(again.has(m.errors[41].name));
  EXPECT_EQ(again.get(name).codes, store.get(name).codes);
}

}  // namespace
}  // namespace nibble::measure
