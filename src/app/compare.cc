#include <algorithm>
#include <set>
#include <tuple>
#include <type_traits>

#include "app/commands.h"
#include "app/judge.h"
#include "app/planning.h"
#include "app/scratch.h"
#include "base/error.h"
#include "base/text.h"
#include "kernels/rounding.h"
#include "records/comparison.h"
#include "report/views.h"

namespace nibble::app {
namespace {

using records::ComparedModel;

struct CompareOptions {
  std::vector<std::string> models, images;
  std::string prompt = data::kDefaultPrompt;
  Questions questions;
  // Of checkpoints that are made for the comparison.
  PlanningOptions planning;
  std::vector<std::string> policies;  // empty: default_policies()
  int64_t seeds = 0;
  std::vector<CLI::Option*> making;  // the options that ask for this

  /// Such an option that was given, or null.
  const CLI::Option* makes() const {
    const auto given =
        std::find_if(making.begin(), making.end(), [](const auto* option) { return option->count() > 0; });
    return given == making.end() ? nullptr : *given;
  }
};

/// Where all are to be rounded in one way, all-4-bit is there once.
std::vector<std::string> default_policies(const std::string& rounding) {
  std::vector<std::string> out = {
      "none", "int8", "all", "all@feedback", "weight-error", "activation-error", "projections", "dynamic"};
  if (!rounding.empty()) std::erase(out, "all@feedback");
  return out;
}

/// One of --policies: "dynamic", or with codes of its own "all@feedback".
struct Contender {
  std::string text, policy;
  std::string rounding;  // "" where --rounding, or the policy's default, holds

  explicit Contender(const std::string& given) : text(given), policy(given) {
    // Behind the last sign: a file's name may hold one.
    const size_t at = text.rfind('@');
    if (at == std::string::npos || !kernels::parse_rounding(text.substr(at + 1))) return;
    policy = text.substr(0, at);
    rounding = text.substr(at + 1);
    if (policy == "int8" || policy == "none")
      fail("--policies {}: codes are for 4 bits, and policy {} writes none", text, policy);
  }
};

std::vector<std::string> policies_of(std::span<const Contender> contenders) {
  std::vector<std::string> out;
  for (const Contender& contender : contenders) out.push_back(contender.policy);
  return out;
}

/// The codes beside plain ones that the contenders need; "" where the policies' defaults do. Throws Error for
/// more than one kind.
std::string common_rounding(std::span<const Contender> contenders, const std::string& given) {
  std::string out = given == "plain" ? "" : given;
  bool dynamic = false;
  for (const Contender& contender : contenders) {
    const bool by_default = contender.policy == "dynamic" && contender.rounding.empty() && given.empty();
    const std::string rounding = by_default ? "feedback" : contender.rounding;
    dynamic = dynamic || contender.policy == "dynamic";
    if (rounding.empty() || rounding == "plain") continue;
    if (!out.empty() && out != rounding)
      fail("codes by {} and by {} are asked for; one comparison makes one kind beside plain ones", out,
           rounding);
    out = rounding;
  }
  return out.empty() && (dynamic || !given.empty()) ? "plain" : out;
}

/// The index of a sample worth looking at: one on which models differ, with a text rather than a letter as
/// the reference's output, and of those the one with the largest KL; the first of equals. Nothing where no
/// model was asked for a text.
std::optional<size_t> telling_sample(const std::vector<ComparedModel>& models) {
  constexpr size_t kText = 16;  // bytes; a multiple-choice letter is shorter
  std::optional<size_t> best;
  if (!models[0].evaluation) return best;
  std::tuple<bool, bool, double> most;
  const auto& reference = models[0].evaluation->samples;
  for (size_t i = 0; i < reference.size(); ++i) {
    if (!reference[i].generated) continue;
    bool differs = false;
    double kl = 0;
    for (const ComparedModel& m : models) {
      const records::SampleResult& sample = m.evaluation->samples[i];
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
ComparedModel run_one(LoadedModel& model, const Reference* reference, eval::Reading* made,
                      const Inputs& inputs, const CompareOptions& o) {
  ComparedModel out;
  out.description = description(model.binding);
  out.bytes = model.binding.tensor_bytes();
  if (!inputs.items.empty()) {
    eval::Reading reading = read(model, reference ? &reference->model : nullptr, inputs.items);
    out.evaluation = evaluate(model, reading, reference, inputs.items, o.questions);
    if (made) *made = std::move(reading);
  }
  if (!inputs.subjects.empty()) out.choices = answer_choices(model, o.questions, inputs.subjects);
  if (o.images.empty()) return out;
  const std::vector<std::filesystem::path> paths(o.images.begin(), o.images.end());
  const run::Prompt prompt = model.maker.chat(o.prompt, paths);
  const run::Prompt* pointer = &prompt;
  out.result = model.maker.decode(model.runner.generate({&pointer, 1}, o.questions.max_new_tokens)[0]);
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

/// The 16-bit model with all that the others are judged on and against.
struct Bench {
  LoadedModel base;
  Inputs inputs;
  Reference reference{base, {}};
  ComparedModel row;  // of the model itself

  Bench(const std::string& name, const CompareOptions& o, const Common& common) : base(name, common) {
    const Questions& questions = o.questions;
    if (!questions.mmlu.empty()) inputs.subjects = data::read_mmlu(questions.mmlu, questions.choices);
    if (questions.mmlu.empty() || !questions.data.empty()) {
      inputs.items = load_items(questions.data, "evaluation", base.maker, questions.window);
      complete(inputs.items, base, nullptr, questions.max_new_tokens);
    }
    row = run_one(base, nullptr, &reference.reading, inputs, o);
    // Only the head is needed from now on.
    for (const model::Linear* linear : model::linears(base.binding.spec())) base.weights.release(*linear);
  }

  ComparedModel judge(LoadedModel& model, const CompareOptions& o) const {
    ComparedModel out = run_one(model, &reference, nullptr, inputs, o);
    if (out.choices) records::set_reference(*out.choices, *row.choices);
    return out;
  }
};

/// Runs finished models.
std::vector<ComparedModel> run_finished(const CompareOptions& o, const Common& common) {
  const std::vector<std::string> names = reference_first(o.models);
  const Bench bench(names[0], o, common);
  std::vector<ComparedModel> out = {bench.row};
  for (size_t i = 1; i < names.size(); ++i) {
    LoadedModel model(names[i], common);
    out.push_back(bench.judge(model, o));
  }
  return out;
}

/// True when the plan depends on the calibration data.
bool is_measured(const records::Plan& plan) {
  return plan::find_policy(plan.policy).needs_measurements || needs_codes(plan);
}

/// True for plans that give the same checkpoint whatever they were measured on.
bool same_checkpoint(const records::Plan& a, const records::Plan& b) {
  return a.format == b.format && !needs_codes(a) && !needs_codes(b) &&
         std::equal(a.decisions.begin(), a.decisions.end(), b.decisions.begin(), b.decisions.end(),
                    [](const auto& x, const auto& y) { return x.keep == y.keep; });
}

/// What rounded the linears of a plan: "" where none is in 4 bits.
std::string rounding_of(const records::Plan& plan) {
  if (plan.format == "int8" || plan.kept() == std::ssize(plan.decisions)) return "";
  return needs_codes(plan) ? plan.rounding.kind : "plain";
}

using Kls = std::array<std::optional<double>, 3>;

Kls kls_of(const records::Evaluation& evaluation) {
  Kls out;
  for (const records::KlKind kind : records::kKlKinds)
    if (const auto kl = records::kl_of(evaluation, kind)) out[static_cast<size_t>(kind)] = kl->mean;
  return out;
}

void widen(records::Spread& spread, const Kls& kl) {
  for (size_t kind = 0; kind < kl.size(); ++kind) {
    if (!kl[kind]) continue;
    auto& range = spread.kl[kind];
    if (!range) range = {*kl[kind], *kl[kind]};
    range = {std::min(range->low, *kl[kind]), std::max(range->high, *kl[kind])};
  }
}

/// Checkpoints of all policies, made of one model one by one and judged against it.
class Policies {
 public:
  Policies(const CompareOptions& o, const Common& common)
      : o_(o),
        common_(common),
        contenders_(o.policies.begin(), o.policies.end()),
        source_(open_16bit(o.planning.model)),
        bench_(o.planning.model, o, common) {}

  std::vector<ComparedModel> run() {
    std::erase_if(contenders_, [](const Contender& c) { return c.policy == "none"; });  // the model itself
    const PlanningOptions planning = measuring(0);
    Planner planner(planning, source_, common_);
    planner.measure(policies_of(contenders_));
    int64_t limit = 0;
    std::vector<records::Plan> plans = plans_of(planner, contenders_, &limit);
    int64_t largest = 0;
    for (const records::Plan& plan : plans) largest = std::max(largest, plan.bytes);
    tell(fmt::format("checkpoints are made one by one in {}, the largest of {}", scratch_.path().string(),
                     bytes_text(largest)));
    std::vector<ComparedModel> rows = {bench_.row};
    rows[0].policy = "none";
    rows[0].plan = planner.plan("none", "", "");
    for (records::Plan& plan : plans) {
      ComparedModel row = made(planner, plan, [&](LoadedModel& model) { return bench_.judge(model, o_); });
      row.policy = plan.policy;
      row.rounding = rounding_of(plan);
      row.over_budget = plan.bytes > limit;
      // The folder is gone: what was judged is the model under this policy.
      const std::string name =
          fmt::format("{}, policy {}", o_.planning.model, contenders_[rows.size() - 1].text);
      if (row.evaluation) row.evaluation->model = name;
      if (row.choices) row.choices->model = name;
      row.plan = std::move(plan);
      rows.push_back(std::move(row));
    }
    if (o_.seeds > 0) add_spread(rows);
    return rows;
  }

 private:
  /// How calibration goes for all contenders together, on the data or a resample of it.
  PlanningOptions measuring(int64_t resample) const {
    PlanningOptions out = o_.planning;
    out.calibration.rounding = common_rounding(contenders_, o_.planning.calibration.rounding);
    out.calibration.resample = resample;
    return out;
  }

  /// Plans of the same size: where the budget is one in KL, that of the first of dynamic's. `limit`: in
  /// bytes.
  std::vector<records::Plan> plans_of(Planner& planner, std::span<const Contender> contenders,
                                      int64_t* limit) const {
    const auto rounding = [&](const Contender& contender) {
      if (contender.policy == "int8") return std::string();
      return contender.rounding.empty() ? o_.planning.calibration.rounding : contender.rounding;
    };
    std::string budget = o_.planning.budget;
    std::optional<records::Plan> dynamic;
    const auto first = std::find_if(contenders.begin(), contenders.end(),
                                    [](const Contender& c) { return c.policy == "dynamic"; });
    if (first != contenders.end()) {
      dynamic = planner.plan("dynamic", rounding(*first), budget);
      if (plan::kl_budget(budget, planner.measurements())) budget = fmt::format("{}B", dynamic->bytes);
    }
    // Codes of dynamic's plan may be smaller than plain ones, or at a share of 0% larger.
    *limit = plan::parse_budget(budget, planner.measurements().inventory,
                                dynamic ? std::optional(dynamic->bytes) : std::nullopt);
    std::vector<records::Plan> out;
    for (auto c = contenders.begin(); c != contenders.end(); ++c)
      out.push_back(c == first ? *dynamic
                               : planner.plan(c->policy, rounding(*c),
                                              plan::find_policy(c->policy).needs_budget ? budget : ""));
    return out;
  }

  /// Writes a plan, gives judge(the model), and removes what was written.
  template <typename Judge>
  std::invoke_result_t<Judge, LoadedModel&> made(Planner& planner, records::Plan& plan, Judge judge) {
    const std::filesystem::path folder = scratch_.path() / "checkpoint";
    planner.write(plan, folder);
    auto out = [&] {
      LoadedModel model(folder.string(), common_);
      return judge(model);
    }();
    std::filesystem::remove_all(folder);
    return out;
  }

  /// Repeats calibration with other samples, for the policies that depend on it.
  void add_spread(std::vector<ComparedModel>& rows) {
    std::vector<ComparedModel*> measured;
    std::vector<Contender> contenders;
    for (size_t i = 1; i < rows.size(); ++i) {
      ComparedModel& row = rows[i];
      if (!row.evaluation || !is_measured(*row.plan)) continue;
      measured.push_back(&row);
      contenders.push_back(contenders_[i - 1]);
      row.spread.emplace().seeds = o_.seeds;
      widen(*row.spread, kls_of(*row.evaluation));
    }
    if (measured.empty()) return;
    for (int64_t seed = 1; seed <= o_.seeds; ++seed) {
      const PlanningOptions planning = measuring(seed);
      Planner planner(planning, source_, common_);
      planner.measure(policies_of(contenders));
      int64_t limit = 0;
      std::vector<records::Plan> plans = plans_of(planner, contenders, &limit);
      for (size_t i = 0; i < plans.size(); ++i)
        widen(*measured[i]->spread,
              same_checkpoint(plans[i], *measured[i]->plan)
                  ? kls_of(*measured[i]->evaluation)
                  : made(planner, plans[i], [&](LoadedModel& model) { return kl(model); }));
    }
  }

  Kls kl(LoadedModel& model) const {
    Questions questions = o_.questions;
    questions.generate = false;
    const auto& items = bench_.inputs.items;
    return kls_of(evaluate(model, read(model, &bench_.base, items), &bench_.reference, items, questions));
  }

  const CompareOptions& o_;
  const Common& common_;
  std::vector<Contender> contenders_;  // but for the model itself, once it is run
  const model::Binding source_;
  const Bench bench_;
  ScratchFolder scratch_;
};

std::vector<ComparedModel> run_made(CompareOptions o, const Common& common) {
  if (o.models.size() != 1)
    fail("{} makes checkpoints of one 16-bit model to compare; {} were given", o.makes()->get_name(),
         o.models.size());
  if (o.seeds > 0 && !o.questions.mmlu.empty() && o.questions.data.empty())
    fail("--seeds shows the spread of KL, which multiple choice does not have; give --data");
  if (o.policies.empty()) o.policies = default_policies(o.planning.calibration.rounding);
  const std::set<std::string> distinct(o.policies.begin(), o.policies.end());
  for (const std::string& policy : distinct)
    if (std::count(o.policies.begin(), o.policies.end(), policy) > 1)
      fail("--policies names {} more than once; a checkpoint of each is made once", policy);
  o.planning.model = o.models[0];
  o.planning.calibration.window = o.questions.window;
  if (o.planning.budget.empty()) o.planning.budget = kDefaultBudget;
  const std::vector<Contender> contenders(o.policies.begin(), o.policies.end());
  (void)common_rounding(contenders, o.planning.calibration.rounding);
  check_request(o.planning, policies_of(contenders), model::Binding(io::resolve_model(o.models[0])));
  return Policies(o, common).run();
}

void run_compare(const CompareOptions& o, const Common& common) {
  std::vector<ComparedModel> models = o.makes() ? run_made(o, common) : run_finished(o, common);
  for (ComparedModel& m : models)
    if (m.evaluation) m.unchanged = unchanged(*m.evaluation, *models[0].evaluation);
  std::string shown;
  if (!o.images.empty()) {
    shown = fmt::format("{}: {}", o.images[0], report::one_line(o.prompt));
  } else if (const auto i = telling_sample(models)) {
    for (ComparedModel& m : models) m.result = m.evaluation->samples[*i].output;
    const records::SampleResult& sample = models[0].evaluation->samples[*i];
    shown = fmt::format("{}: {}", sample.id, report::one_line(sample.prompt));
  }
  if (common.json) return print_json(records::to_json(models));
  std::vector<report::ComparisonRow> rows;
  for (const ComparedModel& m : models) rows.push_back(report::comparison_row(m));
  print(report::comparison_table(rows) + (shown.empty() ? "" : fmt::format("\nResult: {}\n", shown)));
}

/// Options of checkpoints that are made for the comparison.
void add_making(CLI::App* command, CompareOptions& o) {
  const size_t before = command->get_options().size();
  add_budget(command, o.planning.budget);
  std::string help =
      "Checkpoints to make of one 16-bit MODEL, at equal bytes where a policy takes a budget, of:";
  for (const auto& p : plan::policies()) help += fmt::format(" {}", p.name);
  help += "; behind @ the codes of one of them, as in all@feedback";
  command->add_option("--policies", o.policies, help)
      ->delimiter(',')
      ->type_name("P,...")
      ->default_str(fmt::format("{}", fmt::join(default_policies(""), ",")));
  command
      ->add_option("--calibration", o.planning.calibration.data,
                   "What they are measured on, as --data; may be repeated")
      ->type_name("FILE");
  command
      ->add_option("--seeds", o.seeds,
                   "Repeat calibration with N resamples of its inputs and show the spread of KL")
      ->check(in_range(1, 1000))
      ->type_name("N");
  add_planning(command, o.planning);
  const auto all = command->get_options();
  o.making.assign(all.begin() + static_cast<std::ptrdiff_t>(before), all.end());
}

}  // namespace

void add_compare(CLI::App& app, Common& common) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* command = add_command(
      app, common, "compare", "The table: size, KL, exact answers, a caption; of checkpoints or of policies",
      "nibble compare models/qwen2-vl-tiny qwen2-vl-tiny-4bit qwen2-vl-tiny-dynamic\n"
      "  nibble compare models/qwen2-vl-tiny --budget 28% --data pictures/evaluation",
      [o, &common] { run_compare(*o, common); });
  command
      ->add_option(
          "MODEL", o->models,
          "Checkpoints, the first 16-bit one being the reference; or a 16-bit model and what to make of it")
      ->required();
  add_questions(command, o->questions);
  add_making(command, *o);
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
