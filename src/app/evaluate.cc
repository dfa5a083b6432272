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
  if (!o.json.empty() && o.json != "-") check_target(o.json);
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

/// One model of the comparison, once it was run.
struct Compared {
  std::string description, caption;
  records::Evaluation result;
};

/// The index of a sample worth looking at: one on which models differ, with a text rather than a letter as
/// the reference's output, and of those the one with the largest KL; the first of equals.
size_t telling_sample(const std::vector<Compared>& models) {
  constexpr size_t kText = 16;  // bytes; a multiple-choice letter is shorter
  size_t best = 0;
  std::tuple<bool, bool, double> most{false, false, -1};
  for (size_t i = 0; i < models[0].result.samples.size(); ++i) {
    const std::string& expected = models[0].result.samples[i].output;
    bool differs = false;
    double kl = 0;
    for (const Compared& m : models) {
      const records::Evaluation& r = m.result;
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

Compared run_one(LoadedModel& model, LoadedModel* base, const std::vector<data::Item>& items,
                 const CompareOptions& o) {
  Compared out{description(model.binding), "", evaluate(model, base, items, o.max_new_tokens)};
  if (o.images.empty()) return out;
  const std::vector<std::filesystem::path> paths(o.images.begin(), o.images.end());
  const run::Prompt prompt = model.maker.chat(o.prompt, paths);
  const run::Prompt* pointer = &prompt;
  out.caption = model.maker.decode(model.runner.generate({&pointer, 1}, o.max_new_tokens)[0]);
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

void run_compare(const CompareOptions& o, const Common& common) {
  const std::vector<std::string> names = reference_first(o.models);
  LoadedModel base(names[0], common);
  std::vector<data::Item> items = load_items(o.data, "evaluation", base.maker, o.window);
  complete(items, base, nullptr);
  std::vector<Compared> models = {run_one(base, nullptr, items, o)};
  for (size_t i = 1; i < names.size(); ++i) {
    LoadedModel model(names[i], common);
    models.push_back(run_one(model, &base, items, o));
  }

  std::string shown;
  if (!o.images.empty()) {
    shown = fmt::format("{}: {}", o.images[0], report::one_line(o.prompt));
  } else {
    const size_t i = telling_sample(models);
    for (Compared& m : models) m.caption = m.result.samples[i].output;
    const records::SampleResult& sample = models[0].result.samples[i];
    shown = fmt::format("{}: {}", sample.id, report::one_line(sample.prompt));
  }

  std::vector<report::ComparisonRow> rows;
  io::Json json = io::Json::array();
  for (const Compared& m : models) {
    report::ComparisonRow row{.description = m.description,
                              .bytes = m.result.tensor_bytes,
                              .result = m.caption,
                              .exact = m.result.exact.mean,
                              .unchanged = unchanged(m.result, models[0].result),
                              .kl = {},
                              .agreement = {}};
    if (&m != &models[0]) {
      row.kl = m.result.kl;
      row.agreement = m.result.agreement.mean;
    }
    json.push_back({{"description", row.description},
                    {"result", row.result},
                    {"unchanged", row.unchanged},
                    {"evaluation", records::to_json(m.result)}});
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
  auto* image =
      command->add_option("--image", o->images, "Show the answers for this picture")->type_name("FILE");
  command->add_option("--prompt", o->prompt, "What to ask about it")
      ->needs(image)
      ->type_name("P")
      ->capture_default_str();
  command->add_option("--max-new-tokens", o->max_new_tokens, "Longest answer, in tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  add_compute(command, common);
  add_json_flag(command, common);
}

}  // namespace nibble::app
