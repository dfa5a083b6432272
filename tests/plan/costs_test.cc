// What groups cost, predicted from some that were run alone, and the choices made from that.
#include "plan/costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <set>

#include "base/error.h"
#include "plan/choose.h"
#include "plan/plan.h"

namespace nibble::plan {
namespace {

using records::Measurements;
using records::Modality;

/// The squared relative error of a group as costs.h defines it: the sum over its members of the mean over
/// modalities.
double error_of(const Measurements& m, const records::Group& group) {
  double sum = 0;
  for (const size_t member : group.members) {
    double squares = 0;
    int seen = 0;
    for (const auto& error : m.errors[member].activation) {
      if (error.rows == 0) continue;
      squares += error.noise / error.signal;
      ++seen;
    }
    sum += seen > 0 ? squares / seen : m.errors[member].weight * m.errors[member].weight;
  }
  return sum;
}

/// Measurements of a model in which a group's KL is its error times e^(depth / 2) on pictures and 3 times
/// that on texts.
struct World {
  Measurements m = records::read_measurements("tests/plan/goldens/measurements.json");
  std::vector<records::Group> groups;

  World() {
    m.inputs = {{"picture", Modality::vision, 3}, {"text", Modality::text, 5}};
    m.noise = std::array{1e-6, 2e-6};
    m.effort = "auto";
    groups = records::group_linears(m.inventory, m.fuse);
  }

  double real(const records::Group& group) const {
    const auto depth = static_cast<double>(m.inventory.linears[group.members[0]].depth);
    return error_of(m, group) * std::exp(depth / 2);
  }

  void run(const records::Group& group) {
    m.solo.push_back({group.name, "plain", {real(group), 3 * real(group)}});
  }

  /// Every group but those that `left_out` names.
  void run_all(const std::function<bool(const records::Group&)>& left_out = [](const auto&) {
    return false;
  }) {
    for (const auto& group : groups)
      if (!left_out(group)) run(group);
  }
};

/// The KL of a choice over both modalities.
double total_of(const std::vector<GroupCosts>& costs, const std::vector<int>& chosen) {
  const auto kl = predicted_kl(costs, chosen);
  return kl[0] + kl[1];
}

TEST(Costs, ARunGroupCostsWhatItsRunSays) {
  World world;
  world.run_all();
  const auto costs = predict_costs(world.m);
  ASSERT_EQ(costs.size(), world.groups.size());
  for (size_t g = 0; g < costs.size(); ++g) {
    ASSERT_EQ(costs[g].options.size(), 2u) << "plain, and as in the source";
    EXPECT_TRUE(costs[g].options[0].measured);
    // Through cube roots and back.
    EXPECT_NEAR(costs[g].options[0].kl[0] / world.real(world.groups[g]), 1, 1e-12);
    EXPECT_NEAR(costs[g].options[0].kl[1] / world.real(world.groups[g]), 3, 1e-12);
    EXPECT_EQ(costs[g].options[1].bytes, world.groups[g].bytes16);
    EXPECT_EQ(costs[g].options[1].kl, (std::array{0.0, 0.0}));
  }
}

TEST(Costs, APlanSaysWhatItsOwnCodesCost) {
  World world;
  world.m.rounding.kind = "feedback";
  for (size_t i = 0; i < world.m.errors.size(); ++i)
    world.m.errors[i].rounded = {.bytes4 = world.m.inventory.linears[i].bytes4,
                                 .weight = world.m.errors[i].weight,
                                 .activation = world.m.errors[i].activation};
  world.run_all([&](const auto& group) { return group.name == world.groups[0].name; });
  // Codes of feedback were run alone and cost more; the plain ones are predicted.
  world.m.solo.push_back({world.groups[0].name, "feedback", {1, 1}});
  auto costs = predict_costs(world.m);
  costs[0].options[0].kl = {0.125, 0.125};
  ASSERT_FALSE(costs[0].options[0].measured);
  ASSERT_TRUE(costs[0].options[1].measured);
  const auto decision_of = [&](int option) {
    std::vector<int> chosen(costs.size(), 0);
    chosen[0] = option;
    return plan_of_choice(world.m, costs, chosen, {}).decisions[world.groups[0].members[0]];
  };
  EXPECT_EQ(decision_of(0).reason, "KL 0.25 alone in 4 bits, predicted");
  EXPECT_EQ(decision_of(1).reason,
            fmt::format("KL {:.3g} alone in 4 bits", costs[0].options[1].kl[0] + costs[0].options[1].kl[1]));
  EXPECT_THAT(decision_of(2).reason, ::testing::StartsWith("KL 0.25 alone in 4 bits, predicted, rank "))
      << "what it would be stored as";
}

TEST(Costs, OneWaveringInputDoesNotDecideWhatAGroupCosts) {
  World world;
  world.m.inputs.assign(20, {"picture", Modality::vision, 3});
  // Every group costs by the law times a factor of the input, but for one that is hit hard on one input.
  const auto kl_of = [&](const records::Group& group) {
    std::vector<double> kl;
    for (size_t i = 0; i < world.m.inputs.size(); ++i)
      kl.push_back(world.real(group) * std::exp2(static_cast<double>(i % 5)));
    return kl;
  };
  for (const auto& group : world.groups) world.m.solo.push_back({group.name, "plain", kl_of(group)});
  double sum = 0;
  for (const auto& run : world.m.solo) sum += records::mean_kl(world.m, run.kl, Modality::vision);
  const auto costs = predict_costs(world.m);
  double predicted = 0;
  for (const auto& group : costs) predicted += group.options[0].kl[0];
  EXPECT_NEAR(predicted / sum, 1, 1e-9) << "on the scale of means";
  const double before = costs[0].options[0].kl[0] / costs[1].options[0].kl[0];
  world.m.solo[0].kl[3] *= 1000;
  const auto after = predict_costs(world.m);
  EXPECT_GT(records::mean_kl(world.m, world.m.solo[0].kl, Modality::vision),
            20 * records::mean_kl(world.m, kl_of(world.groups[0]), Modality::vision));
  EXPECT_LT(after[0].options[0].kl[0] / after[1].options[0].kl[0], 4 * before);
}

TEST(Costs, AGroupBetweenTwoOfItsKindIsInterpolated) {
  World world;
  // A group in the middle of its kind: both neighbours in depth are run, and the law is exact between them.
  const auto kind = [&](const records::Group& group) {
    const auto& linear = world.m.inventory.linears[group.members[0]];
    return std::pair(linear.part, linear.role);
  };
  const auto depth = [&](const records::Group& group) {
    return world.m.inventory.linears[group.members[0]].depth;
  };
  const auto inner = [&](const records::Group& group) {
    int below = 0, above = 0;
    for (const auto& other : world.groups)
      if (kind(other) == kind(group))
        (depth(other) < depth(group) ? below : above) += depth(other) != depth(group);
    return below > 0 && above > 0;
  };
  const auto left_out = std::find_if(world.groups.begin(), world.groups.end(), inner);
  ASSERT_NE(left_out, world.groups.end());
  world.run_all([&](const auto& group) { return group.name == left_out->name; });
  const auto costs = predict_costs(world.m);
  const StoredAs& option = costs[static_cast<size_t>(left_out - world.groups.begin())].options[0];
  EXPECT_FALSE(option.measured);
  for (size_t k = 0; k < 2; ++k)  // exp and log of doubles
    EXPECT_NEAR(option.kl[k] / (world.real(*left_out) * (k == 0 ? 1 : 3)), 1, 1e-9);
}

TEST(Costs, WithoutOneOfItsKindTheMedianOfItsPartServes) {
  World world;
  const records::Group& first = world.groups.front();
  world.run(first);
  for (const auto& costs : predict_costs(world.m)) {
    const double gain = costs.options[0].kl[0] / error_of(world.m, costs.group);
    EXPECT_NEAR(gain, world.real(first) / error_of(world.m, first), 1e-9) << costs.group.name;
  }
}

TEST(Costs, AModalityThatNoInputHasCostsNothing) {
  World world;
  world.run_all();
  world.m.inputs.pop_back();
  for (auto& run : world.m.solo) run.kl.pop_back();
  for (const auto& costs : predict_costs(world.m)) {
    EXPECT_GT(costs.options[0].kl[0], 0);
    EXPECT_EQ(costs.options[0].kl[1], 0);
  }
}

TEST(Costs, PredictionsAreJudgedByRunsLeftOut) {
  World world;
  world.run_all();
  const PredictionQuality good = prediction_quality(world.m);
  EXPECT_EQ(good.run, std::ssize(world.groups));
  EXPECT_GT(good.rank_correlation, 0.9) << "the law holds but at the ends of a kind";
  // Against the law: what costs most by its error costs least.
  for (auto& run : world.m.solo)
    for (double& kl : run.kl) kl = 1e-6 / kl;
  const PredictionQuality bad = prediction_quality(world.m);
  EXPECT_LT(bad.rank_correlation, good.rank_correlation);
  EXPECT_GT(bad.largest_miss, good.largest_miss);
}

TEST(Costs, FirstRunsHoldEveryGroupOnce) {
  World world;
  size_t last = world.groups.size() + 1;
  for (const size_t most : {size_t{1000}, size_t{4}, size_t{1}}) {
    const auto sets = first_runs(world.m, most);
    EXPECT_LE(sets.size(), most);
    EXPECT_LT(sets.size(), last) << "with fewer runs, larger sets";
    last = sets.size();
    std::multiset<std::string> names;
    for (const auto& set : sets) names.insert(set.begin(), set.end());
    ASSERT_EQ(names.size(), world.groups.size());
    for (const auto& group : world.groups) EXPECT_EQ(names.count(group.name), 1u) << group.name;
  }
  EXPECT_TRUE(first_runs(world.m, 0).empty());
}

TEST(Costs, WhatAJointRunLeavesIsSharedByThoseNotRunAlone) {
  World world;
  const auto sets = first_runs(world.m, 1000);
  for (const auto& names : sets) {
    if (names.size() < 2) continue;
    records::JointRun run{names, "plain", {0, 0}};
    for (const auto& group : world.groups)
      if (std::find(names.begin(), names.end(), group.name) != names.end())
        for (size_t k = 0; k < 2; ++k) run.kl[k] += (k == 0 ? 1 : 3) * world.real(group);
    world.m.joint.push_back(run);
  }
  ASSERT_FALSE(world.m.joint.empty());
  // Without any solo run, and with one in every third group.
  for (int pass = 0; pass < 2; ++pass) {
    const auto costs = predict_costs(world.m);
    for (const records::JointRun& run : world.m.joint) {
      std::array<double, 2> sum{};
      for (const GroupCosts& group : costs)
        if (std::find(run.groups.begin(), run.groups.end(), group.group.name) != run.groups.end())
          for (size_t k = 0; k < 2; ++k) sum[k] += group.options[0].kl[k];
      for (size_t k = 0; k < 2; ++k) EXPECT_NEAR(sum[k], run.kl[k], 1e-9 * run.kl[k]);
    }
    for (size_t g = 0; g < world.groups.size() && pass == 0; g += 3) world.run(world.groups[g]);
  }
}

TEST(Costs, AGroupThatOutweighsItsKindIsFoundByItsJointRun) {
  World world;
  const int64_t budget = world.m.inventory.bytes_all4() * 11 / 10;
  for (const auto& names : first_runs(world.m, 1000)) {
    if (names.size() < 3) continue;
    // The law holds for all but the last one of this kind, whose error tells nothing of what it costs.
    World one;
    const auto run = [&](const records::Group& group) {
      one.run(group);
      if (group.name == names.back())
        for (double& kl : one.m.solo.back().kl) kl *= 1000;
      return one.m.solo.back().kl;
    };
    const auto is = [&](const std::string& name) {
      return *std::find_if(one.groups.begin(), one.groups.end(),
                           [&](const auto& g) { return g.name == name; });
    };
    for (const auto& set : first_runs(one.m, 1000)) {
      records::JointRun joint{set, "plain", {0, 0}};
      for (const auto& name : set) {
        const auto kl = run(is(name));
        for (size_t k = 0; k < 2; ++k) joint.kl[k] += kl[k];
        if (set.size() > 1) one.m.solo.pop_back();
      }
      if (set.size() > 1) one.m.joint.push_back(joint);
    }
    // By half as many runs as there are groups, the plan keeps it, or it is known not to be worth its bytes.
    while (one.m.solo.size() + one.m.joint.size() < one.groups.size() / 2)
      for (const auto& name : uncertain_groups(one.m, budget, 1)) run(is(name));
    const auto costs = predict_costs(one.m);
    const auto chosen = choose_within(costs, budget - one.m.inventory.other_bytes, {1, 1});
    one.m.solo.clear();
    one.m.joint.clear();
    for (const auto& group : one.groups) run(group);
    const auto known = predict_costs(one.m);
    const auto best = choose_within(known, budget - one.m.inventory.other_bytes, {1, 1});
    EXPECT_LT(total_of(known, chosen), 1.5 * total_of(known, best)) << names.back();
  }
}

TEST(Costs, UncertainGroupsWereNotRunYet) {
  World world;
  for (size_t g = 0; g < world.groups.size(); g += 3) world.run(world.groups[g]);
  const auto names = uncertain_groups(world.m, world.m.inventory.bytes_all4() * 11 / 10, 5);
  EXPECT_EQ(names.size(), 5u);
  for (const auto& name : names)
    EXPECT_TRUE(std::none_of(world.m.solo.begin(), world.m.solo.end(),
                             [&](const auto& r) { return r.group == name; }));
}

TEST(Costs, ContestedGroupsAreTheNearestToWhereThePlanStops) {
  World world;
  world.run_all();
  const int64_t budget = world.m.inventory.bytes_all4() * 11 / 10;
  const auto few = contested_groups(world.m, budget, 5), all = contested_groups(world.m, budget, 1000);
  EXPECT_EQ(few.size(), 5u);
  EXPECT_EQ(all.size(), world.groups.size());
  EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin()));
}

/// Groups with random bytes and KLs.
std::vector<GroupCosts> random_costs(size_t n, uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto up_to = [&](uint64_t limit) { return static_cast<int64_t>(1 + generator() % limit); };
  std::vector<GroupCosts> out(n);
  for (GroupCosts& costs : out) {
    const auto four = up_to(100);
    costs.group.bytes4 = four;
    costs.group.bytes16 = four + up_to(200);
    costs.options = {{"plain",
                      four,
                      {1e-3 * static_cast<double>(up_to(1000)), 1e-3 * static_cast<double>(up_to(1000))},
                      true},
                     {"", costs.group.bytes16, {}, true}};
  }
  return out;
}

/// Calls f with every choice of options.
void for_each_choice(const std::vector<GroupCosts>& costs,
                     const std::function<void(const std::vector<int>&)>& f) {
  for (uint32_t bits = 0; bits < 1u << costs.size(); ++bits) {
    std::vector<int> chosen;
    for (size_t g = 0; g < costs.size(); ++g) chosen.push_back(static_cast<int>(bits >> g & 1));
    f(chosen);
  }
}

TEST(Choose, TheLeastWeightedKlOfAllChoicesThatFit) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const auto costs = random_costs(10, seed);
    const int64_t least = chosen_bytes(costs, std::vector<int>(10, 0)),
                  most = chosen_bytes(costs, std::vector<int>(10, 1));
    const int64_t budget = least + (most - least) / 3;
    const std::array<double, 2> weights = {2, 0.5};
    const auto cost = [&](const std::vector<int>& chosen) {
      const auto kl = predicted_kl(costs, chosen);
      return weights[0] * kl[0] + weights[1] * kl[1];
    };
    double best = cost(std::vector<int>(10, 0));
    for_each_choice(costs, [&](const auto& chosen) {
      if (chosen_bytes(costs, chosen) <= budget) best = std::min(best, cost(chosen));
    });
    const auto chosen = choose_within(costs, budget, weights);
    EXPECT_LE(chosen_bytes(costs, chosen), budget);
    EXPECT_NEAR(cost(chosen), best, 1e-12) << "sums in another order";
  }
}

TEST(Choose, WhereNothingFitsTheSmallest) {
  const auto costs = random_costs(6, 3);
  EXPECT_EQ(choose_within(costs, 0, {1, 1}), std::vector<int>(6, 0));
}

TEST(Choose, TheWorseModalityCounts) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const auto costs = random_costs(10, seed);
    const std::vector<int> none(10, 0);
    const auto reference = predicted_kl(costs, none);
    const int64_t budget = chosen_bytes(costs, none) + 400;
    const auto chosen = choose_worst_ratio(costs, budget, reference);
    EXPECT_LE(chosen_bytes(costs, chosen), budget);
    const double ours = worst_ratio(predicted_kl(costs, chosen), reference);
    // No worse than minding either modality alone, or both alike.
    for (const auto& weights :
         {std::array{1.0, 0.0}, std::array{0.0, 1.0}, std::array{0.5 / reference[0], 0.5 / reference[1]}})
      EXPECT_LE(ours,
                worst_ratio(predicted_kl(costs, choose_within(costs, budget, weights)), reference) + 1e-12);
  }
}

TEST(Choose, AModalityWithoutAReferenceTakesNoPart) {
  EXPECT_EQ(worst_ratio({1, 5}, {2, 0}), 0.5);
  const auto costs = random_costs(8, 5);
  EXPECT_EQ(choose_worst_ratio(costs, 900, {1, 0}), choose_within(costs, 900, {1, 0}));
}

TEST(Choose, TheObjectiveIsAWeightedSumOrTheWorstRatioToAllFourBit) {
  const auto costs = random_costs(8, 6);
  const auto all4 = predicted_kl(costs, std::vector<int>(8, 0));
  const Objective by_ratio = objective_for(costs, {});
  EXPECT_EQ(by_ratio.reference, all4);
  EXPECT_DOUBLE_EQ(by_ratio({all4[0] / 4, all4[1] / 2}), 0.5);
  EXPECT_EQ(choose(costs, 900, by_ratio), choose_worst_ratio(costs, 900, all4));
  const Objective text = objective_for(costs, std::array{0.0, 2.0});
  EXPECT_EQ(text({std::numeric_limits<double>::infinity(), 3}), 6) << "pictures do not count";
  EXPECT_GT(text({0, std::numeric_limits<double>::quiet_NaN()}), 1e100);
  EXPECT_FALSE(text.counts(0));
  EXPECT_TRUE(text.counts(1));
  EXPECT_EQ(choose(costs, 900, text), choose_within(costs, 900, {0, 2}));
}

TEST(Choose, TheSmallestPlanThatKeepsAKl) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const auto costs = random_costs(9, seed);
    const auto all4 = predicted_kl(costs, std::vector<int>(9, 0));
    const std::array<double, 2> limit = {all4[0] / 3, all4[1] / 3};
    const auto chosen = choose_for_kl(costs, limit);
    EXPECT_LE(worst_ratio(predicted_kl(costs, chosen), limit), 1);
    int64_t least = chosen_bytes(costs, std::vector<int>(9, 1));
    for_each_choice(costs, [&](const auto& other) {
      if (worst_ratio(predicted_kl(costs, other), limit) <= 1)
        least = std::min(least, chosen_bytes(costs, other));
    });
    // Weights between modalities are tried on a grid, so that a few bytes may be left on the table.
    EXPECT_LE(chosen_bytes(costs, chosen), least * 11 / 10);
  }
}

TEST(Plan, DynamicWithSoloRunsTakesTheLeastPredictedKl) {
  World world;
  world.run_all();
  const records::Plan plan = make_plan(world.m, "dynamic", "10%");
  const auto costs = predict_costs(world.m);
  const auto chosen = choice_of_plan(costs, plan);
  EXPECT_LE(plan.bytes, plan.budget_bytes);
  ASSERT_TRUE(plan.predicted);
  EXPECT_EQ(*plan.predicted, predicted_kl(costs, chosen));
  const records::Plan ranked = make_plan(world.m, "activation-error", "10%");
  EXPECT_LE((*plan.predicted)[0], predicted_kl(costs, choice_of_plan(costs, ranked))[0]);
  ASSERT_FALSE(plan.curve.empty());
  for (size_t i = 1; i < plan.curve.size(); ++i) EXPECT_GT(plan.curve[i].bytes, plan.curve[i - 1].bytes);
  EXPECT_EQ(plan.curve.back().predicted, (std::array{0.0, 0.0})) << "16 bit throughout";
  // Budgets in KL.
  const records::Plan small = make_plan(world.m, "dynamic", fmt::format("kl:{}", (*plan.predicted)[1] * 2));
  EXPECT_LE((*small.predicted)[1], (*plan.predicted)[1] * 2);
  EXPECT_LE(small.bytes, plan.bytes);
  EXPECT_EQ(make_plan(world.m, "dynamic", "match").budget, "match");
  EXPECT_THROW(make_plan(world.m, "dynamic", "kl:0.1", {.weights = std::array{1.0, 0.0}}), Error);
}

}  // namespace
}  // namespace nibble::plan
