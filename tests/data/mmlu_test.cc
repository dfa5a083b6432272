// CSV as RFC 4180 has it, and multiple choice in the layout of MMLU.
#include "data/mmlu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "data/csv.h"
#include "io/json.h"
#include "io/temp_folder.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_io::error_of;
using testing_io::put;
using testing_io::TempFolder;
using Table = std::vector<std::vector<std::string>>;

const fs::path kModel = fs::path(NIBBLE_ROOT) / "models" / "qwen2-vl-tiny";

Table fields_of(std::string_view text) {
  Table out;
  for (CsvRow& row : parse_csv(text, "x.csv")) out.push_back(std::move(row.fields));
  return out;
}

TEST(Csv, FieldsAsTheyStand) {
  EXPECT_EQ(fields_of(""), Table{});
  EXPECT_EQ(fields_of("a,b\nc,d\n"), (Table{{"a", "b"}, {"c", "d"}}));
  EXPECT_EQ(fields_of("a,b\r\nc,d"), (Table{{"a", "b"}, {"c", "d"}}));
  EXPECT_EQ(fields_of(",\n"), (Table{{"", ""}}));
  EXPECT_EQ(fields_of("a, b ,"), (Table{{"a", " b ", ""}}));
  EXPECT_EQ(fields_of("\n\r\na\n\n"), Table{{"a"}});
  EXPECT_EQ(fields_of("\xef\xbb\xbf"
                      "a,\xc3\xa9\n"),
            (Table{{"a", "\xc3\xa9"}}));
}

TEST(Csv, Quotes) {
  EXPECT_EQ(fields_of("\"a\",\"\"\n"), (Table{{"a", ""}}));
  EXPECT_EQ(fields_of("\"a,b\",c"), (Table{{"a,b", "c"}}));
  EXPECT_EQ(fields_of("\"a\nb\r\nc\",d\r\n"), (Table{{"a\nb\r\nc", "d"}}));
  EXPECT_EQ(fields_of("\"say \"\"hi\"\"\""), Table{{"say \"hi\""}});
  EXPECT_EQ(fields_of("\"\"\"\",\"\"\"\"\"\""), (Table{{"\"", "\"\""}}));
  EXPECT_EQ(fields_of("5\" nail,a \"b\" c\n"), (Table{{"5\" nail", "a \"b\" c"}}));
}

TEST(Csv, LinesAreCountedThroughQuotes) {
  const auto rows = parse_csv("a\n\"b\n\nc\"\n\nd\n", "x.csv");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].line, 1);
  EXPECT_EQ(rows[1].line, 2);
  EXPECT_EQ(rows[2].line, 6);
}

TEST(Csv, WhatIsWrongIsNamedByLine) {
  EXPECT_THAT(error_of([] { parse_csv("a\n\"b\nc", "x.csv"); }), HasSubstr("x.csv:2: a quote is opened"));
  EXPECT_THAT(error_of([] { parse_csv("a\n\"b\nc\" d,e", "x.csv"); }), HasSubstr("x.csv:3: text follows"));
  EXPECT_THAT(error_of([] { parse_csv("a\nb\xff\n", "x.csv"); }), HasSubstr("x.csv:2: is no UTF-8"));
  EXPECT_THAT(error_of([] { parse_csv("a\n\xe2\x82", "x.csv"); }), HasSubstr("x.csv:2: is no UTF-8"));
}

const char* const kRow = "What?,1,2,3,4,D\n";

/// A folder with two subjects.
void put_subjects(const fs::path& folder) {
  put(folder / "dev/high_school_physics_dev.csv",
      "\"Is it \"\"a, b\"\"?\",yes,no,\"per\nhaps\",never,B\nNow?,w,x,y,z,A\n");
  put(folder / "test/high_school_physics_test.csv", std::string(kRow) + "Why?,a,b,c,d,A\r\nHow?,e,f,g,h,C\n");
  put(folder / "dev/zoo_dev.csv", kRow);
  put(folder / "test/zoo_test.csv", kRow);
  put(folder / "test/readme.txt", "no questions");
}

TEST(Mmlu, SubjectsByNameWithTheirFiles) {
  TempFolder folder;
  put_subjects(folder.path());
  const auto subjects = read_mmlu(folder.path(), {});
  ASSERT_EQ(subjects.size(), 2u);
  EXPECT_EQ(subjects[0].name, "high_school_physics");
  EXPECT_EQ(subjects[0].file, (folder / "test/high_school_physics_test.csv").string());
  EXPECT_EQ(subjects[1].name, "zoo");
  ASSERT_EQ(subjects[0].questions.size(), 3u);
  EXPECT_EQ(subjects[0].questions[2].question, "How?");
  EXPECT_EQ(subjects[0].questions[2].options, (std::array<std::string, 4>{"e", "f", "g", "h"}));
  EXPECT_EQ(subjects[0].questions[2].answer, 2u);
  EXPECT_EQ(subjects[0].questions[2].line, 3);
  ASSERT_EQ(subjects[0].examples.size(), 2u);
  EXPECT_EQ(subjects[0].examples[1].line, 3) << "the first has a line break in it";

  const auto limited = read_mmlu(folder.path(), {.shots = 5, .limit = 2});
  EXPECT_EQ(limited[0].questions.size(), 2u);
  EXPECT_EQ(limited[0].questions[1].question, "Why?");
  EXPECT_EQ(limited[1].questions.size(), 1u);

  fs::remove_all(folder / "dev");
  EXPECT_EQ(read_mmlu(folder.path(), {.shots = 0}).size(), 2u) << "no examples, no dev";
}

TEST(Mmlu, WhatIsWrongIsNamed) {
  TempFolder folder;
  const auto error = [&] { return error_of([&] { read_mmlu(folder.path(), {}); }); };
  EXPECT_THAT(error(), AllOf(HasSubstr("/test: no such folder"), HasSubstr("dev/SUBJECT_dev.csv")));
  fs::create_symlink("test", folder / "test");
  EXPECT_THAT(error(), AllOf(HasSubstr("/test: cannot read the folder"),
                             ::testing::Not(HasSubstr("filesystem error"))));
  fs::remove(folder / "test");
  fs::create_directory(folder / "test");
  EXPECT_THAT(error(), HasSubstr("holds no SUBJECT_test.csv"));
  put(folder / "test/zoo_test.csv", kRow);
  EXPECT_THAT(error(), HasSubstr("/dev: no such folder"));
  put(folder / "dev/other_dev.csv", kRow);
  EXPECT_THAT(error(), AllOf(HasSubstr("zoo_test.csv"), HasSubstr("there is no"), HasSubstr("zoo_dev.csv")));
  put(folder / "dev/zoo_dev.csv", kRow);
  EXPECT_THAT(error(), AllOf(HasSubstr("other_dev.csv"), HasSubstr("other_test.csv")));
  fs::remove(folder / "dev/other_dev.csv");
  EXPECT_EQ(read_mmlu(folder.path(), {}).size(), 1u);
  const auto error_of_test = [&](const std::string& text) {
    put(folder / "test/zoo_test.csv", text);
    return error();
  };
  EXPECT_THAT(error_of_test(std::string(kRow) + "a,b,c\n"),
              AllOf(HasSubstr("zoo_test.csv:2"), HasSubstr("3 columns; expected 6")));
  EXPECT_THAT(error_of_test("a,b,c,d,e,A,B\n"), AllOf(HasSubstr("zoo_test.csv:1"), HasSubstr("7 columns")));
  EXPECT_THAT(error_of_test("question,A,B,C,D,answer\n"),
              AllOf(HasSubstr("zoo_test.csv:1"), HasSubstr("\"answer\""), HasSubstr("no header")));
  for (const char* answer : {"E", "a", "AB", ""})
    EXPECT_THAT(error_of_test(fmt::format("q,1,2,3,4,{}\n", answer)),
                HasSubstr(fmt::format("is \"{}\"; expected A, B, C or D", answer)));
  EXPECT_THAT(error_of_test(" \n"), HasSubstr("zoo_test.csv:1: 1 columns"));
  EXPECT_THAT(error_of_test("\n"), HasSubstr("holds no questions"));
  EXPECT_THAT(error_of_test("caf\xe9,1,2,3,4,A\n"), HasSubstr("zoo_test.csv:1: is no UTF-8"));
  put(folder / "test/zoo_test.csv", kRow);
  put(folder / "dev/zoo_dev.csv", "");
  EXPECT_THAT(error(), HasSubstr("zoo_dev.csv: the file holds no questions"));
}

TEST(Mmlu, ThePrompt) {
  TempFolder folder;
  put_subjects(folder.path());
  const ChoiceSubject subject = read_mmlu(folder.path(), {})[0];
  EXPECT_EQ(mmlu_prompt(subject, subject.questions[1], 2),
            "The following are multiple choice questions (with answers) about high school physics.\n\n"
            "Is it \"a, b\"?\nA. yes\nB. no\nC. per\nhaps\nD. never\nAnswer: B\n\n"
            "Now?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n"
            "Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:");
  EXPECT_EQ(mmlu_prompt(subject, subject.questions[1], 0),
            "The following are multiple choice questions (with answers) about high school physics.\n\n"
            "Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:");
}

TEST(Mmlu, TheFourCategories) {
  EXPECT_EQ(mmlu_category("abstract_algebra"), "STEM");
  EXPECT_EQ(mmlu_category("machine_learning"), "STEM");
  EXPECT_EQ(mmlu_category("logical_fallacies"), "humanities");
  EXPECT_EQ(mmlu_category("international_law"), "humanities");
  EXPECT_EQ(mmlu_category("econometrics"), "social sciences");
  EXPECT_EQ(mmlu_category("sociology"), "social sciences");
  EXPECT_EQ(mmlu_category("professional_accounting"), "other (business, health, misc.)");
  EXPECT_EQ(mmlu_category("virology"), "other (business, health, misc.)");
  EXPECT_EQ(mmlu_category("addition"), "");
  EXPECT_EQ(mmlu_category(""), "");
}

/// A copy of the shipped model with another tokenizer.json or config.json.
struct Model {
  explicit Model(const std::function<void(io::Json&)>& tokenizer = {},
                 const std::function<void(io::Json&)>& config = {}) {
    for (const auto& entry : fs::directory_iterator(kModel))
      fs::create_symlink(entry.path(), folder / entry.path().filename().string());
    change("tokenizer.json", tokenizer);
    change("config.json", config);
    binding.emplace(folder.path());
    maker.emplace(*binding);
  }

  void change(const std::string& name, const std::function<void(io::Json&)>& how) {
    if (!how) return;
    io::Json json = io::read_json(kModel / name);
    how(json);
    fs::remove(folder / name);
    put(folder / name, json.dump());
  }

  TempFolder folder;
  std::optional<model::Binding> binding;
  std::optional<PromptMaker> maker;
};

/// Takes the merges away that make " A", " B", ... as far as `letters` names them.
std::function<void(io::Json&)> without(const std::string& letters) {
  return [letters](io::Json& tokenizer) {
    io::Json kept = io::Json::array();
    for (const io::Json& merge : tokenizer["model"]["merges"]) {
      const std::string text = merge.is_string()
                                   ? merge.get<std::string>()
                                   : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
      const bool taken =
          text.size() == 4 && text.starts_with("\xc4\xa0 ") && letters.find(text[3]) != std::string::npos;
      if (!taken) kept.push_back(merge);
    }
    tokenizer["model"]["merges"] = kept;
  };
}

TEST(Mmlu, TokensOfTheOptions) {
  const Model shipped;
  const ChoiceTokens tokens = choice_tokens(*shipped.maker);
  EXPECT_TRUE(tokens.lead.empty());
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(shipped.maker->tokenizer().token_of(tokens.ids[i]), std::string("\xc4\xa0") + "ABCD"[i]);

  const Model apart(without("ABCD"));
  const ChoiceTokens two = choice_tokens(*apart.maker);
  ASSERT_EQ(two.lead.size(), 1u);
  EXPECT_EQ(apart.maker->tokenizer().token_of(two.lead[0]), "\xc4\xa0");
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(apart.maker->tokenizer().token_of(two.ids[i]), std::string(1, "ABCD"[i]));

  const Model uneven(without("C"));
  EXPECT_THAT(error_of([&] { choice_tokens(*uneven.maker); }), HasSubstr("apart by one token each"));
}

TEST(Mmlu, PromptsAsTheyAreFed) {
  TempFolder folder;
  put_subjects(folder.path());
  const ChoiceSubject subject = read_mmlu(folder.path(), {})[0];
  const Model model([](io::Json& tokenizer) {
    without("ABCD")(tokenizer);
    const int64_t id = 2040;
    tokenizer["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", io::Json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {id}}, {"tokens", {"<s>"}}}}}}};
  });
  const ChoiceTokens tokens = choice_tokens(*model.maker);
  const auto whole = [&](size_t question, size_t shots, bool special) {
    auto ids =
        model.maker->tokenizer().encode(mmlu_prompt(subject, subject.questions[question], shots), false);
    if (special) ids.insert(ids.begin(), 2040);
    ids.insert(ids.end(), tokens.lead.begin(), tokens.lead.end());
    return ids;
  };
  for (const bool special : {false, true})
    for (const int64_t shots : {0, 1, 2, 5}) {
      const auto prompts =
          mmlu_prompts(subject, *model.maker, tokens, {.shots = shots, .special_tokens = special});
      ASSERT_EQ(prompts.size(), 3u);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(prompts[i].shots, std::min<int64_t>(shots, 2)) << "there are two examples";
        EXPECT_EQ(prompts[i].ids, whole(i, std::min<size_t>(shots, 2), special));
      }
    }
}

TEST(Mmlu, ExamplesAreLeftOutUntilThePromptFits) {
  TempFolder folder;
  put_subjects(folder.path());
  const ChoiceSubject subject = read_mmlu(folder.path(), {})[0];
  const Model shipped;
  const ChoiceTokens tokens = choice_tokens(*shipped.maker);
  std::map<int64_t, int64_t> size;  // of the first question, by shots
  for (const int64_t shots : {0, 1, 2})
    size[shots] = std::ssize(mmlu_prompts(subject, *shipped.maker, tokens, {.shots = shots})[0].ids);
  for (const auto& [positions, shots] :
       {std::pair{size[2], 2}, {size[2] - 1, 1}, {size[1], 1}, {size[1] - 1, 0}, {size[0], 0}}) {
    const Model model(
        {}, [&, &positions = positions](io::Json& config) { config["max_position_embeddings"] = positions; });
    const ChoicePrompt prompt = mmlu_prompts(subject, *model.maker, tokens, {.shots = 2})[0];
    EXPECT_EQ(prompt.shots, shots) << positions;
    EXPECT_EQ(std::ssize(prompt.ids), size[shots]);
  }
  const Model small({}, [&](io::Json& config) { config["max_position_embeddings"] = size[0] - 1; });
  EXPECT_THAT(error_of([&] { mmlu_prompts(subject, *small.maker, tokens, {}); }),
              AllOf(HasSubstr("high_school_physics_test.csv:1"), HasSubstr("max_position_embeddings")));
}

TEST(Mmlu, ImageTokensAreRefused) {
  TempFolder folder;
  put(folder / "test/x_test.csv", std::string(kRow) + "Is <|image_pad|> a token?,1,2,3,4,A\n");
  const auto subjects = read_mmlu(folder.path(), {.shots = 0});
  const Model model;
  EXPECT_THAT(
      error_of([&] { mmlu_prompts(subjects[0], *model.maker, choice_tokens(*model.maker), {.shots = 0}); }),
      AllOf(HasSubstr("x_test.csv:2"), HasSubstr("image token")));
}

}  // namespace
}  // namespace nibble::data
