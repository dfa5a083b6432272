// Plans of the policies: as snapshots, and their rules one by one.
#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "base/error.h"
#include "plan/errors.h"
#include "records/groups.h"
#include "records/snapshot.h"
#include "support/temp_folder.h"

namespace nibble::plan {
namespace {

using records::Measurements;
using records::Plan;
using ::testing::AllOf;
using testing::expect_snapshot;
using ::testing::HasSubstr;

/// tests/plan/goldens/measurements.json: 30 groups in 42 linears (make_measurements.py).
const Measurements& measured() {
  static const Measurements measurements = records::read_measurements("tests/plan/goldens/measurements.json");
  return measurements;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

/// A plan as people read a diff of it.
std::string text_of(const Plan& plan) {
  std::string text =
      fmt::format("policy {}, budget \"{}\": {} bytes of {}, all 4 bit {}, all 16 bit {}\n", plan.policy,
                  plan.budget, plan.bytes, plan.budget_bytes, plan.bytes_all4, plan.bytes_all16);
  for (const auto& d : plan.decisions)
    text += fmt::format("{:2} {:<33} {:.6f}  {}\n", d.keep ? "16" : "4", d.name, d.score, d.reason);
  return text;
}

std::set<std::string> kept(const Plan& plan) {
  std::set<std::string> names;
  for (const auto& d : plan.decisions)
    if (d.keep) names.insert(d.name);
  return names;
}

class PlanSnapshot : public ::testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {};

TEST_P(PlanSnapshot, IsAsCommitted) {
  const auto [name, policy, budget] = GetParam();
  expect_snapshot(fmt::format("plan/goldens/{}.txt", name), text_of(make_plan(measured(), policy, budget)));
}

INSTANTIATE_TEST_SUITE_P(Plan, PlanSnapshot,
                         ::testing::Values(std::tuple{"dynamic_10", "dynamic", "10%"},
                                           std::tuple{"dynamic_bpw", "dynamic", "6.5bpw"},
                                           std::tuple{"activation_error_10", "activation-error", "10%"},
                                           std::tuple{"weight_error_10", "weight-error", "10%"},
                                           std::tuple{"random_7_10", "random:7", "10%"},
                                           std::tuple{"vision", "vision", ""},
                                           std::tuple{"list", "list:tests/plan/goldens/keep.txt", ""}),
                         [](const auto& info) { return std::string(std::get<0>(info.param)); });

TEST(Plan, EveryPolicyKeepsItsPromises) {
  const auto& inventory = measured().inventory;
  for (const char* policy : {"dynamic", "activation-error", "weight-error", "random:1", "random:2"}) {
    for (const char* budget : {"0%", "1%", "5%", "10%", "20%", "50%", "100%", "1000%"}) {
      const Plan plan = make_plan(measured(), policy, budget);
      ASSERT_EQ(plan.decisions.size(), inventory.linears.size());
      EXPECT_EQ(plan.policy, policy);
      EXPECT_EQ(plan.budget, budget);
      EXPECT_EQ(plan.family, inventory.family);
      EXPECT_EQ(plan.bytes_all4, inventory.bytes_all4());
      EXPECT_EQ(plan.bytes_all16, inventory.bytes_all16());
      EXPECT_EQ(plan.budget_bytes, parse_budget(budget, inventory));
      int64_t bytes = inventory.other_bytes;
      std::map<std::string, bool> groups;
      for (size_t i = 0; i < plan.decisions.size(); ++i) {
        const auto& linear = inventory.linears[i];
        ASSERT_EQ(plan.decisions[i].name, linear.name);
        EXPECT_FALSE(plan.decisions[i].reason.empty());
        bytes += plan.decisions[i].keep ? linear.bytes16 : linear.bytes4;
        const auto [place, added] = groups.try_emplace(linear.group, plan.decisions[i].keep);
        EXPECT_EQ(place->second, plan.decisions[i].keep) << linear.name;
      }
      EXPECT_EQ(plan.bytes, bytes);
      EXPECT_LE(plan.bytes, plan.budget_bytes);
      // Nothing that is left would still fit.
      for (const auto& group : records::group_linears(inventory))
        if (!groups.at(group.name)) {
          EXPECT_GT(plan.bytes + group.extra_bytes(), plan.budget_bytes)
              << policy << " " << budget << " " << group.name;
        }
      EXPECT_EQ(make_plan(measured(), policy, budget), plan);
      EXPECT_EQ(records::plan_from_json(io::parse_json(io::dump_json(to_json(plan)), "p"), "p"), plan);
    }
  }
}

/// The sum over the groups left in 4 bits of their largest squared activation error.
double harm_left(const Plan& plan) {
  double harm = 0;
  for (const auto& group : records::group_linears(measured().inventory)) {
    double largest = 0;
    for (const size_t member : group.members)
      if (!plan.decisions[member].keep)
        largest = std::max(largest, expected_error(measured().errors[member]).error);
    harm += largest * largest;
  }
  return harm;
}

TEST(Plan, DynamicLeavesTheLeastHarm) {
  for (const char* budget : {"1%", "3%", "10%", "17.3%", "40%", "90%"}) {
    const double dynamic = harm_left(make_plan(measured(), "dynamic", budget));
    for (const char* other : {"activation-error", "weight-error", "random:1", "random:2", "random:3"})
      EXPECT_LE(dynamic, harm_left(make_plan(measured(), other, budget))) << budget << " " << other;
  }
}

TEST(Plan, AllAndNone) {
  const Plan all = make_plan(measured(), "all", ""), none = make_plan(measured(), "none", "");
  EXPECT_EQ(all.kept(), 0);
  EXPECT_EQ(all.bytes, all.bytes_all4);
  EXPECT_EQ(all.budget_bytes, 0);
  EXPECT_EQ(all.decisions[0].reason, "policy all");
  EXPECT_EQ(none.kept(), static_cast<int64_t>(none.decisions.size()));
  EXPECT_EQ(none.bytes, none.bytes_all16);
  EXPECT_EQ(make_plan(measured(), "all", "0%").bytes, all.bytes);
  EXPECT_EQ(make_plan(measured(), "none", "1000%").bytes, none.bytes);
  EXPECT_THAT(error_of([] { make_plan(measured(), "none", "10%"); }),
              AllOf(HasSubstr("policy \"none\""), HasSubstr("above the budget \"10%\"")));
}

TEST(Plan, PartsOfTheModel) {
  const auto vision = kept(make_plan(measured(), "vision", "")),
             projector = kept(make_plan(measured(), "projector", ""));
  EXPECT_EQ(projector, (std::set<std::string>{"visual.merger.mlp.0", "visual.merger.mlp.2"}));
  EXPECT_EQ(vision.size(), 14u);
  for (const auto& name : vision) EXPECT_TRUE(name.starts_with("visual.")) << name;
}

TEST(Plan, PoliciesWithoutMeasurementsNeedOnlyTheInventory) {
  Measurements bare;
  bare.inventory = measured().inventory;
  for (const auto& help : policies()) {
    std::string policy(help.name);
    if (policy == "random:SEED") policy = "random:5";
    if (policy == "list:FILE") policy = "list:tests/plan/goldens/keep.txt";
    const std::string budget = help.needs_budget ? "10%" : "";
    if (help.needs_measurements) {
      EXPECT_THAT(error_of([&] { make_plan(bare, policy, budget); }), HasSubstr("needs measurements"));
    } else {
      EXPECT_EQ(make_plan(bare, policy, budget), make_plan(measured(), policy, budget));
    }
    if (help.needs_budget) {
      EXPECT_THAT(error_of([&] { make_plan(measured(), policy, ""); }), HasSubstr("needs a budget"));
    }
  }
}

TEST(Plan, UnknownPoliciesListTheKnown) {
  for (const char* policy : {"", "dynamics", "Dynamic", ":", "randomly:7"})
    EXPECT_THAT(error_of([&] { find_policy(policy); }),
                AllOf(HasSubstr("unknown policy"), HasSubstr("activation-error, random:SEED, vision")));
  EXPECT_THAT(error_of([] { find_policy("all:3"); }), HasSubstr("all takes no argument"));
  EXPECT_THAT(error_of([] { find_policy("all:"); }), HasSubstr("all takes no argument"));
  EXPECT_THAT(error_of([] { find_policy("random"); }), HasSubstr("write random:SEED"));
  EXPECT_THAT(error_of([] { find_policy("list:"); }), HasSubstr("write list:FILE"));
  EXPECT_EQ(find_policy("random:7").name, "random:SEED");
  EXPECT_EQ(find_policy("list:a:b").name, "list:FILE");
}

TEST(Plan, SeedsOfRandom) {
  for (const char* seed : {"x", "-1", "7x", " 7", "1.5", "18446744073709551616"})
    EXPECT_THAT(error_of([&] { make_plan(measured(), fmt::format("random:{}", seed), "10%"); }),
                HasSubstr("seed"));
  EXPECT_NE(kept(make_plan(measured(), "random:1", "10%")), kept(make_plan(measured(), "random:2", "10%")));
  EXPECT_NO_THROW(make_plan(measured(), "random:18446744073709551615", "10%"));
}

/// Three groups of one linear each with these errors; 100 bytes more each in 16 bits than in 4.
Measurements three(std::array<double, 3> weights, std::array<records::ActivationError, 3> vision) {
  Measurements m;
  m.inventory.other_bytes = 1000;
  for (int i = 0; i < 3; ++i) {
    records::LinearRecord linear;
    linear.name = linear.group = fmt::format("l{}", i);
    linear.bytes16 = 200;
    linear.bytes4 = 100;
    m.inventory.linears.push_back(linear);
    m.errors.push_back({linear.name, weights[i], 0, {vision[i], {}}});
  }
  return m;
}

TEST(Plan, TiesBreakByOrder) {
  const auto m = three({0.1, 0.1, 0.1}, {{{10, 1, 4}, {10, 1, 4}, {10, 1, 4}}});
  for (const char* policy : {"dynamic", "weight-error", "activation-error"})
    EXPECT_EQ(kept(make_plan(m, policy, "1500 B")), (std::set<std::string>{"l0", "l1"})) << policy;
}

TEST(Plan, LinearsThatCalibrationNeverReachedCountByTheirWeightError) {
  const auto m = three({0.1, 0.9, 0.1}, {{{10, 1, 4}, {0, 0, 0}, {10, 0, 4}}});
  const Plan plan = make_plan(m, "dynamic", "1400 B");
  EXPECT_EQ(kept(plan), std::set<std::string>{"l1"});
  EXPECT_EQ(plan.decisions[1].reason, "weight error 0.9, rank 1 of 3 groups");
  EXPECT_EQ(plan.decisions[0].reason, "over budget");
  EXPECT_EQ(plan.decisions[2].reason, "no error in 4 bits");
  EXPECT_EQ(make_plan(m, "activation-error", "1600 B").decisions[1].reason,
            "no calibration rows, rank 2 of 3 groups");
}

TEST(Plan, InfiniteErrorsRankFirstAndStayFinite) {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto m = three({nan, 0.2, 0.3}, {{{10, 1, 4}, {10, 1, 0}, {10, nan, 4}}});
  const Plan plan = make_plan(m, "activation-error", "1400 B");
  EXPECT_EQ(kept(plan), std::set<std::string>{"l1"});
  EXPECT_EQ(plan.decisions[1].score, kLargestError);
  EXPECT_EQ(plan.decisions[2].score, kLargestError);
  EXPECT_EQ(kept(make_plan(m, "weight-error", "1400 B")), std::set<std::string>{"l0"});
  EXPECT_EQ(kept(make_plan(m, "dynamic", "1400 B")), std::set<std::string>{"l1"});
  EXPECT_NO_THROW(to_json(plan));
}

TEST(Plan, KeepsWhatIsSmallerInSixteenBits) {
  auto m = three({0.1, 0.2, 0.3}, {{{10, 1, 4}, {10, 2, 4}, {10, 3, 4}}});
  m.inventory.linears[0].bytes4 = 300;
  const Plan plan = make_plan(m, "dynamic", "0%");
  EXPECT_EQ(kept(plan), (std::set<std::string>{"l0", "l2"}));  // l0 pays for l2
  EXPECT_EQ(plan.decisions[0].reason, "16 bits take no more bytes than 4");
  EXPECT_EQ(plan.bytes, plan.bytes_all4);
}

/// The measurements with codes of feedback beside the plain ones, of so many bytes more in every linear.
Measurements with_feedback(int64_t more) {
  Measurements m = measured();
  m.rounding.kind = "feedback";
  for (size_t i = 0; i < m.errors.size(); ++i)
    m.errors[i].rounded = {.bytes4 = m.inventory.linears[i].bytes4 + more,
                           .weight = m.errors[i].weight,
                           .activation = m.errors[i].activation};
  return m;
}

TEST(Plan, AShareAllowsTheSmallestPlanOfItsCodes) {
  for (const int64_t more : {-200, 0, 200}) {
    const Measurements m = with_feedback(more);
    const int64_t all4 = m.inventory.bytes_all4(), least = all4 + more * std::ssize(m.errors);
    const Plan plan = make_plan(m, "dynamic", "0%");
    EXPECT_EQ(plan.budget_bytes, std::max(all4, least));
    EXPECT_LE(plan.bytes, plan.budget_bytes);
    if (more >= 0) {
      EXPECT_EQ(plan.kept(), 0);
    }
    EXPECT_EQ(make_plan(m, "dynamic", "0%", {.rounding = "plain"}).bytes, all4);
  }
}

TEST(Plan, TheLeastSizeIsThatOfItsCodes) {
  for (const int64_t more : {-200, 200}) {
    const Measurements m = with_feedback(more);
    const int64_t least = m.inventory.bytes_all4() + more * std::ssize(m.errors);
    EXPECT_EQ(make_plan(m, "dynamic", fmt::format("{}B", least)).bytes, least);
    EXPECT_THAT(error_of([&] { make_plan(m, "dynamic", fmt::format("{}B", least - 1)); }),
                HasSubstr(fmt::format("({} bytes) with every linear", least)));
  }
}

TEST(Plan, WithGroupsRunAloneTheSmallerCodesSetTheLeastSize) {
  for (const int64_t more : {-200, 200}) {
    Measurements m = with_feedback(more);
    m.inputs = {{"text", records::Modality::text, 5}};
    m.solo = {{m.inventory.linears[0].group, "feedback", {0.25}}};
    const int64_t all4 = m.inventory.bytes_all4(), rounded = all4 + more * std::ssize(m.errors);
    EXPECT_EQ(make_plan(m, "dynamic", fmt::format("{}B", std::min(all4, rounded))).bytes,
              std::min(all4, rounded));
    error_of([&] { make_plan(m, "dynamic", fmt::format("{}B", std::min(all4, rounded) - 1)); });
    const Plan plan = make_plan(m, "dynamic", "0%", {.rounding = "feedback"});
    EXPECT_LE(plan.bytes, plan.budget_bytes);
    EXPECT_EQ(plan.budget_bytes, std::max(all4, rounded));
  }
}

TEST(Plan, RankingPassesOverWhatDoesNotFit) {
  auto m = three({0.3, 0.2, 0.1}, {});
  m.inventory.linears[1].bytes16 = 1000;
  const Plan plan = make_plan(m, "weight-error", "1550 B");
  EXPECT_EQ(kept(plan), (std::set<std::string>{"l0", "l2"}));
  EXPECT_EQ(plan.decisions[2].reason, "weight error 0.1, rank 3 of 3 groups");
}

TEST(Plan, AModelWithoutLinears) {
  Measurements m;
  m.inventory.other_bytes = 1000;
  for (const char* policy : {"dynamic", "all", "none", "weight-error", "random:1", "vision"})
    EXPECT_EQ(make_plan(m, policy, "10%").bytes, 1000) << policy;
}

/// A list file that lives as long as the object.
class ListFile {
 public:
  explicit ListFile(const std::string& text) { std::ofstream(path(), std::ios::binary) << text; }
  std::string policy() const { return "list:" + path().string(); }

 private:
  std::filesystem::path path() const { return folder_ / "list.txt"; }

  test::TempFolder folder_;
};

TEST(PlanList, NamesParentsAndWeights) {
  const auto kept_by = [](const std::string& text) {
    const ListFile file(text);
    return kept(make_plan(measured(), file.policy(), ""));
  };
  using Names = std::set<std::string>;
  const Names merger = {"visual.merger.mlp.0", "visual.merger.mlp.2"};
  EXPECT_EQ(kept_by("visual.merger"), merger);
  EXPECT_EQ(kept_by("visual.merger.mlp"), merger);
  EXPECT_EQ(kept_by("\xef\xbb\xbfvisual.merger\r\n\r\n#x\r\n"), merger);
  EXPECT_EQ(kept_by("  visual.merger.mlp.2.weight # c"), Names{"visual.merger.mlp.2"});
  EXPECT_EQ(kept_by("visual.merger.mlp.0\nvisual.merger\nvisual.merger"), merger);
  EXPECT_EQ(kept_by(""), Names{});
  EXPECT_EQ(kept_by("# nothing\n\n"), Names{});
  // One member keeps its group.
  EXPECT_EQ(kept_by("model.layers.0.self_attn.k_proj"),
            (Names{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                   "model.layers.0.self_attn.v_proj"}));
  EXPECT_EQ(kept_by("model\nvisual").size(), measured().inventory.linears.size());
}

TEST(PlanList, WhatMatchesNothingIsNamedWithItsLine) {
  for (const char* text :
       {"\nvisual.merge", "#\nvisual.merger.mlp.", "x\n", "\n.weight", "\nlm_head", "\n.", "\nvisual merger",
        "\nvisual.merger.mlp.0.weight.weight", "\nvisual.blocks.0.mlp.fc11"}) {
    const ListFile file(text);
    EXPECT_THAT(error_of([&] { make_plan(measured(), file.policy(), ""); }),
                AllOf(HasSubstr("list.txt line "), HasSubstr("is no linear of this model")))
        << text;
  }
  const ListFile file("visual\n\nmodel.layers.9");
  EXPECT_THAT(error_of([&] { make_plan(measured(), file.policy(), ""); }),
              HasSubstr("line 3: \"model.layers.9\""));
  EXPECT_THAT(error_of([] { make_plan(measured(), "list:no/such/file", ""); }), HasSubstr("no/such/file"));
}

TEST(PlanList, LargeHostileListsEndSoon) {
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += i % 2 ? "model\n" : "visual.weight\n";
  const ListFile file(text);
  EXPECT_EQ(kept(make_plan(measured(), file.policy(), "")).size(), measured().inventory.linears.size());
}

TEST(PlanGroups, AreInOrderOfTheFirstMemberAndMayBeApart) {
  records::Inventory inventory;
  for (const char* group : {"b", "a", "b", "c", "a"}) {
    inventory.linears.emplace_back();
    inventory.linears.back().group = group;
    inventory.linears.back().bytes16 = 10;
    inventory.linears.back().bytes4 = 3;
  }
  const auto groups = records::group_linears(inventory);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].name, "b");
  EXPECT_EQ(groups[0].members, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(groups[1].members, (std::vector<size_t>{1, 4}));
  EXPECT_EQ(groups[1].extra_bytes(), 14);
  EXPECT_EQ(groups[2].bytes4, 3);
}

}  // namespace
}  // namespace nibble::plan
