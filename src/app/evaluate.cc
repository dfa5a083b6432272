#include "eval/evaluate.h"

#include <algorithm>
#include <tuple>

#include "app/commands.h"
#include "base/error.h"
#include "report/views.h"

namespace nibble::app {
namespace {

struct EvalOptions {
  std::string model, against, json;
  std::vector<std::string> data;
  int64_t window = 2048, max_new_tokens = 64;
};

struct CompareOptions {
  std::vector<std::string> models, data, images;
  std::string prompt = data::kDefaultPrompt;
  int64_t window = 2048, max_new_tokens = 64;
};

/// Completes open answers with a 16-bit model: the reference, or the model itself.
void complete(std::vector<data::Item>& items, LoadedModel& model, LoadedModel* reference) {
  LoadedModel& speaker = reference ? *reference : model;
  const bool open = std::any_of(items.begin(), items.end(),
                                [](const data::Item& item) { return !item.plain && item.answer.empty(); });
  if (open && speaker.binding.quantized())
    fail(
        "{}: some samples have no answer, and this model is quantized; name the 16-bit model (--against) "
        "whose own "
        "answers are to be judged against",
        speaker.name);
  data::complete_answers(items, speaker.runner, speaker.maker);
}

records::Evaluation evaluate(LoadedModel& model, LoadedModel* reference, const std::vector<data::Item>& items,
                             int64_t max_new_tokens) {
  if (reference && reference->binding.spec().text.vocabulary != model.binding.spec().text.vocabulary)
    fail("{} and {} do not have the same vocabulary; compare models of one origin", model.name,
         reference->name);
  records::Evaluation out = eval::evaluate(model.runner, reference ? &reference->runner : nullptr, items,
                                           model.maker, {.max_new_tokens = max_new_tokens, .generate = true});
  out.model = model.name;
  out.against = reference ? reference->name : "";
  return out;
}

void run_eval(const EvalOptions& o, const Common& common) {
  LoadedModel model(o.model, common);
  std::unique_ptr<LoadedModel> reference;
  if (!o.against.empty()) reference = std::make_unique<LoadedModel>(o.against, common);
  std::vector<data::Item> items = load_items(o.data, "evaluation", model.maker, o.window);
  complete(items, model, reference.get());
  const records::Evaluation result = evaluate(model, reference.get(), items, o.max_new_tokens);
  const io::Json json = records::to_json(result);
  if (o.json == "-") return print_json(json);
  if (!o.json.empty()) write_record(o.json, json);
  print(report::evaluation_text(result));
}

/// The index of a sample worth looking at: one on which models differ, with a text rather than a letter as
/// the reference's output, and of those the one with the largest KL; the first of equals.
size_t telling_sample(const std::vector<records::Evaluation>& results) {
  constexpr size_t kText = 16;  // bytes; a multiple-choice letter is shorter
  size_t best = 0;
  std::tuple<bool, bool, double> most{false, false, -1};
  for (size_t i = 0; i < results[0].samples.size(); ++i) {
    const std::string& expected = results[0].samples[i].output;
    bool differs = false;
    double kl = 0;
    for (const auto& r : results) {
      differs |= r.samples[i].output != expected;
      kl = std::max(kl, r.samples[i].kl);
    }
    const std::tuple<bool, bool, double> rank{differs, expected.size() >= kText, kl};
    if (rank > most) {
      most = rank;
      best = i;
    }
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

void run_compare(const CompareOptions& o, const Common& common) {
  std::vector<std::unique_ptr<LoadedModel>> models;
  for (const std::string& name : o.models) models.push_back(std::make_unique<LoadedModel>(name, common));
  // The first 16-bit model is what the others are measured against, and comes first.
  const auto reference = std::stable_partition(models.begin(), models.end(),
                                               [](const auto& m) { return !m->binding.quantized(); });
  if (reference == models.begin())
    fail("compare needs the 16-bit model too, to measure the others against; name it first");
  LoadedModel& base = *models[0];
  std::vector<data::Item> items = load_items(o.data, "evaluation", base.maker, o.window);
  complete(items, base, nullptr);

  std::vector<records::Evaluation> results;
  for (const auto& model : models)
    results.push_back(evaluate(*model, model == models[0] ? nullptr : &base, items, o.max_new_tokens));

  std::vector<std::string> captions;
  std::string shown;
  if (!o.images.empty()) {
    const std::vector<std::filesystem::path> paths(o.images.begin(), o.images.end());
    for (const auto& model : models) {
      const run::Prompt prompt = model->maker.chat(o.prompt, paths);
      const run::Prompt* pointer = &prompt;
      captions.push_back(model->maker.decode(model->runner.generate({&pointer, 1}, o.max_new_tokens)[0]));
    }
    shown = fmt::format("{}: {}", o.images[0], report::one_line(o.prompt));
  } else {
    const size_t i = telling_sample(results);
    for (const auto& result : results) captions.push_back(result.samples[i].output);
    shown = fmt::format("{}: {}", results[0].samples[i].id, report::one_line(results[0].samples[i].prompt));
  }

  std::vector<report::ComparisonRow> rows;
  io::Json json = io::Json::array();
  for (size_t i = 0; i < models.size(); ++i) {
    report::ComparisonRow row{.description = description(models[i]->binding),
                              .bytes = results[i].tensor_bytes,
                              .result = captions[i],
                              .exact = results[i].exact.mean,
                              .unchanged = unchanged(results[i], results[0]),
                              .kl = {},
                              .agreement = {}};
    if (i > 0) {
      row.kl = results[i].kl;
      row.agreement = results[i].agreement.mean;
    }
    json.push_back({{"description", row.description},
                    {"result", row.result},
                    {"unchanged", row.unchanged},
                    {"evaluation", records::to_json(results[i])}});
    rows.push_back(std::move(row));
  }
  if (common.json) return print_json(json);
  print(report::comparison_table(rows) + fmt::format("\nResult: {}\n", shown));
}

}  // namespace

void add_eval(CLI::App& app, Common& common) {
  auto o = std::make_shared<EvalOptions>();
  CLI::App* command = add_command(app, common, "eval",
                                  "Judge a model: exact answers, loss, KL and agreement against a reference",
                                  "nibble eval qwen2-vl-tiny-dynamic --data "
                                  "pictures/evaluation/samples.jsonl --against models/qwen2-vl-tiny",
                                  [o, &common] { run_eval(*o, common); });
  add_model(command, o->model);
  add_data(command, o->data, o->window);
  command->add_option("--against", o->against, "The 16-bit model")->type_name("REF");
  command->add_option("--json", o->json, "Write every sample's result to this file (- for standard output)")
      ->type_name("F");
  command->add_option("--max-new-tokens", o->max_new_tokens, "Longest answer, in tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  add_compute(command, common);
}

void add_compare(CLI::App& app, Common& common) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* command =
      add_command(app, common, "compare", "The table: size, a caption, and what is unchanged",
                  "nibble compare models/qwen2-vl-tiny qwen2-vl-tiny-4bit qwen2-vl-tiny-dynamic",
                  [o, &common] { run_compare(*o, common); });
  command->add_option("MODEL", o->models, "Checkpoints; the first 16-bit one is the reference")->required();
  add_data(command, o->data, o->window);
  command->add_option("--image", o->images, "Show the answers for this picture")->type_name("FILE");
  command->add_option("--prompt", o->prompt, "What to ask about it")->type_name("P")->capture_default_str();
  command->add_option("--max-new-tokens", o->max_new_tokens, "Longest answer, in tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  add_compute(command, common);
  add_json_flag(command, common);
}

}  // namespace nibble::app
