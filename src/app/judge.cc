#include "app/judge.h"

#include <algorithm>
#include <set>

#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "eval/multiple_choice.h"

namespace nibble::app {

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
      ->check(in_range(0, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--limit", questions.choices.limit, "Only the first N questions of each subject")
      ->needs(mmlu)
      ->check(in_range(1, 1 << 30))
      ->type_name("N");
  command
      ->add_flag_callback(
          "--no-special-tokens", [&questions] { questions.choices.special_tokens = false; },
          "Multiple choice without the special tokens that the tokenizer adds (begin of text)")
      ->needs(mmlu);
}

}  // namespace nibble::app
