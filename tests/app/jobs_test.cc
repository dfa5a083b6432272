// Whole jobs of the program: the same bytes for any threads, a model restored, its report, policies compared.
#include <fstream>
#include <set>

#include "app/program.h"
#include "io/checkpoint.h"

namespace nibble {
namespace {

TEST_F(Cli, TheSameBytesForAnyNumberOfThreads) {
  const std::string data = " --data " NIBBLE_ROOT "/pictures/calibration/samples.jsonl --budget 20% -o ";
  ASSERT_EQ(nibble("quantize --threads 1 " + kModel + data + temp("one")).code, 0);
  ASSERT_EQ(nibble("quantize --threads 3 " + kModel + data + temp("three")).code, 0);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(temp("one"))) {
    const std::string name = entry.path().filename().string();
    if (name == "nibble.json") continue;  // holds the command, which differs
    EXPECT_EQ(io::read_file(entry.path()), io::read_file(fs::path(temp("three")) / name)) << name;
    ++files;
  }
  EXPECT_GT(files, 5);
  const auto one = io::read_json(fs::path(temp("one")) / "nibble.json");
  const auto three = io::read_json(fs::path(temp("three")) / "nibble.json");
  EXPECT_EQ(one["plan"], three["plan"]);
}

TEST_F(Cli, TheMainJobRestoresTheModel) {
  const std::string data = " --data " NIBBLE_ROOT "/pictures/";
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  ASSERT_EQ(nibble("quantize " + kModel + data + "calibration --budget 28% -o " + temp("dynamic")).code, 0);
  const auto kl = [&](const std::string& model) {
    const Outcome o =
        nibble("eval " + model + data + "evaluation --compute f32 --against " + kModel + " --json -");
    EXPECT_EQ(o.code, 0) << o.err;
    return io::parse_json(o.out, "eval")["answers"]["kl"]["mean"].get<double>();
  };
  const double all = kl(temp("all")), dynamic = kl(temp("dynamic"));
  EXPECT_GT(all, 0.05) << "the planted outliers break the all-4-bit model";
  EXPECT_LT(dynamic, 0.01 * all);
  // Its record makes the same codes again.
  ASSERT_EQ(
      nibble("quantize " + kModel + " --plan " + temp("dynamic/nibble.json") + " -o " + temp("again")).code,
      0);
  EXPECT_EQ(io::read_file(temp("again/model.safetensors")), io::read_file(temp("dynamic/model.safetensors")));

  // The plan finds the linears that were planted, without having been told.
  const auto report = io::read_json(kModel + "/training_report.json");
  const auto published = [](std::string name) {
    for (const auto& [from, to] :
         {std::pair{"model.visual.", "visual."}, std::pair{"model.language_model.", "model."}})
      if (name.starts_with(from)) return to + name.substr(std::string(from).size());
    return name;
  };
  const auto found = [&](const std::string& folder) {
    std::set<std::string> kept;
    const auto made = io::read_json(fs::path(folder) / "nibble.json");
    for (const auto& decision : made["plan"]["decisions"])
      if (decision["keep"].get<bool>()) kept.insert(decision["name"].get<std::string>());
    return std::count_if(report["planted"].begin(), report["planted"].end(), [&](const io::Json& plant) {
      return std::all_of(plant["readers"].begin(), plant["readers"].end(), [&](const io::Json& reader) {
        return kept.contains(published(reader.get<std::string>()));
      });
    });
  };
  EXPECT_EQ(report["planted"].size(), 8u);
  EXPECT_GE(found(temp("dynamic")), 7);
  ASSERT_EQ(nibble("quantize " + kModel + data +
                   "calibration --budget 28% --rounding plain --effort none -o " + temp("plain"))
                .code,
            0);
  EXPECT_LT(kl(temp("plain")), 0.01 * all);
  EXPECT_GE(found(temp("plain")), 7);
}

// TheMainJob: long under sanitizers.
TEST_F(Cli, TheMainJobHeedsWeightsOfTheModalitiesToTheEnd) {
  std::ifstream texts(NIBBLE_ROOT "/texts/calibration.jsonl");
  std::ofstream few(temp("few.jsonl"));
  std::string line;
  for (int i = 0; i < 8 && std::getline(texts, line); ++i) {
    io::Json text = io::parse_json(line, "text");
    text["text"] = text["text"].get<std::string>().substr(0, 300);
    few << text << "\n";
  }
  few.close();
  const std::string job = "quantize " + kModel + " --data " NIBBLE_ROOT "/pictures/calibration --data " +
                          temp("few.jsonl") + " --no-guard --budget 8% -o ";
  std::array<io::Json, 2> made;
  for (size_t m = 0; m < 2; ++m) {
    const Outcome o =
        nibble(job + temp(m == 0 ? "pictures" : "texts") + " --weights " + (m == 0 ? "1,0" : "0,1"));
    ASSERT_EQ(o.code, 0) << o.err;
    made[m] = io::read_json(fs::path(temp(m == 0 ? "pictures" : "texts")) / "nibble.json")["plan"];
    // Of the plans that were compared, the least typical KL of the modality that counts.
    const io::Json& verification = made[m]["verification"];
    const char* name = m == 0 ? "vision" : "text";
    const std::string label = verification["runs"].back()["label"].get<std::string>();
    ASSERT_THAT(label, testing::EndsWith(", in order"));
    EXPECT_EQ(verification["chosen"] == verification["runs"].size() - 1,
              made[m]["rounding"].contains("in_order"));
    const auto chosen = std::find_if(
        verification["runs"].begin(), verification["runs"].end(),
        [&](const io::Json& run) { return label == run["label"].get<std::string>() + ", in order"; });
    ASSERT_NE(chosen, verification["runs"].end());
    for (const io::Json& run : verification["runs"]) {
      if (!run.contains("typical")) continue;
      EXPECT_LE((*chosen)["typical"][name].get<double>(), run["typical"][name].get<double>()) << run["label"];
    }
  }
  EXPECT_NE(made[0]["decisions"], made[1]["decisions"]);
}

TEST_F(Cli, RecordedSizesAreExactWhetherABudgetNeedsThemOrNot) {
  for (const std::string policy : {"all", "vision", "int8", "none"}) {
    const auto plan = [&](const std::string& out, const std::string& budget) {
      EXPECT_EQ(nibble("quantize " + kModel + " --policy " + policy + budget + " -o " + temp(out)).code, 0);
      return io::read_json(fs::path(temp(out)) / "nibble.json")["plan"];
    };
    const io::Json without = plan(policy, "");
    io::Json with = plan(policy + "-budget", " --budget 1GiB");
    EXPECT_EQ(with["budget"], "1GiB");
    for (const char* key : {"budget", "budget_bytes"}) with[key] = without[key];
    EXPECT_EQ(without, with) << policy;
  }
}

TEST_F(Cli, ReportAndCardOfAWrittenCheckpoint) {
  io::write_file(temp("few.jsonl"), "{\"image\": \"" + kPicture +
                                        "\", \"prompt\": \"Describe this image.\", "
                                        "\"answer\": \"Nothing.\"}\n");
  const std::string few = " --data " + temp("few.jsonl");
  ASSERT_EQ(nibble("measure " + kModel + few + " -o " + temp("m.json")).code, 0);
  ASSERT_EQ(nibble("quantize " + kModel + " --measurements " + temp("m.json") + " -o " + temp("q")).code, 0);
  ASSERT_EQ(nibble("eval " + temp("q") + few + " --against " + kModel + " --json " + temp("e.json")).code, 0);
  const Outcome compare = nibble("compare " + kModel + " " + temp("q") + few + " --json");
  ASSERT_EQ(compare.code, 0);
  io::write_file(temp("c.json"), compare.out);
  const std::string records = " --measurements " + temp("m.json") + " --plan " + temp("q/nibble.json") +
                              " --compare " + temp("c.json") + " --evaluation 'a <b>=" + temp("e.json") +
                              "' -o ";
  ASSERT_EQ(nibble("report" + records + temp("a.html")).code, 0);
  ASSERT_EQ(nibble("report" + records + temp("b.html")).code, 0);
  const std::string html = io::read_file(temp("a.html"));
  EXPECT_EQ(html, io::read_file(temp("b.html")));
  for (const char* part : {"visual.blocks.0.mlp.fc1", "a &lt;b&gt;", "The models compared"})
    EXPECT_TRUE(html.find(part) != std::string::npos) << part;
  // Of one model alone, what is not as expected is shown with its picture.
  ASSERT_EQ(nibble("report --evaluation one=" + temp("e.json") + " -o " + temp("one.html")).code, 0);
  const std::string one = io::read_file(temp("one.html"));
  for (const char* part :
       {"src=\"data:image/png;base64,", "<dt>expected</dt><dd>Nothing.</dd>", "<mark>The image shows"})
    EXPECT_TRUE(one.find(part) != std::string::npos) << part;

  expect_error("report -o " + temp("n.html"), "nothing to report");
  expect_error("report --evaluation " + temp("e.json") + " -o " + temp("n.html"), "NAME=FILE");
  expect_error("report --plan " + temp("m.json") + " -o " + temp("n.html"), "m.json");
  io::Json other = io::read_json(temp("m.json"));
  for (const char* list : {"linears", "errors"}) {
    io::Json& items = list == std::string("errors") ? other["errors"] : other["inventory"]["linears"];
    items[0]["name"] = "another";
  }
  io::write_file(temp("other.json"), io::dump_json(other));
  expect_error("report --plan " + temp("q/nibble.json") + " --measurements " + temp("other.json") + " -o " +
                   temp("n.html"),
               "other linears");
  EXPECT_FALSE(fs::exists(temp("n.html")));

  ASSERT_EQ(nibble("card " + temp("q") + " --evaluation dynamic=" + temp("e.json")).code, 0);
  const std::string card = io::read_file(temp("q/README.md"));
  EXPECT_THAT(card,
              AllOf(testing::StartsWith("---\nlibrary_name: transformers\n"), HasSubstr("# q\n"),
                    HasSubstr("Qwen2VLForConditionalGeneration.from_pretrained"), HasSubstr("| dynamic |"),
                    HasSubstr("    nibble quantize "), testing::Not(HasSubstr("base_model"))));
  ASSERT_EQ(nibble("card " + temp("q") + " --base-model Org/Base").code, 0) << "its own card may be replaced";
  EXPECT_THAT(io::read_file(temp("q/README.md")), HasSubstr("base_model: Org/Base\n"));
  io::write_file(temp("q/README.md"), "# mine\n");
  expect_error("card " + temp("q"), "README.md", "--force");
  EXPECT_EQ(io::read_file(temp("q/README.md")), "# mine\n");
  EXPECT_EQ(nibble("card " + temp("q") + " --force").code, 0);
  expect_error("card " + kModel, "nibble.json");
  expect_error("card " + temp("q") + " --base-model ../x", "ORG/NAME");
}

/// Comparisons that make their checkpoints, in scratch folders under a folder of the test's own.
class Policies : public Cli {
 protected:
  void SetUp() override {
    fs::create_directory(temp("scratch"));
    setenv("TMPDIR", temp("scratch").c_str(), 1);
    write_samples("calibration", 8);
    write_samples("evaluation", 3);
    std::ofstream(temp("evaluation.jsonl"), std::ios::app)
        << "{\"prompt\": \"What is a train?\", \"answer\": \"A train\"}\n{\"text\": \"The image shows a "
           "train.\"}\n";
  }
  void TearDown() override {
    unsetenv("TMPDIR");
    EXPECT_TRUE(fs::is_empty(temp("scratch")));
  }

  /// The first pictures that nibble ships, with what is first asked about them.
  void write_samples(const std::string& set, int n) {
    const fs::path folder = fs::path(NIBBLE_ROOT) / "pictures" / set;
    std::ifstream all(folder / "samples.jsonl");
    std::ofstream few(temp(set + ".jsonl"));
    std::string line;
    for (int i = 0; i < 2 * n && std::getline(all, line); ++i) {
      io::Json sample = io::parse_json(line, set);
      sample["image"] = (folder / sample["image"].get<std::string>()).string();
      if (i % 2 == 0) few << sample.dump() << "\n";
    }
  }

  const std::string kMaking = "compare " + kModel + " --compute f32 --budget 28% ";
  const std::string kData = "--data " + temp("evaluation.jsonl");
};

TEST_F(Policies, AreWhatQuantizingByHandGives) {
  const Outcome o =
      nibble(kMaking + kData +
             " --json --policies none,all,projections,dynamic,dynamic@plain --seeds 1 --calibration " +
             temp("calibration.jsonl"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, AllOf(HasSubstr(temp("scratch")), HasSubstr(" MiB")));
  const io::Json rows = io::parse_json(o.out, "compare");
  ASSERT_EQ(rows.size(), 5u);
  const io::Json& dynamic = rows[3];

  ASSERT_EQ(nibble("quantize " + kModel + " --compute f32 --budget 28% --data " + temp("calibration.jsonl") +
                   " -o " + temp("dynamic"))
                .code,
            0);
  const Outcome by_hand =
      nibble("compare --json --compute f32 " + kModel + " " + temp("dynamic") + " " + kData);
  ASSERT_EQ(by_hand.code, 0) << by_hand.err;
  const io::Json hand = io::parse_json(by_hand.out, "compare");
  EXPECT_EQ(dynamic["plan"], io::read_json(fs::path(temp("dynamic")) / "nibble.json")["plan"]);
  for (const char* key : {"description", "unchanged", "bytes"}) EXPECT_EQ(dynamic[key], hand[1][key]) << key;
  io::Json same = dynamic["evaluation"];
  EXPECT_EQ(same["model"], kModel + ", policy dynamic");
  same["model"] = temp("dynamic");
  EXPECT_EQ(same, hand[1]["evaluation"]);
  EXPECT_EQ(rows[0]["evaluation"], hand[0]["evaluation"]);

  EXPECT_EQ(rows[0]["policy"], "none");
  EXPECT_EQ(dynamic["rounding"], "feedback");
  EXPECT_EQ(rows[1]["rounding"], "plain");
  EXPECT_EQ(rows[4]["rounding"], "plain") << "also where the plan that is verified is repaired";
  EXPECT_EQ(rows[4]["evaluation"]["model"], kModel + ", policy dynamic@plain");
  EXPECT_EQ(dynamic["over_budget"], false);
  EXPECT_EQ(rows[2]["over_budget"], true) << "the projections of this model take 30 %";
  EXPECT_FALSE(rows[1].contains("spread")) << "all-4-bit depends on no calibration";
  for (const auto& [kind, totals] :
       {std::pair{"pictures", "picture_answers"}, {"prompts", "prompt_answers"}, {"texts", "texts"}}) {
    const double kl = dynamic["evaluation"][totals]["kl"]["mean"].get<double>();
    EXPECT_LE(dynamic["spread"][kind]["low"].get<double>(), kl) << kind;
    EXPECT_GE(dynamic["spread"][kind]["high"].get<double>(), kl) << kind;
    EXPECT_LT(dynamic["spread"][kind]["low"].get<double>(), dynamic["spread"][kind]["high"].get<double>())
        << kind;
  }
}

TEST_F(Policies, ShowATable) {
  const Outcome o = nibble(kMaking + kData + " --no-generate --policies int8,projections,all@search");
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("16 bit"), HasSubstr("8 bit (over the budget)"),
                           HasSubstr("KL, pictures"), HasSubstr("KL, prompts"), HasSubstr("KL, texts"),
                           HasSubstr("Rounding"), HasSubstr("  search  "), HasSubstr("  plain  ")));
}

TEST_F(Policies, ErrorsLeaveNothingBehind) {
  expect_error(kMaking + kData + " --policies best", "best", "dynamic");
  expect_error(kMaking + " --policies int8@feedback", "int8@feedback", "4 bits");
  expect_error(kMaking + " --policies all@search,dynamic", "by search and by feedback");
  expect_error("compare " + kModel + " " + kModel + " --budget 28%", "--budget", "one 16-bit model");
  expect_error("compare " + kModel + " " + kModel + " --seeds 2", "--seeds", "2 were given");
  expect_error(kMaking + "--data " + temp("none.jsonl"), "none.jsonl");
  expect_error(kMaking + "--policies random:1,list:" + temp("list.txt") + " " + kData, "list.txt");
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  expect_error("compare --budget 28% " + temp("all") + " " + kData, "quantized already");
}

}  // namespace
}  // namespace nibble
