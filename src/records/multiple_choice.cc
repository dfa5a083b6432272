#include "records/multiple_choice.h"

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "multiple_choice", kLetters = "ABCD";
constexpr double kQuantile = 1.959963984540054;  // normal, 0.975

std::string letter(int choice) {
  return std::string(1, kLetters.at(static_cast<size_t>(choice)));
}

int choice_of(const io::Fields& fields, std::string_view key) {
  const std::string text = fields.string(key);
  const size_t at = text.size() == 1 ? kLetters.find(text[0]) : std::string_view::npos;
  if (at == std::string_view::npos)
    fail("{}: \"{}\" is \"{}\"; expected A, B, C or D", fields.what(), key, printable(text, 40));
  return static_cast<int>(at);
}

io::Json share_to_json(const Share& share) {
  return {{"hits", share.hits}, {"total", share.total}, {"low", share.low}, {"high", share.high}};
}

Share share_from_json(const io::Fields& fields) {
  check_keys(fields, {"hits", "total", "low", "high"});
  const Share out{count(fields, "hits"), count(fields, "total"), share(fields, "low"), share(fields, "high")};
  if (out.hits > out.total) fail("{}: {} hits of {}", fields.what(), out.hits, out.total);
  if (out.low > out.high) fail("{}: \"low\" is above \"high\"", fields.what());
  return out;
}

io::Json question_to_json(const ChoiceResult& question, const std::string& subject) {
  io::Json json = io::Json::object();
  json["line"] = question.line;
  json["shots"] = question.shots;
  json["answer"] = letter(question.answer);
  json["choice"] = letter(question.choice);
  const std::string part = fmt::format("{}, line {}", subject, question.line);
  io::Json& values = json["log_probabilities"] = io::Json::array();
  for (const double value : question.log_probabilities)
    values.push_back(writable(value, part, "log_probabilities"));
  if (question.reference) json["reference"] = letter(*question.reference);
  return json;
}

ChoiceResult question_from_json(const io::Fields& fields, bool compared) {
  check_keys(fields, {"line", "shots", "answer", "choice", "log_probabilities", "reference"});
  ChoiceResult out;
  out.line = count(fields, "line");
  out.shots = count(fields, "shots");
  out.answer = choice_of(fields, "answer");
  out.choice = choice_of(fields, "choice");
  const io::Json& values = fields.array("log_probabilities");
  if (values.size() != out.log_probabilities.size())
    fail("{}: \"log_probabilities\" has {} entries; expected {}", fields.what(), values.size(),
         out.log_probabilities.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].is_number() || !std::isfinite(values[i].get<double>()))
      fail("{}: \"log_probabilities\" holds what is no finite number", fields.what());
    out.log_probabilities[i] = values[i].get<double>();
  }
  if (fields.has("reference") != compared)
    fail("{}: \"reference\" must be there exactly when \"against\" names a model", fields.what());
  if (compared) out.reference = choice_of(fields, "reference");
  return out;
}

io::Json subject_to_json(const SubjectResult& subject) {
  io::Json json = io::Json::object();
  json["name"] = writable(subject.name);
  json["category"] = writable(subject.category);
  json["accuracy"] = share_to_json(subject.accuracy);
  io::Json& questions = json["questions"] = io::Json::array();
  for (const ChoiceResult& question : subject.questions)
    questions.push_back(question_to_json(question, subject.name));
  return json;
}

/// The objects of an array, each with its place.
std::vector<io::Fields> objects(const io::Fields& fields, std::string_view key) {
  std::vector<io::Fields> out;
  for (const io::Json& item : fields.array(key))
    out.emplace_back(item, fmt::format("{}: {}[{}]", fields.what(), key, out.size()));
  return out;
}

SubjectResult subject_from_json(const io::Fields& fields, bool compared) {
  check_keys(fields, {"name", "category", "accuracy", "questions"});
  SubjectResult out;
  out.name = non_empty(fields, "name");
  out.category = fields.string("category");
  out.accuracy = share_from_json(fields.object("accuracy"));
  for (const io::Fields& question : objects(fields, "questions"))
    out.questions.push_back(question_from_json(question, compared));
  return out;
}

}  // namespace

Share wilson(int64_t hits, int64_t total) {
  NIBBLE_CHECK(0 <= hits && hits <= total, "{} of {}", hits, total);
  if (total == 0) return {};
  const auto n = static_cast<double>(total);
  const double p = static_cast<double>(hits) / n, z2 = kQuantile * kQuantile;
  const double center = p + z2 / (2 * n);
  const double half = kQuantile * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  // At no hits and at all hits one end is exactly 0 or 1, which rounding may miss.
  const double low = hits == 0 ? 0 : (center - half) / (1 + z2 / n);
  const double high = hits == total ? 1 : (center + half) / (1 + z2 / n);
  return {hits, total, low, high};
}

void summarize(MultipleChoice& result) {
  struct Sum {
    int64_t hits = 0, total = 0;
  };
  Sum all, same;
  std::map<std::string, Sum> categories;
  for (SubjectResult& subject : result.subjects) {
    Sum sum;
    for (const ChoiceResult& question : subject.questions) {
      ++sum.total;
      sum.hits += question.choice == question.answer;
      same.hits += question.reference == question.choice;
    }
    subject.accuracy = wilson(sum.hits, sum.total);
    all.hits += sum.hits;
    all.total += sum.total;
    if (subject.category.empty()) continue;
    Sum& category = categories[subject.category];
    category.hits += sum.hits;
    category.total += sum.total;
  }
  result.categories.clear();
  for (const auto& [name, sum] : categories) result.categories.push_back({name, wilson(sum.hits, sum.total)});
  result.accuracy = wilson(all.hits, all.total);
  result.agreement.reset();
  if (!result.against.empty()) result.agreement = wilson(same.hits, all.total);
}

void set_reference(MultipleChoice& result, const MultipleChoice& reference) {
  NIBBLE_CHECK(!reference.model.empty() && result.subjects.size() == reference.subjects.size());
  result.against = reference.model;
  for (size_t s = 0; s < result.subjects.size(); ++s) {
    auto& questions = result.subjects[s].questions;
    const auto& theirs = reference.subjects[s].questions;
    NIBBLE_CHECK(result.subjects[s].name == reference.subjects[s].name && questions.size() == theirs.size());
    for (size_t i = 0; i < questions.size(); ++i) {
      NIBBLE_CHECK(questions[i].line == theirs[i].line);
      questions[i].reference = theirs[i].choice;
    }
  }
  summarize(result);
}

io::Json to_json(const MultipleChoice& result) {
  io::Json json = make_header(kKind, MultipleChoice::kVersion);
  json["model"] = writable(result.model);
  json["against"] = writable(result.against);
  json["compute"] = result.compute;
  json["tensor_bytes"] = result.tensor_bytes;
  json["data"] = writable(result.data);
  json["shots"] = result.shots;
  json["special_tokens"] = result.special_tokens;
  json["accuracy"] = share_to_json(result.accuracy);
  if (result.agreement) json["agreement"] = share_to_json(*result.agreement);
  io::Json& categories = json["categories"] = io::Json::array();
  for (const CategoryResult& category : result.categories)
    categories.push_back({{"name", writable(category.name)}, {"accuracy", share_to_json(category.accuracy)}});
  io::Json& subjects = json["subjects"] = io::Json::array();
  for (const SubjectResult& subject : result.subjects) subjects.push_back(subject_to_json(subject));
  return json;
}

MultipleChoice multiple_choice_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, kKind, MultipleChoice::kVersion,
               {"model", "against", "compute", "tensor_bytes", "data", "shots", "special_tokens", "accuracy",
                "agreement", "categories", "subjects"});
  MultipleChoice out;
  out.model = fields.string("model");
  out.against = fields.string("against");
  out.compute = compute_type(fields, "compute");
  out.tensor_bytes = count(fields, "tensor_bytes");
  out.data = fields.string("data");
  out.shots = count(fields, "shots");
  out.special_tokens = fields.boolean("special_tokens");
  out.accuracy = share_from_json(fields.object("accuracy"));
  const bool compared = !out.against.empty();
  if (fields.has("agreement") != compared)
    fail("{}: \"agreement\" must be there exactly when \"against\" names a model", what);
  if (compared) out.agreement = share_from_json(fields.object("agreement"));
  for (const io::Fields& category : objects(fields, "categories")) {
    check_keys(category, {"name", "accuracy"});
    out.categories.push_back({non_empty(category, "name"), share_from_json(category.object("accuracy"))});
  }
  for (const io::Fields& subject : objects(fields, "subjects"))
    out.subjects.push_back(subject_from_json(subject, compared));
  return out;
}

MultipleChoice read_multiple_choice(const std::filesystem::path& path) {
  return multiple_choice_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
