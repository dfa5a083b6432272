#include <algorithm>

#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "measure/measure.h"
#include "plan/plan.h"
#include "report/views.h"
#include "write/checkpoint.h"

namespace nibble::app {
namespace {

struct Options {
  std::string model, out, budget, policy = "dynamic", plan, measurements, weights;
  CalibrationOptions calibration;
  int64_t max_shard_bytes = 5'000'000'000;
  bool force = false, no_verify = false;
};

/// A plan, and what gives the codes that it does not round plainly.
struct Planned {
  records::Plan plan;
  std::unique_ptr<Calibration> calibration;
};

/// True for a plan whose codes need statistics.
bool needs_codes(const records::Plan& plan) {
  return std::any_of(plan.decisions.begin(), plan.decisions.end(),
                     [](const auto& d) { return !d.keep && d.rounding != "plain"; });
}

/// Rounds what a plan that was made earlier needs, on the inputs that it names (or on --data).
void round_for(const Options& o, const Common& common, Planned& out) {
  if (!needs_codes(out.plan)) return;
  CalibrationOptions options = o.calibration;
  if (options.data.empty()) options.data = out.plan.data;
  options.window = out.plan.window;
  options.rounding = out.plan.rounding.kind;
  options.damping = fmt::format("{},{}", out.plan.rounding.damping[0], out.plan.rounding.damping[1]);
  options.guard = out.plan.rounding.guard > 0;
  options.mix = out.plan.rounding.mix;
  options.fuse = out.plan.fuse;
  options.hold_out = out.plan.held_out;
  Common same = common;
  same.compute = out.plan.compute;
  out.calibration = std::make_unique<Calibration>(o.model, options, same);
  out.calibration->round(out.plan);
}

/// Measures, plans, verifies.
Planned plan_anew(const Options& o, const model::Binding& source, const Common& common) {
  const bool dynamic = o.policy == "dynamic";
  plan::Preferences preferences{.rounding = o.calibration.rounding, .weights = parse_weights(o.weights)};
  Planned out;
  if (!o.measurements.empty()) {
    std::string digest;
    const auto measurements = read_measurements(o.measurements, digest);
    check_measurements(measurements, source.inventory(o.model));
    out.plan = plan_for(measurements, digest, o.policy, o.budget, preferences);
    round_for(o, common, out);
    return out;
  }
  CalibrationOptions options = o.calibration;
  if (options.rounding.empty()) options.rounding = dynamic ? "feedback" : "plain";
  if (!dynamic) options.effort = "none";
  if (!o.budget.empty()) options.budget = o.budget;
  options.hold_out = dynamic && !o.no_verify && options.effort != "none";
  if (!plan::find_policy(o.policy).needs_measurements && options.rounding == "plain") {
    records::Measurements sizes;
    sizes.inventory = source.inventory(o.model);
    sizes.fuse = options.fuse;
    measure::exact_sizes(source, sizes.inventory, options.allow_nonfinite);
    out.plan = plan_for(sizes, "", o.policy, o.budget, preferences);
    return out;
  }
  out.calibration = std::make_unique<Calibration>(o.model, options, common);
  const records::Measurements measurements = out.calibration->measure();
  out.plan = plan_for(measurements, record_digest(records::to_json(measurements)), o.policy, o.budget, preferences);
  if (dynamic && !o.no_verify) out.plan = verify_and_repair(*out.calibration, measurements, std::move(out.plan));
  out.plan.held_out = !out.calibration->held_out().items.empty() && options.verify.empty();
  return out;
}

void quantize(const Options& o, const Common& common) {
  const model::Binding source(io::resolve_model(o.model));
  if (source.quantized())
    fail("{}: is quantized already; give the 16-bit checkpoint that it was made of", o.model);
  io::OutputFolder folder = write::open_output(source, o.out, o.force);
  Planned planned;
  if (!o.plan.empty()) {
    planned.plan = records::read_plan(o.plan);
    round_for(o, common, planned);
  } else {
    planned = plan_anew(o, source, common);
  }
  const write::Options options{
      .max_shard_bytes = o.max_shard_bytes,
      .force = o.force,
      .allow_nonfinite = o.calibration.allow_nonfinite,
      .rounded = [&](const std::string& linear) { return planned.calibration->rounded(linear); },
      .command = command_text(),
      .version = NIBBLE_VERSION,
      .tell = tell};
  records::Plan& plan = planned.plan;
  plan.bytes = write::write_checkpoint(source, plan, folder, options);
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
  add_model(command, o->model);
  command->add_option("-o,--out", o->out, "Folder to write")->required()->type_name("OUT");
  add_policy(command, o->budget, o->policy);
  auto* plan = command->add_option("--plan", o->plan, "Use this plan")->type_name("FILE");
  plan->excludes(command->get_option("--budget"))->excludes(command->get_option("--policy"));
  command->add_option("--measurements", o->measurements, "Use these measurements")->type_name("FILE");
  o->calibration.rounding.clear();
  add_data(command, o->calibration.data, o->calibration.window);
  add_calibration(command, o->calibration);
  add_weights(command, o->weights);
  plan->excludes(command->get_option("--measurements"));
  command->add_option("--verify", o->calibration.verify, "Judge plans on these inputs (default: a quarter of the data)")
      ->type_name("FILE");
  command->add_flag("--no-verify", o->no_verify, "Write the predicted plan; all data decides")
      ->excludes(command->get_option("--verify"));
  command->add_option("--max-shard-size", o->max_shard_bytes, "Largest safetensors file (5GB, 500MiB)")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber)
      ->type_name("SIZE")
      ->default_str("5GB");
  command->add_flag("--force", o->force, "Replace OUT if it exists");
  command->add_flag("--allow-nonfinite", o->calibration.allow_nonfinite, "Go on when weights hold NaN or infinity");
  add_compute(command, common);
  add_json_flag(command, common);
}

}  // namespace nibble::app
