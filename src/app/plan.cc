#include "plan/plan.h"

#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "report/views.h"

namespace nibble::app {
namespace {

struct MeasureOptions {
  std::string model, out = "measurements.json";
  std::vector<std::string> data;
  int64_t window = 2048;
  bool allow_nonfinite = false;
};

struct PlanOptions {
  std::string measurements, budget, policy = "dynamic", out = "plan.json";
};

}  // namespace

void add_measure(CLI::App& app, Common& common) {
  auto o = std::make_shared<MeasureOptions>();
  CLI::App* command = add_command(
      app, common, "measure", "Measure weight and activation error of every linear in NF4",
      "nibble measure models/qwen2-vl-tiny --data pictures/calibration/samples.jsonl -o measurements.json",
      [o, &common] {
        check_target(o->out);
        const auto measurements = measure_model(o->model, o->data, o->window, o->allow_nonfinite, common);
        const io::Json json = records::to_json(measurements);
        write_record(o->out, json);
        if (common.json)
          print_json(json);
        else
          print(report::measurements_text(measurements, 20) + fmt::format("written to {}\n", o->out));
      });
  add_model(command, o->model);
  add_data(command, o->data, o->window);
  command->add_option("-o,--out", o->out, "Where to write")->type_name("FILE")->capture_default_str();
  command->add_flag("--allow-nonfinite", o->allow_nonfinite, "Go on when weights hold NaN or infinity");
  add_compute(command, common);
  add_json_flag(command, common);
}

void add_plan(CLI::App& app, Common& common) {
  auto o = std::make_shared<PlanOptions>();
  CLI::App* command = add_command(
      app, common, "plan", "Choose the linears that stay in 16 bits, within a budget",
      "nibble plan measurements.json --budget 10% -o plan.json", [o, &common] {
        check_target(o->out);
        std::error_code ignored;
        if (std::filesystem::equivalent(o->measurements, o->out, ignored))
          fail("{}: holds the measurements and would be replaced; choose another name for -o", o->out);
        std::string digest;
        const auto measurements = read_measurements(o->measurements, digest);
        const records::Plan plan = plan_for(measurements, digest, o->policy, o->budget);
        const io::Json json = records::to_json(plan);
        write_record(o->out, json);
        if (common.json)
          print_json(json);
        else
          print(report::plan_text(plan) + fmt::format("written to {}\n", o->out));
      });
  command->add_option("MEASUREMENTS", o->measurements, "measurements.json")->required();
  add_policy(command, o->budget, o->policy);
  command->add_option("-o,--out", o->out, "Where to write")->type_name("FILE")->capture_default_str();
  add_json_flag(command, common);
}

}  // namespace nibble::app
