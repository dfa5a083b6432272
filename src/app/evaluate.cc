#include "app/commands.h"
#include "app/judge.h"
#include "base/error.h"
#include "report/views.h"

namespace nibble::app {
namespace {

struct EvalOptions {
  std::string model, against, json;
  Questions questions;
};

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
  const records::Evaluation result =
      evaluate(model, read(model, against, items), reference ? &*reference : nullptr, items, questions);
  return {records::to_json(result), report::evaluation_text(result)};
}

void run_eval(const EvalOptions& o, const Common& common) {
  if (!o.json.empty() && o.json != "-") {
    check_target(o.json, o.questions.data, o.questions.mmlu.empty() ? "evaluation" : "multiple_choice");
  }
  LoadedModel model(o.model, common);
  std::unique_ptr<LoadedModel> against;
  if (!o.against.empty()) against = std::make_unique<LoadedModel>(o.against, common);
  if (against && against->binding.quantized())
    tell(fmt::format("{}: is quantized itself: KL and agreement are against that, not against 16 bits",
                     o.against));
  const auto [json, text] = judge(o, model, against.get());
  if (o.json == "-") return print_json(json);
  if (!o.json.empty()) write_record(o.json, json);
  print(text);
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

}  // namespace nibble::app
