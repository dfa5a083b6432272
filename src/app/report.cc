#include "report/report.h"

#include <algorithm>
#include <map>

#include "app/commands.h"
#include "base/error.h"
#include "data/samples.h"
#include "io/checkpoint.h"
#include "records/made.h"
#include "report/card.h"

namespace nibble::app {
namespace fs = std::filesystem;
namespace {

struct ReportOptions {
  std::string measurements, plan, compare, out = "report.html";
  std::vector<std::string> evaluations;
};

struct CardOptions {
  std::string folder, out, base_model;
  std::vector<std::string> evaluations;
  bool force = false;
};

/// The files of NAME=FILE options.
std::vector<std::string> files_of(const std::vector<std::string>& evaluations) {
  std::vector<std::string> out;
  for (const std::string& text : evaluations) out.push_back(text.substr(text.find('=') + 1));
  return out;
}

/// Adds what a NAME=FILE of --evaluation says: an evaluation, or a multiple choice. Two records of one name
/// are one model.
void add_evaluation(const std::string& text, std::vector<records::ComparedModel>& models) {
  const size_t sign = text.find('=');
  if (sign == std::string::npos || sign == 0 || sign + 1 == text.size())
    fail("--evaluation {}: give NAME=FILE, with the file that nibble eval --json wrote", text);
  const std::string name = text.substr(0, sign), path = text.substr(sign + 1);
  const io::Json json = io::read_json(path, io::DuplicateKeys::refuse);
  auto it = std::find_if(models.begin(), models.end(),
                         [&](const auto& model) { return model.description == name; });
  if (it == models.end()) {
    it = models.insert(it, records::ComparedModel());
    it->description = name;
  }
  const bool choices = json.is_object() && json.value("nibble", io::Json()) == "multiple_choice";
  if (choices ? it->choices.has_value() : it->evaluation.has_value())
    fail("--evaluation {}: there is one of this name already", text);
  if (choices)
    it->choices = records::multiple_choice_from_json(json, path);
  else
    it->evaluation = records::evaluation_from_json(json, path);
  it->bytes = it->choices ? it->choices->tensor_bytes : it->evaluation->tensor_bytes;
}

/// Finds pictures by the ids of samples: a picture's path, or the line of a samples.jsonl, which must still
/// ask the same.
class Pictures {
 public:
  std::vector<fs::path> operator()(const records::SampleResult& sample) {
    if (fs::is_regular_file(sample.id)) return {sample.id};
    const std::string file = sample.id.substr(0, sample.id.rfind(':'));
    if (file == sample.id || !fs::is_regular_file(file)) return {};
    const auto& lines = lines_of(file);
    const auto it = lines.find(sample.id);
    return it == lines.end() || it->second.text != sample.prompt ? std::vector<fs::path>()
                                                                 : it->second.images;
  }

 private:
  const std::map<std::string, data::Sample>& lines_of(const std::string& file) {
    const auto [it, fresh] = files_.try_emplace(file);
    if (!fresh) return it->second;
    try {
      for (data::Sample& sample : data::read_samples({&file, 1})) {
        const std::string id = sample.id;
        it->second.emplace(id, std::move(sample));
      }
    } catch (const Error&) {
      it->second.clear();  // the data went or changed since: the report does without its pictures
    }
    return it->second;
  }

  std::map<std::string, std::map<std::string, data::Sample>> files_;
};

/// A plan and measurements that stand in one report must be of one model.
void check_same_model(const records::Measurements& measurements, const records::Plan& plan) {
  const auto& linears = measurements.inventory.linears;
  for (size_t i = 0; i < std::max(linears.size(), plan.decisions.size()); ++i)
    if (i >= linears.size() || i >= plan.decisions.size() || linears[i].name != plan.decisions[i].name)
      fail("the plan (of {}) and the measurements (of {}) have other linears; give those of one model",
           plan.model, measurements.inventory.model);
}

void run_report(const ReportOptions& o) {
  std::vector<std::string> inputs = files_of(o.evaluations);
  inputs.insert(inputs.end(), {o.measurements, o.plan, o.compare});
  check_target(o.out, inputs, "report");
  if (o.measurements.empty() && o.plan.empty() && o.compare.empty() && o.evaluations.empty())
    fail("nothing to report: give --measurements, --plan, --evaluation or --compare");
  report::Records records;
  records.version = NIBBLE_VERSION;
  if (!o.measurements.empty()) records.measurements = records::read_measurements(o.measurements);
  if (!o.plan.empty()) records.plan = records::read_any_plan(o.plan);
  if (records.measurements && records.plan) check_same_model(*records.measurements, *records.plan);
  if (!o.compare.empty()) records.models = records::read_comparison(o.compare);
  for (const std::string& text : o.evaluations) add_evaluation(text, records.models);
  Pictures pictures;
  io::write_file(o.out, report::report_html(records, [&](const auto& sample) { return pictures(sample); }));
  print_written(o.out, fmt::format("written to {}\n", o.out));
}

/// The hub's name of the model that a plan was made for, if it is one.
std::string base_model_of(const CardOptions& o, const records::Plan& plan) {
  if (!o.base_model.empty()) {
    if (report::hub_name(o.base_model).empty())
      fail("--base-model {}: is no hub name; give ORG/NAME", o.base_model);
    return report::hub_name(o.base_model);
  }
  return fs::exists(plan.model) ? "" : report::hub_name(plan.model);
}

void run_card(const CardOptions& o) {
  const fs::path folder = o.folder;
  const std::string source = (folder / "nibble.json").string();
  if (!fs::is_regular_file(source))
    fail("{}: is no checkpoint that nibble wrote: it has no nibble.json", o.folder);
  const fs::path out = o.out.empty() ? folder / "README.md" : fs::path(o.out);
  check_writable(out.string());
  const bool own_place = out.filename() == "README.md";
  check_not_read(out.string(), files_of(o.evaluations));
  if (!own_place && fs::exists(out) && fs::exists(fs::absolute(out).parent_path() / "config.json"))
    fail("{}: is a file of a checkpoint and would be replaced; choose another name", out.string());
  if (!o.force && fs::exists(out) && !report::is_model_card(io::read_file(out)))
    fail("{}: was not written by nibble; say --force to replace it, or choose another name with -o",
         out.string());
  report::Card card;
  card.made = records::made_from_json(io::read_json(source), source);
  card.name = fs::weakly_canonical(folder).filename().string();
  card.base_model = base_model_of(o, card.made.plan);
  const std::string config = (folder / "config.json").string();
  const io::Json json = io::read_json(config);
  const model::Family& family = model::find_family(io::Fields(json, config));
  card.family = family.title;
  card.model_class = family.model_class;
  card.takes_pictures = family.image != model::ImageFormat::none;
  for (const std::string& text : o.evaluations) add_evaluation(text, card.models);
  io::write_file(out, report::model_card(card));
  print_written(out.string(), fmt::format("written to {}\n", out.string()));
}

void add_evaluations(CLI::App* command, std::vector<std::string>& evaluations) {
  command
      ->add_option("--evaluation", evaluations, "What nibble eval --json wrote of a model; may be repeated")
      ->type_name("NAME=FILE");
}

}  // namespace

void add_report(CLI::App& app, Common& common) {
  auto o = std::make_shared<ReportOptions>();
  CLI::App* command =
      add_command(app, common, "report", "One HTML page of charts and tables from records",
                  "nibble report --measurements measurements.json --plan plan.json -o report.html",
                  [o] { run_report(*o); });
  command->add_option("--measurements", o->measurements, "measurements.json")->type_name("FILE");
  command->add_option("--plan", o->plan, "plan.json, or nibble.json of a written checkpoint")
      ->type_name("FILE");
  add_evaluations(command, o->evaluations);
  command->add_option("--compare", o->compare, "What nibble compare --json printed")->type_name("FILE");
  command->add_option("-o,--out", o->out, "Where to write")->type_name("FILE")->capture_default_str();
}

void add_card(CLI::App& app, Common& common) {
  auto o = std::make_shared<CardOptions>();
  CLI::App* command =
      add_command(app, common, "card", "A Hugging Face model card for a checkpoint that nibble wrote",
                  "nibble card qwen2-vl-tiny-dynamic --evaluation dynamic=eval.json", [o] { run_card(*o); });
  command->add_option("DIR", o->folder, "The checkpoint's folder")->required();
  add_evaluations(command, o->evaluations);
  command
      ->add_option("--base-model", o->base_model,
                   "Hub name of the 16-bit model (default: the plan's, if it is one)")
      ->type_name("ORG/NAME");
  command->add_option("-o,--out", o->out, "Where to write (default: README.md in DIR)")->type_name("FILE");
  command->add_flag("--force", o->force, "Replace a README that nibble did not write");
}

}  // namespace nibble::app
