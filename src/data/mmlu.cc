#include "data/mmlu.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "data/csv.h"
#include "io/json.h"
#include "io/weight_files.h"

namespace nibble::data {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kLetters = "ABCD";
constexpr size_t kColumns = 1 + kLetters.size() + 1;

struct Category {
  std::string_view name;
  std::vector<std::string_view> subjects;
};

/// https://github.com/hendrycks/test, categories.py: each subject through its field of study.
const std::array<Category, 4>& categories() {
  static const std::array<Category, 4> out = {{
      {"STEM",
       {"abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics",
        "electrical_engineering", "elementary_mathematics", "high_school_biology", "high_school_chemistry",
        "high_school_computer_science", "high_school_mathematics", "high_school_physics",
        "high_school_statistics", "machine_learning"}},
      {"humanities",
       {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios",
        "philosophy", "prehistory", "professional_law", "world_religions"}},
      {"social sciences",
       {"econometrics", "high_school_geography", "high_school_government_and_politics",
        "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
        "human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology",
        "us_foreign_policy"}},
      {"other (business, health, misc.)",
       {"anatomy", "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing", "medical_genetics", "miscellaneous", "nutrition",
        "professional_accounting", "professional_medicine", "virology"}},
  }};
  return out;
}

ChoiceRow row_of(CsvRow&& csv, const std::string& file) {
  if (csv.fields.size() != kColumns)
    fail("{}:{}: {} columns; expected {}: question, A, B, C, D, answer", file, csv.line, csv.fields.size(),
         kColumns);
  const std::string& letter = csv.fields.back();
  const size_t answer = letter.size() == 1 ? kLetters.find(letter[0]) : std::string_view::npos;
  if (answer == std::string_view::npos)
    fail("{}:{}: the answer (last column) is \"{}\"; expected A, B, C or D, and no header", file, csv.line,
         printable(letter, 40));
  ChoiceRow out{.line = csv.line, .question = std::move(csv.fields[0]), .options = {}, .answer = answer};
  std::move(csv.fields.begin() + 1, csv.fields.end() - 1, out.options.begin());
  return out;
}

std::vector<ChoiceRow> read_rows(const fs::path& file) {
  std::vector<ChoiceRow> out;
  for (CsvRow& row : parse_csv(io::read_file(file), file.string()))
    out.push_back(row_of(std::move(row), file.string()));
  if (out.empty()) fail("{}: the file holds no questions", file.string());
  return out;
}

/// SUBJECT of every SUBJECT + ending in a folder.
std::set<std::string> subjects_in(const fs::path& folder, std::string_view ending) {
  std::error_code error;
  const fs::file_type type = fs::status(folder, error).type();
  if (type == fs::file_type::not_found || type == fs::file_type::regular)
    fail("{}: no such folder; --mmlu takes a folder with dev/SUBJECT_dev.csv and test/SUBJECT_test.csv",
         folder.string());
  std::set<std::string> out;
  for (const std::string& name : io::file_names(folder)) {
    if (name.ends_with(ending) && name.size() > ending.size())
      out.insert(name.substr(0, name.size() - ending.size()));
  }
  return out;
}

std::string example(const ChoiceRow& row, bool answered) {
  std::string out = row.question;
  for (size_t i = 0; i < kLetters.size(); ++i) out += fmt::format("\n{}. {}", kLetters[i], row.options[i]);
  out += "\nAnswer:";
  if (answered) out += fmt::format(" {}\n\n", kLetters[row.answer]);
  return out;
}

}  // namespace

std::vector<ChoiceSubject> read_mmlu(const fs::path& folder, const ChoiceOptions& options) {
  const fs::path test = folder / "test", dev = folder / "dev";
  const std::set<std::string> names = subjects_in(test, "_test.csv");
  if (names.empty()) fail("{}: holds no SUBJECT_test.csv", test.string());
  std::set<std::string> with_examples = names;
  if (options.shots > 0) with_examples = subjects_in(dev, "_dev.csv");
  const auto pair_missing = [](const fs::path& there, const fs::path& missing) {
    fail("{}: there is no {} that belongs to it; a subject needs both", there.string(), missing.string());
  };
  for (const std::string& name : names)
    if (!with_examples.contains(name)) pair_missing(test / (name + "_test.csv"), dev / (name + "_dev.csv"));
  for (const std::string& name : with_examples)
    if (!names.contains(name)) pair_missing(dev / (name + "_dev.csv"), test / (name + "_test.csv"));
  std::vector<ChoiceSubject> out;
  for (const std::string& name : names) {
    const fs::path file = test / (name + "_test.csv");
    ChoiceSubject& subject = out.emplace_back();
    subject.name = name;
    subject.file = file.string();
    subject.questions = read_rows(file);
    if (options.limit > 0 && std::ssize(subject.questions) > options.limit)
      subject.questions.resize(static_cast<size_t>(options.limit));
    if (options.shots > 0) subject.examples = read_rows(dev / (name + "_dev.csv"));
  }
  return out;
}

std::string_view mmlu_category(std::string_view subject) {
  for (const Category& category : categories())
    if (std::find(category.subjects.begin(), category.subjects.end(), subject) != category.subjects.end())
      return category.name;
  return "";
}

std::string mmlu_prompt(const ChoiceSubject& subject, const ChoiceRow& question, size_t shots) {
  std::string name = subject.name;
  std::replace(name.begin(), name.end(), '_', ' ');
  std::string out =
      fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", name);
  for (size_t i = 0; i < shots; ++i) out += example(subject.examples.at(i), true);
  return out + example(question, false);
}

}  // namespace nibble::data
