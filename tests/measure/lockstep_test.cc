// Hypotheses in lockstep against the plain way: quantize, run the model, compare. Every group of every
// family.
#include "measure/lockstep.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/threads.h"
#include "measure/measure.h"
#include "measure/models.h"
#include "support/temp_folder.h"

namespace nibble::measure {
namespace {

class LockstepFamilies : public testing::TestWithParam<const char*> {};

/// Rows have the same bits alone and side by side, so that only the order of a few fp64 sums may differ.
void expect_equal(const std::vector<double>& ours, const std::vector<double>& theirs,
                  const std::string& what) {
  ASSERT_EQ(ours.size(), theirs.size());
  for (size_t i = 0; i < ours.size(); ++i)
    EXPECT_NEAR(ours[i], theirs[i], 1e-12 + 1e-9 * theirs[i]) << what << ", item " << i;
}

TEST_P(LockstepFamilies, EveryGroupAloneIsWhatRunningItAloneGives) {
  Loaded model(GetParam());
  Walk walk(model.runner, model.items);
  Lockstep lockstep(walk, model.groups, model.inventory, nullptr, int64_t{1} << 30);
  const Assignment base(model.groups.size(), Stored::as_source);
  std::vector<Assignment> hypotheses;
  for (size_t g = 0; g < model.groups.size(); ++g) {
    hypotheses.push_back(base);
    hypotheses.back()[g] = Stored::plain;
  }
  const auto kl = lockstep.run(base, hypotheses);
  double largest = 0;
  for (size_t g = 0; g < model.groups.size(); ++g) {
    expect_equal(kl[g], model.alone({g}), model.groups[g].name);
    largest = std::max(largest, *std::max_element(kl[g].begin(), kl[g].end()));
  }
  EXPECT_GT(largest, 1e-6) << "nothing was quantized";
}

TEST_P(LockstepFamilies, AroundAnyBaseAndInAnyNumberOfPasses) {
  Loaded model(GetParam());
  const size_t n = model.groups.size();
  Walk walk(model.runner, model.items);
  Assignment base(n, Stored::as_source);
  std::vector<size_t> quantized;
  for (size_t g = 0; g < n; g += 2) {
    base[g] = Stored::plain;
    quantized.push_back(g);
  }
  std::vector<Assignment> hypotheses = {base, Assignment(n, Stored::plain), Assignment(n, Stored::as_source),
                                        base};
  hypotheses[3][n / 2] = base[n / 2] == Stored::plain ? Stored::as_source : Stored::plain;
  Lockstep wide(walk, model.groups, model.inventory, nullptr, int64_t{1} << 30);
  Lockstep narrow(walk, model.groups, model.inventory, nullptr, 1);
  EXPECT_EQ(wide.passes(4), 1);
  EXPECT_EQ(narrow.passes(4), 4);
  const auto kl = wide.run(base, hypotheses);
  EXPECT_EQ(narrow.run(base, hypotheses), kl);
  expect_equal(kl[0], model.alone(quantized), "the base");
  std::vector<size_t> all(n);
  for (size_t g = 0; g < n; ++g) all[g] = g;
  expect_equal(kl[1], model.alone(all), "all");
  for (const double value : kl[2]) EXPECT_EQ(value, 0) << "16 bits throughout";
  EXPECT_NE(kl[3], kl[0]);
}

/// Groups that act on pictures alone: of the tower, the connector and cross attention.
std::vector<size_t> groups_of_pictures(const Loaded& model) {
  std::set<std::string> names;
  for (const model::Block& block : model.binding.spec().text.stack.blocks) {
    if (!block.cross) continue;
    for (const auto* linears : {&block.qkv, &block.mlp_in})
      for (const model::Linear& l : *linears) names.insert(l.name);
    names.insert({block.attention_out.name, block.mlp_out.name});
  }
  std::vector<size_t> out;
  for (size_t g = 0; g < model.groups.size(); ++g) {
    const auto& first = model.inventory.linears[model.groups[g].members[0]];
    if (first.part != records::Part::text || names.contains(first.name)) out.push_back(g);
  }
  return out;
}

TEST_P(LockstepFamilies, TextsStayAsTheyAreWhereOnlyPicturesAreActedOn) {
  Loaded model(GetParam());
  if (!model.maker.takes_pictures()) return;
  const Assignment base(model.groups.size(), Stored::as_source);
  std::vector<Assignment> hypotheses;
  for (const size_t g : groups_of_pictures(model)) {
    hypotheses.push_back(base);
    hypotheses.back()[g] = Stored::plain;
  }
  ASSERT_FALSE(hypotheses.empty());
  const auto run = [&](std::span<const data::Item> items) {
    Walk walk(model.runner, items);
    return Lockstep(walk, model.groups, model.inventory, nullptr, int64_t{1} << 30).run(base, hypotheses);
  };
  const std::vector<data::Item>& items = model.items;
  const auto all = run(items), pictures = run(std::span(items).first(2));
  const auto mixed = run(std::vector{items[2], items[0], items[3], items[1]});
  for (size_t h = 0; h < hypotheses.size(); ++h) {
    EXPECT_EQ(all[h], (std::vector{pictures[h][0], pictures[h][1], 0.0, 0.0}));
    EXPECT_EQ(mixed[h], (std::vector{0.0, pictures[h][0], 0.0, pictures[h][1]}));
  }
}

// What branches share is run once: it must be what running each branch on its own gives.
TEST_P(LockstepFamilies, BranchesShareWhatIsTheSame) {
  Loaded model(GetParam());
  Walk walk(model.runner, model.items);
  const model::Linear& changed = *walk.steps()[0].linears[0];
  Tensor buffer;
  const auto packed = quant::encode4(model.binding.weight(changed, buffer), quant::Format::nf4, true);
  const auto other = kernels::Weight::pack(quant::decode4(packed).view(), model.weights.compute());
  const auto go = [&](size_t step, std::vector<States*> branches, bool changes) {
    if (changes) model.weights.replace(changed.name, other);
    walk.advance(step, branches, nullptr);
    model.weights.replace(changed.name, {});
  };
  const size_t steps = walk.steps().size();
  States alone[2] = {walk.start(), walk.start()};
  for (size_t i = 0; i < 2; ++i)
    for (size_t step = 0; step < steps; ++step) go(step, {&alone[i]}, i == 1 && step == 0);
  States a = walk.start(), b = a, c = a;
  go(0, {&a, &c}, false);
  go(0, {&b}, true);
  for (size_t step = 1; step < steps; ++step) go(step, {&a, &b, &c}, false);
  EXPECT_EQ(a.parts, c.parts);
  EXPECT_NE(a.parts[0], b.parts[0]);
  EXPECT_EQ(a.parts.back() == b.parts.back(), model.maker.takes_pictures()) << "texts do not see the tower";
  const Matrix of_a = walk.answers(alone[0]), of_b = walk.answers(alone[1]);
  const auto bytes = static_cast<size_t>(of_a.tensor().bytes());
  EXPECT_EQ(std::memcmp(walk.answers(a).data(), of_a.data(), bytes), 0);
  EXPECT_EQ(std::memcmp(walk.answers(b).data(), of_b.data(), bytes), 0);
  const std::array<const States*, 3> branches = {&a, &b, &c};
  const auto kl = walk.divergence(of_a, branches);
  EXPECT_EQ(kl[0], std::vector<double>(model.items.size()));
  EXPECT_EQ(kl[1], walk.divergence(of_a, of_b));
  EXPECT_GT(kl[1][0], 0);
  EXPECT_EQ(kl[2], kl[0]);
}

TEST_P(LockstepFamilies, SameBitsForAnyNumberOfThreads) {
  std::vector<std::vector<std::vector<double>>> results;
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    Loaded model(GetParam());
    Walk walk(model.runner, model.items);
    Lockstep lockstep(walk, model.groups, model.inventory, nullptr, int64_t{1} << 30);
    const Assignment base(model.groups.size(), Stored::as_source), all(model.groups.size(), Stored::plain);
    results.push_back(lockstep.run(base, {&all, 1}));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_P(LockstepFamilies, StoppedAfterEveryBlockItComesToTheSameBits) {
  struct Stopped {};
  const test::TempFolder folder;
  Loaded model(GetParam());
  const Assignment base(model.groups.size(), Stored::as_source);
  std::vector<Assignment> hypotheses(3, base);
  hypotheses[0].front() = hypotheses[1].back() = Stored::plain;
  hypotheses[2].assign(base.size(), Stored::plain);
  Walk whole(model.runner, model.items);
  const auto expected =
      Lockstep(whole, model.groups, model.inventory, nullptr, int64_t{1} << 30).run(base, hypotheses);
  // A run says when it saved for the first time, after its first block.
  const Journal::Options options{.seconds = 0, .tell = [](const std::string& line) {
                                   if (line.find("keeps how far") != std::string::npos) throw Stopped();
                                 }};
  std::vector<std::vector<double>> found;
  size_t stops = 0;
  while (found.empty()) {
    Journal journal(folder / "out", {}, options);
    Walk walk(model.runner, model.items);
    Lockstep lockstep(walk, model.groups, model.inventory, nullptr, int64_t{1} << 30, &journal, "inputs");
    try {
      found = lockstep.run(base, hypotheses);
    } catch (const Stopped&) {
      ASSERT_LE(++stops, whole.steps().size());
    }
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(stops, whole.steps().size()) << "one for each block, the last of them with the results";
}

INSTANTIATE_TEST_SUITE_P(All, LockstepFamilies, testing::ValuesIn(kModels),
                         [](const auto& info) { return "model" + std::to_string(info.index); });

TEST(LockstepRounded, UsesWhatTheStoreHolds) {
  Loaded model(kModels[0]);
  Walk walk(model.runner, model.items);
  RoundedStore store(testing::TempDir());
  const Options options{.rounding = {"feedback", {0.03, 0.2}, 0, 0.25}};
  const records::Measurements m = measure(walk, "tiny", options, &store);
  Lockstep lockstep(walk, model.groups, m.inventory, &store, int64_t{1} << 30);
  const Assignment base(model.groups.size(), Stored::as_source);
  const std::vector<Assignment> hypotheses = {Assignment(model.groups.size(), Stored::plain),
                                              Assignment(model.groups.size(), Stored::rounded)};
  const auto kl = lockstep.run(base, hypotheses);
  // On the inputs that it was made for, feedback leaves a small part of what plain rounding does to a model
  // with outlier channels.
  EXPECT_LT(kl[1][0] + kl[1][1], 0.1 * (kl[0][0] + kl[0][1]));
}

}  // namespace
}  // namespace nibble::measure
