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
  std::string model, out, budget, policy = "dynamic", plan, measurements;
  std::vector<std::string> data;
  int64_t window = 2048, max_shard_bytes = 5'000'000'000;
  bool force = false, allow_nonfinite = false;
};

/// Measurements as the policy needs them: read, made, or only the sizes of the linears.
records::Measurements measurements_for(const Options& o, const model::Binding& source, const Common& common,
                                       std::string& digest) {
  if (!o.measurements.empty()) {
    auto out = read_measurements(o.measurements, digest);
    check_measurements(out, source.inventory(o.model));
    return out;
  }
  if (plan::find_policy(o.policy).needs_measurements) {
    auto out = measure_model(o.model, o.data, o.window, o.allow_nonfinite, common);
    digest = record_digest(records::to_json(out));
    return out;
  }
  records::Measurements out;
  out.inventory = source.inventory(o.model);
  measure::exact_sizes(source, out.inventory, o.allow_nonfinite);
  return out;
}

void quantize(const Options& o, const Common& common) {
  const model::Binding source(io::resolve_model(o.model));
  if (source.quantized())
    fail("{}: is quantized already; give the 16-bit checkpoint that it was made of", o.model);
  write::check_job(source, o.out, o.force);
  records::Plan plan;
  if (!o.plan.empty()) {
    plan = records::read_plan(o.plan);
  } else {
    std::string digest;
    const auto measurements = measurements_for(o, source, common, digest);
    plan = plan_for(measurements, digest, o.policy, o.budget);
  }
  const write::Options options{.max_shard_bytes = o.max_shard_bytes,
                               .force = o.force,
                               .allow_nonfinite = o.allow_nonfinite,
                               .command = command_text(),
                               .version = NIBBLE_VERSION};
  plan.bytes = write::write_checkpoint(source, plan, o.out, options);
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
  add_data(command, o->data, o->window);
  for (const char* other : {"--measurements", "--data"}) plan->excludes(command->get_option(other));
  command->add_option("--max-shard-size", o->max_shard_bytes, "Largest safetensors file (5GB, 500MiB)")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::PositiveNumber)
      ->type_name("SIZE")
      ->default_str("5GB");
  command->get_option("--measurements")->excludes(command->get_option("--data"));
  command->add_flag("--force", o->force, "Replace OUT if it exists");
  command->add_flag("--allow-nonfinite", o->allow_nonfinite, "Go on when weights hold NaN or infinity");
  add_compute(command, common);
  add_json_flag(command, common);
}

}  // namespace nibble::app
