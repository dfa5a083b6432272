#include "eval/evaluate.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "data/mmlu.h"
#include "eval/multiple_choice.h"
#include "report/views.h"

namespace nibble::app {
namespace {

/// What a model is judged on.
struct Questions {
  std::vector<std::string> data;
  int64_t window = 2048, max_new_tokens = data::kAnswerTokens;
  bool generate = true;
  std::string mmlu;
  data::ChoiceOptions choices;
};

struct EvalOptions {
  std::string model, against, json;
  Questions questions;
};

struct CompareOptions {
  std::vector<std::string> models, images;
  std::string prompt = data::kDefaultPrompt;
  Questions questions;
};

/// Completes open answers with a 16-bit model: the reference, or the model itself.
void complete(std::vector<data::Item>& items, LoadedModel& model, LoadedModel* reference,
              int64_t max_new_tokens) {
  LoadedModel& speaker = reference ? *reference : model;
  const bool open = std::any_of(items.begin(), items.end(),
                                [](const data::Item& item) { return !item.plain && item.answer.empty(); });
  if (open && speaker.binding.quantized())
    fail(
        "{}: some samples have no answer, and this model is quantized; name the 16-bit model (--against) "
        "whose own "
        "answers are to be judged against",
        speaker.name);
  data::complete_answers(items, speaker.runner, speaker.maker, max_new_tokens);
}

/// A reference model with what it says to the items.
struct Reference {
  LoadedModel& model;
  eval::Reading reading;
};

/// Throws Error unless the models are of one origin: the items are made for one of them, and their ids must
/// stand for the same to the other.
void check_origin(const LoadedModel& model, const LoadedModel& reference,
                  const std::vector<data::Item>& items) {
  const model::Spec &ours = model.binding.spec(), &theirs = reference.binding.spec();
  if (ours.family != theirs.family || ours.text.vocabulary != theirs.text.vocabulary)
    fail("{} is {} with {} tokens, but {} is {} with {}; compare models of one origin", model.name,
         ours.family, ours.text.vocabulary, reference.name, theirs.family, theirs.text.vocabulary);
  std::set<int64_t> ids;
  for (const data::Item& item : items)
    for (const auto* list : {&item.prompt.ids, &item.answer}) ids.insert(list->begin(), list->end());
  for (const int64_t id : ids) {
    const auto mine = model.maker.tokenizer().token_of(id), its = reference.maker.tokenizer().token_of(id);
    if (mine != its)
      fail("token {} is \"{}\" to {}, but \"{}\" to {}; compare models of one origin", id,
           printable(mine.value_or("")), model.name, printable(its.value_or("")), reference.name);
  }
}

/// Reads the items with a model that is judged against a reference.
eval::Reading read(LoadedModel& model, const LoadedModel* reference, const std::vector<data::Item>& items) {
  if (reference) check_origin(model, *reference, items);
  return eval::read(model.runner, items);
}

records::Evaluation evaluate(LoadedModel& model, const eval::Reading& reading, const Reference* reference,
                             const std::vector<data::Item>& items, const Questions& questions) {
  records::Evaluation out =
      eval::evaluate(reading, reference ? &reference->reading : nullptr, items, model.maker,
                     {.max_new_tokens = questions.max_new_tokens, .generate = questions.generate});
  out.model = model.name;
  out.against = reference ? reference->model.name : "";
  return out;
}

records::MultipleChoice answer_choices(LoadedModel& model, const Questions& questions,
                                       const std::vector<data::ChoiceSubject>& subjects) {
  records::MultipleChoice out = eval::answer_choices(model.runner, model.maker, subjects, questions.choices);
  out.model = model.name;
  out.data = questions.mmlu;
  return out;
}

/// Evaluates on data, or on multiple choice; the record and its text.
std::pair<io::Json, std::string> judge(const EvalOptions& o, LoadedModel& model, LoadedModel* against) {
  const Questions& questions = o.questions;
  if (!questions.mmlu.empty()) {
    const auto subjects = data::read_mmlu(questions.mmlu, questions.choices);
    records::MultipleChoice result = answer_choices(model, questions, subjects);
    if (against) records::set_reference(result, answer_choices(*against, questions, subjects));
    return {records::to_json(result), report::multiple_choice_text(result)};
  }
  std::vector<data::Item> items = load_items(questions.data, "evaluation", model.maker, questions.window);
  if (against) check_origin(model, *against, items);
  complete(items, model, against, questions.max_new_tokens);
  std::optional<Reference> reference;
  if (against) reference.emplace(Reference{*against, read(*against, &model, items)});
  const records::Evaluation result = evaluate(
      model, read(model, against, items), reference ? &*reference : nullptr, items, questions);
  return {records::to_json(result), report::evaluation_text(result)};
}

void run_eval(const EvalOptions& o, const Common& common) {
  if (!o.json.empty() && o.json != "-") check_target(o.json);
  LoadedModel model(o.model, common);
  std::unique_ptr<LoadedModel> against;
  if (!o.against.empty()) against = std::make_unique<LoadedModel>(o.against, common);
  const auto [json, text] = judge(o, model, against.get());
  if (o.json == "-") return print_json(json);
  if (!o.json.empty()) write_record(o.json, json);
  print(text);
}

/// One model of the comparison, once it was run.
struct Compared {
  std::string description, caption;
  int64_t bytes = 0;
  std::optional<records::Evaluation> result;
  std::optional<records::MultipleChoice> choices;
};

/// The index of a sample worth looking at: one on which models differ, with a text rather than a letter as
/// the reference's output, and of those the one with the largest KL; the first of equals. Nothing where no
/// model was asked for a text.
std::optional<size_t> telling_sample(const std::vector<Compared>& models) {
  constexpr size_t kText = 16;  // bytes; a multiple-choice letter is shorter
  std::optional<size_t> best;
  if (!models[0].result) return best;
  std::tuple<bool, bool, double> most;
  const auto& reference = models[0].result->samples;
  for (size_t i = 0; i < reference.size(); ++i) {
    if (!reference[i].generated) continue;
    bool differs = false;
    double kl = 0;
    for (const Compared& m : models) {
      const records::SampleResult& sample = m.result->samples[i];
      differs |= sample.output != reference[i].output;
      kl = std::max(kl, sample.kl);
    }
    const std::tuple<bool, bool, double> rank{differs, reference[i].output.size() >= kText, kl};
    if (best && rank <= most) continue;
    most = rank;
    best = i;
  }
  return best;
}

std::string unchanged(const records::Evaluation& result, const records::Evaluation& reference) {
  int64_t same = 0, all = 0;
  for (size_t i = 0; i < result.samples.size(); ++i) {
    if (!result.samples[i].generated) continue;
    ++all;
    same += result.samples[i].output == reference.samples[i].output;
  }
  return all == 0 ? "" : fmt::format("{} of {}", same, all);
}

/// The inputs of a comparison.
struct Inputs {
  std::vector<data::Item> items;              // empty: only multiple choice
  std::vector<data::ChoiceSubject> subjects;  // empty: no multiple choice
};

/// Runs one model. Without `reference` it is the reference itself, and `made` gets its reading.
Compared run_one(LoadedModel& model, const Reference* reference, eval::Reading* made, const Inputs& inputs,
                 const CompareOptions& o) {
  Compared out;
  out.description = description(model.binding);
  out.bytes = model.binding.tensor_bytes();
  if (!inputs.items.empty()) {
    eval::Reading reading = read(model, reference ? &reference->model : nullptr, inputs.items);
    out.result = evaluate(model, reading, reference, inputs.items, o.questions);
    if (made) *made = std::move(reading);
  }
  if (!inputs.subjects.empty()) out.choices = answer_choices(model, o.questions, inputs.subjects);
  if (o.images.empty()) return out;
  const std::vector<std::filesystem::path> paths(o.images.begin(), o.images.end());
  const run::Prompt prompt = model.maker.chat(o.prompt, paths);
  const run::Prompt* pointer = &prompt;
  out.caption = model.maker.decode(model.runner.generate({&pointer, 1}, o.questions.max_new_tokens)[0]);
  return out;
}

/// The first 16-bit model goes first: the others are measured against it.
std::vector<std::string> reference_first(std::vector<std::string> names) {
  const auto is16 = [](const std::string& name) {
    return !model::Binding(io::resolve_model(name)).quantized();
  };
  const auto reference = std::find_if(names.begin(), names.end(), is16);
  if (reference == names.end())
    fail("compare needs the 16-bit model too, to measure the others against; none of {} is one",
         fmt::join(names, ", "));
  std::rotate(names.begin(), reference, reference + 1);
  return names;
}

/// Runs all models, the reference once: the others are judged against what it said.
std::vector<Compared> run_all(const CompareOptions& o, const Common& common) {
  const std::vector<std::string> names = reference_first(o.models);
  const Questions& questions = o.questions;
  LoadedModel base(names[0], common);
  Inputs inputs;
  if (!questions.mmlu.empty()) inputs.subjects = data::read_mmlu(questions.mmlu, questions.choices);
  if (questions.mmlu.empty() || !questions.data.empty()) {
    inputs.items = load_items(questions.data, "evaluation", base.maker, questions.window);
    complete(inputs.items, base, nullptr, questions.max_new_tokens);
  }
  Reference reference{base, {}};
  std::vector<Compared> out = {run_one(base, nullptr, &reference.reading, inputs, o)};
  for (size_t i = 1; i < names.size(); ++i) {
    LoadedModel model(names[i], common);
    out.push_back(run_one(model, &reference, nullptr, inputs, o));
    if (out[i].choices) records::set_reference(*out[i].choices, *out[0].choices);
  }
  return out;
}

report::ComparisonRow row_of(const Compared& model, const Compared& reference) {
  report::ComparisonRow row;
  row.description = model.description;
  row.bytes = model.bytes;
  row.result = model.caption;
  if (model.choices) row.choices = model.choices->accuracy;
  if (!model.result) return row;
  const records::Evaluation& result = *model.result;
  const bool compared = !result.against.empty();
  row.unchanged = unchanged(result, *reference.result);
  if (result.answers) {
    row.exact = result.answers->exact.mean;
    if (compared) {
      row.kl = result.answers->kl;
      row.agreement = result.answers->agreement.mean;
    }
  }
  row.texts = result.texts;
  row.text_compared = compared;
  return row;
}

void run_compare(const CompareOptions& o, const Common& common) {
  std::vector<Compared> models = run_all(o, common);
  std::string shown;
  if (!o.images.empty()) {
    shown = fmt::format("{}: {}", o.images[0], report::one_line(o.prompt));
  } else if (const auto i = telling_sample(models)) {
    for (Compared& m : models) m.caption = m.result->samples[*i].output;
    const records::SampleResult& sample = models[0].result->samples[*i];
    shown = fmt::format("{}: {}", sample.id, report::one_line(sample.prompt));
  }

  std::vector<report::ComparisonRow> rows;
  io::Json json = io::Json::array();
  for (const Compared& m : models) {
    report::ComparisonRow row = row_of(m, models[0]);
    io::Json& entry = json.emplace_back(io::Json::object());
    entry["description"] = row.description;
    entry["result"] = row.result;
    entry["unchanged"] = row.unchanged;
    if (m.result) entry["evaluation"] = records::to_json(*m.result);
    if (m.choices) entry["multiple_choice"] = records::to_json(*m.choices);
    rows.push_back(std::move(row));
  }
  if (common.json) return print_json(json);
  print(report::comparison_table(rows) + (shown.empty() ? "" : fmt::format("\nResult: {}\n", shown)));
}

/// Options of what a model is judged on.
void add_questions(CLI::App* command, Questions& questions) {
  add_data(command, questions.data, questions.window);
  add_max_new_tokens(command, questions.max_new_tokens);
  command->add_flag_callback(
      "--no-generate", [&questions] { questions.generate = false; },
      "Only loss, KL and agreement on the given answers: no text of the model's own");
  auto* mmlu =
      command
          ->add_option("--mmlu", questions.mmlu,
                       "Multiple choice: folder of dev/SUBJECT_dev.csv and test/SUBJECT_test.csv")
          ->check([](const std::string& text) { return text.empty() ? "a folder must be given" : ""; })
          ->type_name("DIR");
  command->add_option("--shots", questions.choices.shots, "Worked examples before each question")
      ->needs(mmlu)
      ->check(CLI::Range(0, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--limit", questions.choices.limit, "Only the first N questions of each subject")
      ->needs(mmlu)
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  command
      ->add_flag_callback(
          "--no-special-tokens", [&questions] { questions.choices.special_tokens = false; },
          "Multiple choice without the special tokens that the tokenizer adds (begin of text)")
      ->needs(mmlu);
}

}  // namespace

void add_eval(CLI::App& app, Common& common) {
  auto o = std::make_shared<EvalOptions>();
  CLI::App* command = add_command(
      app, common, "eval",
      "Judge a model: exact answers, loss, KL and agreement against a reference, or multiple choice",
      "nibble eval qwen2-vl-tiny-dynamic --data "
      "pictures/evaluation/samples.jsonl --against models/qwen2-vl-tiny",
      [o, &common] { run_eval(*o, common); });
  add_model(command, o->model);
  add_questions(command, o->questions);
  for (const char* other : {"--data", "--window", "--max-new-tokens", "--no-generate"})
    command->get_option("--mmlu")->excludes(command->get_option(other));
  command->add_option("--against", o->against, "The 16-bit model")->type_name("REF");
  command->add_option("--json", o->json, "Write every sample's result to this file (- for standard output)")
      ->type_name("F");
  add_compute(command, common);
}

void add_compare(CLI::App& app, Common& common) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* command =
      add_command(app, common, "compare", "The table: size, a caption, and what is unchanged",
                  "nibble compare models/qwen2-vl-tiny qwen2-vl-tiny-4bit qwen2-vl-tiny-dynamic",
                  [o, &common] { run_compare(*o, common); });
  command->add_option("MODEL", o->models, "Checkpoints; the first 16-bit one is the reference")->required();
  add_questions(command, o->questions);
  auto* image =
      command->add_option("--image", o->images, "Show the answers for this picture")->type_name("FILE");
  command->add_option("--prompt", o->prompt, "What to ask about it")
      ->needs(image)
      ->type_name("P")
      ->capture_default_str();
  add_compute(command, common);
  add_json_flag(command, common);
}

}  // namespace nibble::app
