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

struct Options {
  std::string out, policy = "dynamic", plan, measurements;
  PlanningOptions planning;
  int64_t max_shard_bytes = 5'000'000'000;
  bool force = false;
};

void quantize(Options o, const Common& common) {
  o.planning.calibration.target = o.out;
  // Also where the policy needs no data: a path that is wrong is a mistake.
  data::check_samples(o.planning.calibration.data);
  const model::Binding source = open_16bit(o.planning.model);
  if (!o.planning.budget.empty()) plan::check_budget(o.planning.budget, source.inventory(o.planning.model));
  plan::find_policy(o.policy);
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
  if (common.json)
    print_json(records::to_json(plan));
  else
    print(report::plan_text(plan) + fmt::format("written to {}\n", o.out));
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
  auto* plan =
      command->add_option("--plan", o->plan, "Use this plan, or that of a checkpoint's nibble.json")->type_name("FILE");
  auto* measurements =
      command->add_option("--measurements", o->measurements, "Use these measurements; the plan is not verified")
          ->type_name("FILE");
  add_data(command, o->planning.calibration.data, o->planning.calibration.window);
  add_planning(command, o->planning);
  add_save_every(command, o->planning.calibration);
  add_compute(command, common);
  // A plan says how its codes are made, measurements what they were made of: options that would change nothing are
  // refused.
  for (const char* made : {"--damping", "--mix", "--no-guard", "--effort", "--fuse", "--verify", "--no-verify",
                           "--memory", "--window", "--compute"}) {
    plan->excludes(command->get_option(made));
    measurements->excludes(command->get_option(made));
  }
  for (const char* planned : {"--budget", "--policy", "--measurements", "--rounding", "--weights"})
    plan->excludes(command->get_option(planned));
  add_size(command, "--max-shard-size", o->max_shard_bytes, "Largest safetensors file")->default_str("5GB");
  command->add_flag("--force", o->force, "Replace OUT if it exists");
  add_json_flag(command, common);
}

}  // namespace nibble::app
