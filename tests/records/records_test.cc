// Writing, reading and refusing of the records.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "base/error.h"
#include "records/groups.h"
#include "records/sample_records.h"
#include "records/snapshot.h"
#include "support/temp_folder.h"

namespace nibble::records {
namespace {

using testing::expect_snapshot;
using ::testing::HasSubstr;
using testing::sample_evaluation;
using testing::sample_measurements;
using testing::sample_multiple_choice;
using testing::sample_plan;
using testing::sample_text_evaluation;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The text of the Error that the call throws; a failure when it throws none.
std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

io::Json reread(const io::Json& json) {
  return io::parse_json(io::dump_json(json), "text");
}

TEST(Records, RoundTripsAreExact) {
  const auto m = sample_measurements();
  EXPECT_EQ(measurements_from_json(reread(to_json(m)), "m"), m);
  EXPECT_EQ(inventory_from_json(reread(to_json(m.inventory)), "i"), m.inventory);
  EXPECT_EQ(plan_from_json(reread(to_json(sample_plan())), "p"), sample_plan());
  EXPECT_EQ(evaluation_from_json(reread(to_json(sample_evaluation())), "e"), sample_evaluation());
  EXPECT_EQ(evaluation_from_json(reread(to_json(sample_text_evaluation())), "e"), sample_text_evaluation());
  EXPECT_EQ(multiple_choice_from_json(reread(to_json(sample_multiple_choice())), "c"),
            sample_multiple_choice());
  EXPECT_EQ(plan_from_json(reread(to_json([] {
                             Plan plan;
                             plan.family = "f", plan.policy = "all";
                             return plan;
                           }())),
                           "p")
                .decisions.size(),
            0u);
}

TEST(Records, EveryFiniteDoubleRoundTrips) {
  std::mt19937_64 generator(1);
  auto m = sample_measurements();
  for (int i = 0; i < 2000; ++i) {
    const uint64_t bits = generator() >> 1;  // not negative
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    m.errors[0].activation[0].noise = value;
    ASSERT_EQ(measurements_from_json(reread(to_json(m)), "m"), m) << value;
  }
}

TEST(Records, TextsOnDisk) {
  expect_snapshot("records/goldens/measurements.json", io::dump_json(to_json(sample_measurements())) + "\n");
  expect_snapshot("records/goldens/plan.json", io::dump_json(to_json(sample_plan())) + "\n");
  auto evaluation = sample_evaluation();
  evaluation.samples.resize(2);
  expect_snapshot("records/goldens/evaluation.json", io::dump_json(to_json(evaluation)) + "\n");
  expect_snapshot("records/goldens/texts.json", io::dump_json(to_json(sample_text_evaluation())) + "\n");
  expect_snapshot("records/goldens/multiple_choice.json",
                  io::dump_json(to_json(sample_multiple_choice())) + "\n");

  const std::filesystem::path goldens = std::filesystem::path(NIBBLE_ROOT) / "tests/records/goldens";
  EXPECT_EQ(read_measurements(goldens / "measurements.json"), sample_measurements());
  EXPECT_EQ(read_plan(goldens / "plan.json"), sample_plan());
  EXPECT_EQ(read_evaluation(goldens / "evaluation.json"), evaluation);
  EXPECT_EQ(read_evaluation(goldens / "texts.json"), sample_text_evaluation());
  EXPECT_EQ(read_multiple_choice(goldens / "multiple_choice.json"), sample_multiple_choice());
}

TEST(Records, WrongKindAndVersionSayWhatIsExpected) {
  auto json = to_json(sample_plan());
  EXPECT_THAT(
      error_of([&] { measurements_from_json(json, "a/p.json"); }),
      ::testing::AllOf(HasSubstr("a/p.json"), HasSubstr("\"plan\""), HasSubstr("expected \"measurements\"")));
  json["version"] = 7;
  EXPECT_THAT(error_of([&] { plan_from_json(json, "a/p.json"); }),
              ::testing::AllOf(HasSubstr("a/p.json"), HasSubstr("version 7"), HasSubstr("reads version 2")));
  json.erase("nibble");
  EXPECT_THAT(error_of([&] { plan_from_json(json, "a/p.json"); }), HasSubstr("no \"nibble\" field"));
  EXPECT_THAT(error_of([] { plan_from_json(io::Json::array(), "a/p.json"); }), HasSubstr("a/p.json"));
}

TEST(Records, MissingFilesAreNamed) {
  EXPECT_THAT(error_of([] { read_plan("no/such/plan.json"); }), HasSubstr("no/such/plan.json"));
}

/// A change of one value by its path, and what the error must say.
struct Spoiled {
  const char* path;
  io::Json value;  // null removes the field
  const char* message;
};

/// Applies every change alone, and expects an error that names the file and says `message`.
void expect_refused(const io::Json& good, const std::vector<Spoiled>& list,
                    const std::function<void(const io::Json&, const std::string&)>& read) {
  EXPECT_NO_THROW(read(good, "dir/f.json"));
  for (const auto& [path, value, message] : list) {
    io::Json json = good;
    const io::Json::json_pointer pointer(path);
    if (value.is_null())
      json.at(pointer.parent_pointer()).erase(pointer.back());
    else
      json[pointer] = value;
    const std::string error = error_of([&] { read(json, "dir/f.json"); });
    EXPECT_THAT(error, HasSubstr("dir/f.json")) << path;
    EXPECT_THAT(error, HasSubstr(message)) << path;
    EXPECT_EQ(error.find('\n'), std::string::npos) << path;
  }
}

TEST(Records, EveryFieldIsNeeded) {
  const auto check = [](const io::Json& good, const std::string& at, const auto& read) {
    for (const auto& [key, value] : good.at(io::Json::json_pointer(at)).items())
      expect_refused(good, {{(at + "/" + key).c_str(), nullptr, key.c_str()}}, read);
  };
  const auto measurements = [](const io::Json& j, const std::string& w) { measurements_from_json(j, w); };
  records::Measurements silent = sample_measurements();
  silent.noise.reset();
  check(to_json(silent), "", measurements);
  for (const char* at :
       {"/noise", "/rows", "/inventory", "/inventory/linears/1", "/errors/2", "/errors/2/activation",
        "/errors/2/activation/text", "/errors/1/rounded", "/rounding", "/inputs/0", "/solo/1"})
    check(to_json(sample_measurements()), at, measurements);
  const auto plan = [](const io::Json& j, const std::string& w) { plan_from_json(j, w); };
  for (const char* at : {"/decisions/1", "/rounding", "/predicted", "/verification", "/verification/inputs",
                         "/verification/runs/0", "/verification/runs/1/kl", "/verification/runs/1/kl/text",
                         "/curve/1", "/curve/1/predicted"})
    check(to_json(sample_plan()), at, plan);
  records::Plan unverified = sample_plan();
  unverified.predicted.reset();
  unverified.verification.reset();
  check(to_json(unverified), "", plan);
  for (const char* at : {"", "/answers", "/answers/kl", "/texts", "/texts/perplexity", "/samples/3"})
    check(to_json(sample_text_evaluation()), at,
          [](const io::Json& j, const std::string& w) { evaluation_from_json(j, w); });
  for (const char* at :
       {"", "/accuracy", "/categories/1", "/categories/1/accuracy", "/subjects/2", "/subjects/2/questions/1"})
    check(to_json(sample_multiple_choice()), at,
          [](const io::Json& j, const std::string& w) { multiple_choice_from_json(j, w); });
}

TEST(Records, JointRunsAndWhatTheyAreComparedBy) {
  Measurements m = sample_measurements();
  m.fuse = false;
  std::vector<std::string> names;
  for (const auto& group : group_linears(m.inventory, m.fuse)) names.push_back(group.name);
  ASSERT_GE(names.size(), 3u);
  m.solo.clear();
  m.joint = {{{names[0], names[1]}, "plain", {0.5, 0.25}}};
  const io::Json good = to_json(m);
  EXPECT_EQ(measurements_from_json(good, "m"), m);
  const auto read = [](const io::Json& j, const std::string& w) { measurements_from_json(j, w); };
  expect_refused(good,
                 {{"/joint/0/groups/1", "nothing", "no group \"nothing\""},
                  {"/joint/0/groups/1", names[0], "is in two joint runs"},
                  {"/joint/0/groups", {names[0]}, "fewer than two"},
                  {"/joint/0/kl", {1.0}, "\"kl\" has 1 entries for 2 inputs"},
                  {"/joint/0/rounding", nullptr, "rounding"}},
                 read);

  Plan plan = sample_plan();
  plan.verification->runs[1].decided = {0.5, 0.25};
  plan.verification->runs[1].typical = {0.125, 0.0625};
  EXPECT_EQ(plan_from_json(to_json(plan), "p"), plan);

  // The cube of the mean of cube roots, by positions.
  const std::vector<MeasuredInput> inputs = {
      {"a", Modality::text, 1}, {"b", Modality::vision, 7}, {"c", Modality::text, 3}};
  EXPECT_NEAR(typical_kl(inputs, std::vector{8.0, 5.0, 0.0}, Modality::text), 0.125, 1e-15);
  EXPECT_NEAR(typical_kl(inputs, std::vector{8.0, 5.0, 0.0}, Modality::vision), 5, 1e-14);
  EXPECT_EQ(typical_kl({}, {}, Modality::text), 0);
}

TEST(Records, BadMeasurementsAreRefused) {
  const std::vector<Spoiled> list = {
      {"/rounding/kind", "best", "\"best\"; \"plain\", \"search\" and \"feedback\" are known"},
      {"/rounding/mix", 1.5, "mix"},
      {"/effort", "some", "\"effort\" is \"some\""},
      {"/inputs/0/modality", "sound", "modality"},
      {"/solo/0/group", "nothing", "no group \"nothing\""},
      {"/solo/0/rounding", "search", "made with \"feedback\""},
      {"/solo/0/rounding", "feedback", "occurs twice"},
      {"/solo/0/kl", {1.0}, "\"kl\" has 1 entries for 2 inputs"},
      {"/solo/0/kl", {1.0, -1.0}, "no number from 0"},
      {"/rounding/kind", "plain", "\"rounded\" is there"},
      {"/errors/0/rounded", nullptr, "\"rounded\" is missing"},
      {"/inventory/linears/1/bytes4", -1, "linears[1]"},
      {"/inventory/linears/1/bytes4", -1, "\"bytes4\" is -1"},
      {"/inventory/linears/1/bytes4", "many", "bytes4"},
      {"/inventory/linears/1/bytes4", 1.5, "bytes4"},
      {"/inventory/linears/1/bytes16", 7, "takes 524288 bytes"},
      {"/inventory/linears/1/shape", {512}, "\"shape\""},
      {"/inventory/linears/1/shape", {512, 0}, "\"shape\""},
      {"/inventory/linears/1/shape", {512, -512}, "\"shape\""},
      {"/inventory/linears/1/shape", {18446744073709551615u, 1}, "\"shape\""},
      {"/inventory/linears/1/shape", {int64_t{1} << 40, int64_t{1} << 40}, "too many"},
      {"/inventory/linears/1/dtype", "U8", "\"U8\""},
      {"/inventory/linears/1/dtype", "BF\n16", "BF\\n16"},
      {"/inventory/linears/1/part", "audio", "expected one of vision, projector, text"},
      {"/inventory/linears/1/role", "", "\"role\""},
      {"/inventory/linears/1/depth", -1, "depth"},
      {"/inventory/linears/1/group", "", "\"group\" is empty"},
      {"/inventory/linears/1/name", "visual.blocks.0.attn.qkv",
       "linears[1]: the name \"visual.blocks.0.attn.qkv\""},
      {"/inventory/linears/1/colour", "red", "unknown field \"colour\""},
      {"/inventory/linears/1", 5, "linears[1]"},
      {"/inventory/linears", 5, "linears"},
      {"/inventory/other_bytes", -1, "other_bytes"},
      {"/inventory/other_bytes", std::numeric_limits<int64_t>::max(), "too many"},
      {"/inventory/parameters", -1, "parameters"},
      {"/inventory/parameters", 0, "inventory: \"parameters\" is 0; expected 1 or more"},
      {"/inventory/linears/1/bytes4", 0, "linears[1]: \"bytes4\" is 0; expected 1 to 528384"},
      {"/inventory/linears/1/bytes4", 528'385, "\"bytes4\" is 528385"},
      {"/errors/1/rounded/bytes4", 0, "errors[1].rounded: \"bytes4\" is 0"},
      {"/errors/1/rounded/bytes4", 528'385, "\"bytes4\" is 528385; expected 1 to 528384"},
      {"/inputs/1/positions", 0, "inputs[1]: \"positions\" is 0; expected 1 or more"},
      {"/samples", 3, "\"samples\" is 3, but \"inputs\" lists 2"},
      {"/window", 0, "\"window\" is 0; expected 2 to 1048576"},
      {"/window", 1, "\"window\" is 1; expected 2 to 1048576"},
      {"/window", 1'048'577, "\"window\" is 1048577"},
      {"/solo/0/kl",
       {1.0, 1'000'001.0},
       "solo[0]: \"kl\" holds something that is no number from 0 to 1000000"},
      {"/solo/0/kl", {1.0, kInfinity}, "solo[0]: \"kl\" holds"},
      {"/solo/0/kl", {kNan, 1.0}, "solo[0]: \"kl\" holds"},
      {"/noise/vision", 1e7, "noise: \"vision\" is 10000000; expected a KL of at most 1000000 nats"},
      {"/inventory/version", 0, "version 0"},
      {"/inventory/family", "", "family"},
      {"/errors/1/name", "x",
       "errors[1]: \"name\" is \"x\", but the inventory has \"visual.merger.mlp.0\" there"},
      {"/errors", io::Json::array(), "0 entries, but the inventory has 4"},
      {"/errors/4", to_json(sample_measurements())["errors"][3], "5 entries"},
      {"/errors/1/weight", -0.1, "weight"},
      {"/errors/1/weight", kInfinity, "weight"},
      {"/errors/1/largest_block", kNan, "largest_block"},
      {"/errors/1/activation/vision/noise", kInfinity, "noise"},
      {"/errors/1/activation/vision/signal", -1, "signal"},
      {"/errors/1/activation/vision/rows", -1, "rows"},
      {"/errors/1/activation/text/noise", 1, "of 0 rows"},
      {"/errors/1/activation/audio", io::Json::object(), "audio"},
      {"/rows/audio", 1, "audio"},
      {"/rows/text", -1, "text"},
      {"/samples", -1, "samples"},
      {"/data", {1}, "data"},
      {"/compute", "f16", "expected \"f32\" or \"bf16\""},
      {"/extra", 1, "unknown field \"extra\""},
  };
  expect_refused(to_json(sample_measurements()), list,
                 [](const io::Json& j, const std::string& w) { measurements_from_json(j, w); });
}

TEST(Records, BadPlansAreRefused) {
  const std::vector<Spoiled> list = {
      {"/decisions/1/rounding", "search", "the plan's is \"feedback\""},
      {"/verification/chosen", 2, "\"chosen\" is 2, but there are 2 runs"},
      {"/predicted/text", -1.0, "text"},
      {"/verification/runs/1/kl/vision/high", 1e7, "vision: \"high\" is 10000000; expected a KL of at most"},
      {"/window", 0, "\"window\" is 0; expected 2 to 1048576"},
      {"/window", 1'048'577, "\"window\" is 1048577"},
      {"/data/0", 3, "no string"},
      {"/bytes", -1, "bytes"},
      {"/budget_bytes", -5, "budget_bytes"},
      {"/measurements_digest", "xyz", "measurements_digest"},
      {"/decisions/1/name", "visual.blocks.0.attn.qkv",
       "decisions[1]: the name \"visual.blocks.0.attn.qkv\""},
      {"/decisions/1/keep", 1, "keep"},
      {"/decisions/1/score", kNan, "score"},
      {"/decisions/1/reason", 3, "reason"},
      {"/decisions/1/why", "", "why"},
      {"/policy", "", "policy"},
  };
  expect_refused(to_json(sample_plan()), list,
                 [](const io::Json& j, const std::string& w) { plan_from_json(j, w); });
}

TEST(Records, WidestInputsOfMatricesAreNamedWhereThereAreWider) {
  auto plan = testing::sample_plan();
  EXPECT_FALSE(to_json(plan).at("rounding").contains("widest"));
  plan.rounding.widest = 8192;
  EXPECT_EQ(plan_from_json(to_json(plan), "p"), plan);
  expect_refused(to_json(plan), {{"/rounding/widest", "8192", "widest"}, {"/rounding/widest", -1, "widest"}},
                 [](const io::Json& j, const std::string& w) { plan_from_json(j, w); });
}

TEST(Records, RoundingInOrderIsNamedWhereItIs) {
  auto plan = testing::sample_plan();
  EXPECT_FALSE(to_json(plan).at("rounding").contains("in_order"));
  plan.rounding.in_order = true;
  EXPECT_EQ(plan_from_json(to_json(plan), "p"), plan);
  expect_refused(to_json(plan),
                 {{"/rounding/in_order", 1, "in_order"},
                  {"/rounding/kind", "search", "\"in_order\" is true, which goes with \"feedback\" alone"}},
                 [](const io::Json& j, const std::string& w) { plan_from_json(j, w); });
}

TEST(Records, AWindowOfNothingIsZero) {
  auto plan = testing::sample_plan();
  plan.rounding = {};
  plan.decisions[1].rounding = "plain";
  plan.window = 0;
  EXPECT_EQ(plan_from_json(to_json(plan), "p"), plan);
  auto measurements = sample_measurements();
  measurements.data.clear();
  measurements.window = 0;
  EXPECT_EQ(measurements_from_json(to_json(measurements), "m"), measurements);
}

TEST(Records, PlansMayBeEditedByHand) {
  auto json = to_json(sample_plan());
  json["decisions"][2]["keep"] = false;  // one member of a group, against the others
  json["bytes"] = 5.0;
  const Plan plan = plan_from_json(json, "p");
  EXPECT_EQ(plan.kept(), 2);
  EXPECT_EQ(sample_plan().kept(), 3);
}

TEST(Records, BadEvaluationsAreRefused) {
  const std::vector<Spoiled> list = {
      {"/tensor_bytes", -1, "tensor_bytes"},
      {"/samples/3/positions", -1, "samples[3]"},
      {"/samples/3/agreement", 1.5, "agreement"},
      {"/samples/3/loss", kNan, "loss"},
      {"/samples/3/exact", "yes", "exact"},
      {"/answers/kl/low", 2.0, "\"low\" is above \"high\""},
      {"/answers/loss/mean", kInfinity, "mean"},
      {"/samples/3/generated", false, "nothing was generated"},
      {"/samples/3/generated", 1, "generated"},
      {"/samples/3/plain", true, "only read"},
      {"/samples/3/bytes", -1, "bytes"},
      {"/answers/perplexity", 1, "unknown field"},
      {"/texts", io::Json::object(), "no such samples"},
      {"/samples/3/modality", "sound", "modality"},
      {"/prompt_answers", io::Json::object(), "no such samples"},
  };
  expect_refused(to_json(sample_evaluation()), list,
                 [](const io::Json& j, const std::string& w) { evaluation_from_json(j, w); });
}

TEST(Records, ComparisonsComeBackAsTheyWere) {
  EXPECT_EQ(comparison_from_json(reread(to_json(testing::sample_comparison())), "c"),
            testing::sample_comparison());
  const auto read = [](const io::Json& j, const std::string& w) { comparison_from_json(j, w); };
  const std::vector<Spoiled> list = {
      {"/1/bytes", -1, "bytes"},
      {"/0/result", nullptr, "result"},
      {"/1/evaluation/tensor_bytes", -1, "tensor_bytes"},
      {"/1/evaluation/version", 99, "[1]"},
      {"/1/policy", "", "policy"},
      {"/1/plan/bytes", -1, "bytes"},
      {"/1/spread/seeds", nullptr, "seeds"},
      {"/1/spread/pictures/low", 0.75, "\"low\" is above \"high\""},
      {"/1/spread/prompts", 1, "prompts"},
      {"/1/colour", 1, "unknown field"},
  };
  expect_refused(to_json(testing::sample_comparison()), list, read);
  EXPECT_THROW(read(io::Json::object(), "c"), Error);
}

TEST(Records, BadMultipleChoiceIsRefused) {
  const std::vector<Spoiled> list = {
      {"/subjects/1/questions/2/choice", "E", "subjects[1]: questions[2]"},
      {"/subjects/1/questions/2/choice", "E", "expected A, B, C or D"},
      {"/subjects/1/questions/2/answer", "AB", "\"answer\""},
      {"/subjects/1/questions/2/reference", 1, "reference"},
      {"/subjects/1/questions/2/line", -1, "line"},
      {"/subjects/1/questions/2/log_probabilities", {1, 2, 3}, "3 entries"},
      {"/subjects/1/questions/2/log_probabilities/1", "x", "finite"},
      {"/subjects/1/questions/2/log_probabilities/1", kNan, "finite"},
      {"/subjects/1/name", "", "\"name\" is empty"},
      {"/subjects/1/colour", "red", "unknown field"},
      {"/accuracy/hits", 99, "99 hits of 16"},
      {"/accuracy/low", 0.99, "\"low\" is above"},
      {"/categories/0/accuracy/high", 1.5, "share"},
      {"/against", "", "\"against\""},
      {"/shots", -1, "shots"},
      {"/special_tokens", 1, "special_tokens"},
      {"/version", 9, "version 9"},
  };
  expect_refused(to_json(sample_multiple_choice()), list,
                 [](const io::Json& j, const std::string& w) { multiple_choice_from_json(j, w); });
}

TEST(Records, TwoSpellingsOfOneFieldInAFileAreRefused) {
  std::string text = io::dump_json(to_json(sample_plan()));
  text.replace(text.find("\"keep\": true"), 12, "\"keep\": true, \"keep\": false");
  const test::TempFolder folder;
  const std::filesystem::path path = folder / "twice.json";
  std::ofstream(path) << text;
  EXPECT_THAT(error_of([&] { read_plan(path); }), HasSubstr("keep"));
}

TEST(Records, DamagedTextsAreReadOrRefused) {
  const std::array goldens = {
      io::dump_json(to_json(sample_measurements())), io::dump_json(to_json(sample_plan())),
      io::dump_json(to_json(sample_text_evaluation())), io::dump_json(to_json(sample_multiple_choice()))};
  std::mt19937_64 generator(3);
  int refused = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    const size_t kind = trial % 4;
    std::string text = goldens[kind];
    for (int damage = 0; damage < 2; ++damage) {
      constexpr std::string_view characters = "0123456789-.e\"{}[],:nul\x01\xff";
      text[generator() % std::min<size_t>(text.size(), 4000)] = characters[generator() % characters.size()];
    }
    try {
      const io::Json json = io::parse_json(text, "f.json", io::DuplicateKeys::refuse);
      if (kind == 0) measurements_from_json(json, "f.json");
      if (kind == 1) plan_from_json(json, "f.json");
      if (kind == 2) evaluation_from_json(json, "f.json");
      if (kind == 3) multiple_choice_from_json(json, "f.json");
    } catch (const Error& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("f.json"));
    }
  }
  EXPECT_GT(refused, 500);
  EXPECT_LT(refused, 4000);
}

TEST(Records, WhatIsNotFiniteIsNeverWritten) {
  auto m = sample_measurements();
  m.errors[1].activation[0].noise = kInfinity;
  EXPECT_THAT(error_of([&] { to_json(m); }), HasSubstr("visual.merger.mlp.0: \"noise\" is inf"));
  auto e = sample_evaluation();
  e.samples[3].loss = kNan;
  summarize(e);
  EXPECT_TRUE(std::isnan(e.answers->loss.mean));
  EXPECT_THAT(error_of([&] { to_json(e); }), HasSubstr("images/3.jpg: \"loss\" is nan"));
  auto p = sample_plan();
  p.decisions[0].score = kInfinity;
  EXPECT_THAT(error_of([&] { to_json(p); }), HasSubstr("score"));
}

TEST(Records, TextsThatAreNoUtf8AreReplaced) {
  auto plan = sample_plan();
  plan.model = "caf\xe9/model";
  EXPECT_EQ(plan_from_json(reread(to_json(plan)), "p").model, "caf\xef\xbf\xbd/model");
}

TEST(Records, TotalsOfBytes) {
  const auto inventory = sample_measurements().inventory;
  int64_t all4 = 100'000, all16 = 100'000;
  for (const auto& linear : inventory.linears) all4 += linear.bytes4, all16 += linear.bytes16;
  EXPECT_EQ(inventory.bytes_all4(), all4);
  EXPECT_EQ(inventory.bytes_all16(), all16);
  EXPECT_EQ(all16, 100'000 + 2 * (384 * 128 + 512 * 512 + 192 * 192 + 64 * 192));
}

TEST(Records, NamesOfEnumerators) {
  EXPECT_EQ(modality_name(Modality::vision), "vision");
  EXPECT_EQ(modality_name(Modality::text), "text");
  EXPECT_EQ(part_name(Part::projector), "projector");
  EXPECT_EQ(role_name(Role::qkv), "qkv");
  EXPECT_EQ(role_name(Role::attention_out), "attention_out");
  EXPECT_EQ(role_name(Role::gate_up), "gate_up");
  EXPECT_EQ(role_name(Role::projector), "projector");
  auto inventory = sample_measurements().inventory;
  for (int role = 0; role <= static_cast<int>(Role::projector); ++role) {
    inventory.linears[0].role = static_cast<Role>(role);
    EXPECT_EQ(inventory_from_json(to_json(inventory), "i"), inventory);
  }
}

TEST(Records, RelativeActivationError) {
  EXPECT_EQ((ActivationError{10, 4, 100}).relative(), 0.2);
  EXPECT_EQ((ActivationError{0, 0, 0}).relative(), 0);
  EXPECT_EQ((ActivationError{10, 0, 0}).relative(), 0);
  EXPECT_EQ((ActivationError{10, 1, 0}).relative(), kInfinity);
}

}  // namespace
}  // namespace nibble::records
