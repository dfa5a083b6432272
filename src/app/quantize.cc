#include <algorithm>
#include <array>

#include "app/commands.h"
#include "app/interrupt.h"
#include "base/error.h"
#include "data/samples.h"
#include "plan/plan.h"
#include "records/made.h"
#include "report/views.h"
#include "write/checkpoint.h"

namespace nibble::app {
namespace {

/// What an option needs to change anything: policy dynamic, codes that are not plain, measurements or such
/// codes, groups run alone, these or such codes.
enum class Needs { dynamic, codes, inputs, solo, codes_or_solo };

struct Options {
  std::string out, policy = "dynamic", plan, measurements;
  PlanningOptions planning;
  int64_t max_shard_bytes = 5'000'000'000;
  bool force = false;
  std::vector<std::pair<const CLI::Option*, Needs>> conditional;
};

/// Throws Error for an option that would change nothing for this policy.
void check_options(const Options& o) {
  if (!o.plan.empty() || !o.measurements.empty()) return;
  const bool dynamic = o.policy == "dynamic", solo = dynamic && o.planning.calibration.effort != "none";
  const std::string& rounding = o.planning.calibration.rounding;
  const bool codes = rounding.empty() ? dynamic : rounding != "plain";
  const bool inputs = codes || plan::find_policy(o.policy).needs_measurements;
  const std::array counts = {dynamic, codes, inputs, solo, codes || solo};  // by Needs
  for (const auto& [option, needs] : o.conditional) {
    if (option->count() > 0 && !counts[static_cast<size_t>(needs)])
      fail("{} changes nothing for policy {}{}", option->get_name(), o.policy,
           needs == Needs::codes || needs == Needs::inputs ? " with plain codes"
           : dynamic                                       ? " without groups run alone"
                                                           : "");
  }
}

/// Throws Error where the folder to write, which takes the place of what is there, holds what is to be read.
void check_inputs_outside(const Options& o) {
  if (!o.force || o.out.empty()) return;
  const auto& calibration = o.planning.calibration;
  std::vector<std::string> inputs = {o.plan, o.measurements};
  for (const auto* files : {&calibration.data, &calibration.verify})
    inputs.insert(inputs.end(), files->begin(), files->end());
  if (o.policy.starts_with("list:")) inputs.emplace_back(plan::policy_argument(o.policy));
  std::error_code ignored;
  const auto out = std::filesystem::weakly_canonical(o.out, ignored);
  for (const std::string& input : inputs) {
    if (input.empty()) continue;
    const auto path = std::filesystem::weakly_canonical(input, ignored);
    if (std::mismatch(out.begin(), out.end(), path.begin(), path.end()).first == out.end())
      fail(
          "{}: is read by this command and lies in {}, which would be replaced; move it, or choose another "
          "OUT",
          input, o.out);
  }
}

void quantize(Options o, const Common& common) {
  o.planning.calibration.target = o.out;
  // Also where the policy needs no data: a path that is wrong is a mistake.
  data::check_samples(o.planning.calibration.data);
  const model::Binding source = open_16bit(o.planning.model);
  if (o.plan.empty()) check_request(o.planning, {&o.policy, 1}, source);
  check_options(o);
  check_inputs_outside(o);
  io::OutputFolder folder = write::open_output(source, o.out, o.force);
  const InterruptNote note(o.out);
  Planner planner(o.planning, source, common);
  records::Plan plan;
  if (!o.plan.empty()) {
    plan = records::read_any_plan(o.plan);
    planner.adopt(plan);
  } else {
    if (o.measurements.empty())
      planner.measure({&o.policy, 1});
    else
      planner.take_measurements(o.measurements);
    plan = planner.plan(o.policy, o.planning.calibration.rounding, o.planning.budget);
  }
  tell_of_extremes(plan);
  planner.write(plan, folder, o.max_shard_bytes);
  planner.finish();
  print_written(o.out, common.json ? io::dump_json(records::to_json(plan)) + "\n"
                                   : report::plan_text(plan) + fmt::format("written to {}\n", o.out));
}

}  // namespace

void add_quantize(CLI::App& app, Common& common) {
  auto o = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, common, "quantize", "Write a dynamic 4-bit checkpoint; runs the stages that are missing",
      "nibble quantize models/qwen2-vl-tiny -o qwen2-vl-tiny-dynamic --budget 28%",
      [o, &common] { quantize(*o, common); });
  add_model(command, o->planning.model);
  command->add_option("-o,--out", o->out, "Folder to write")->required()->type_name("OUT");
  add_policy(command, o->planning.budget, o->policy);
  auto* plan = command->add_option("--plan", o->plan, "Use this plan, or that of a checkpoint's nibble.json")
                   ->type_name("FILE");
  auto* measurements =
      command
          ->add_option("--measurements", o->measurements, "Use these measurements; the plan is not verified")
          ->type_name("FILE");
  add_data(command, o->planning.calibration.data, o->planning.calibration.window);
  add_planning(command, o->planning);
  add_save_every(command, o->planning.calibration);
  add_compute(command, common);
  // A plan says how its codes are made, measurements what they were made of: options that would change
  // nothing are refused.
  for (const char* made : {"--damping", "--mix", "--no-guard", "--effort", "--fuse", "--verify",
                           "--no-verify", "--memory", "--window", "--compute"}) {
    plan->excludes(command->get_option(made));
    measurements->excludes(command->get_option(made));
  }
  for (const char* name : {"--effort", "--weights", "--no-verify"})
    o->conditional.emplace_back(command->get_option(name), Needs::dynamic);
  for (const char* name : {"--damping", "--mix"})
    o->conditional.emplace_back(command->get_option(name), Needs::codes);
  o->conditional.emplace_back(command->get_option("--no-guard"), Needs::inputs);
  o->conditional.emplace_back(command->get_option("--verify"), Needs::solo);
  o->conditional.emplace_back(command->get_option("--memory"), Needs::codes_or_solo);
  for (const char* planned : {"--budget", "--policy", "--measurements", "--rounding", "--weights"})
    plan->excludes(command->get_option(planned));
  add_size(command, "--max-shard-size", o->max_shard_bytes, "Largest safetensors file")->default_str("5GB");
  command->add_flag("--force", o->force, "Replace OUT if nibble wrote it and it holds nothing else");
  add_json_flag(command, common);
}

}  // namespace nibble::app
