#include "plan/plan.h"

#include "app/commands.h"
#include "app/interrupt.h"
#include "base/error.h"
#include "base/text.h"
#include "report/views.h"
#include "write/checkpoint.h"

namespace nibble::app {
namespace {

struct MeasureOptions {
  std::string model, out = "measurements.json";
  CalibrationOptions calibration;
};

struct PlanOptions {
  std::string measurements, budget, policy = "dynamic", rounding, weights, as, out;
  bool explain = false;
};

void measure(const MeasureOptions& o, const Common& common) {
  check_target(o.out, o.calibration.data, "measurements");
  const InterruptNote note(o.out);
  CalibrationOptions options = o.calibration;
  options.target = o.out;
  Calibration calibration(o.model, std::move(options), common);
  const records::Measurements measurements = calibration.measure();
  const io::Json json = records::to_json(measurements);
  write_record(o.out, json);
  calibration.finish();
  print_written(o.out, common.json ? io::dump_json(json) + "\n"
                                   : report::measurements_text(measurements, 20) +
                                         fmt::format("written to {}\n", o.out));
}

/// The folder of the model that was measured, whose name stands as it was given then.
std::filesystem::path measured_model(const std::string& name, const std::string& measurements) {
  try {
    return io::resolve_model(name);
  } catch (const Error& error) {
    fail("{} (the model's name stands in {}: call this where it leads there)", error.what(), measurements);
  }
}

/// The plan as the arguments of transformers' own quantization while loading.
std::string transformers_text(const records::Plan& plan, const std::string& measurements) {
  const model::Binding source(measured_model(plan.model, measurements));
  const io::Json config = write::config_of_plan(source, plan);
  if (!config.contains("quantization_config"))
    return "# The plan keeps everything in 16 bits: load the model without a quantization_config.\n";
  std::string skip;
  for (const auto& name : config["quantization_config"]["llm_int8_skip_modules"])
    skip += fmt::format("        {},\n", io::json_string(name.get<std::string>()));
  const bool eight = plan.format == "int8";
  return fmt::format(
      "from transformers import BitsAndBytesConfig\n\n"
      "quantization_config = BitsAndBytesConfig(\n"
      "{}"
      "    llm_int8_skip_modules=[\n{}    ],\n)\n"
      "# model = ...from_pretrained({}, quantization_config=quantization_config)\n{}",
      eight
          ? "    load_in_8bit=True,\n"
          : "    load_in_4bit=True,\n    bnb_4bit_quant_type=\"nf4\",\n    bnb_4bit_use_double_quant=True,\n"
            "    bnb_4bit_compute_dtype=\"bfloat16\",\n",
      skip, io::json_string(plan.model),
      plan.rounding.plain()
          ? ""
          : "# transformers rounds plainly while loading: the better codes of this plan are only in "
            "the checkpoint that nibble writes.\n");
}

void make_plan(const PlanOptions& o, const Common& common) {
  // Whoever asks for the plan in another form does not ask for a file.
  const std::string out = !o.out.empty() || !o.as.empty() ? o.out : "plan.json";
  if (!out.empty()) check_target(out, {o.measurements}, "plan");
  std::string digest;
  const auto measurements = read_measurements(o.measurements, digest);
  const records::Plan plan = plan_for(measurements, digest, o.policy, o.budget,
                                      {.rounding = o.rounding, .weights = parse_weights(o.weights)});
  tell_of_extremes(plan);
  const std::string as = o.as.empty() ? "" : transformers_text(plan, o.measurements);
  const io::Json json = records::to_json(plan);
  if (!out.empty()) write_record(out, json);
  if (common.json) return print_json(json);
  if (!as.empty()) return print(as);
  print_written(out, (o.explain ? report::plan_explained(plan, measurements) : report::plan_text(plan)) +
                         fmt::format("written to {}\n", out));
}

}  // namespace

void add_measure(CLI::App& app, Common& common) {
  auto o = std::make_shared<MeasureOptions>();
  CLI::App* command = add_command(
      app, common, "measure", "Measure what 4 bits do to every linear and, alone, to the model's answers",
      "nibble measure models/qwen2-vl-tiny --data pictures/calibration/samples.jsonl -o measurements.json",
      [o, &common] { measure(*o, common); });
  add_model(command, o->model);
  add_data(command, o->calibration.data, o->calibration.window);
  add_calibration(command, o->calibration);
  add_budget(command, o->calibration.budget)
      ->description("The budget near which groups are run alone: that of the plan to come")
      ->capture_default_str();
  command->add_option("-o,--out", o->out, "Where to write")->type_name("FILE")->capture_default_str();
  add_save_every(command, o->calibration);
  command->add_flag("--allow-nonfinite", o->calibration.allow_nonfinite,
                    "Go on when weights hold NaN or infinity");
  add_compute(command, common);
  add_json_flag(command, common);
}

void add_plan(CLI::App& app, Common& common) {
  auto o = std::make_shared<PlanOptions>();
  CLI::App* command = add_command(
      app, common, "plan", "Choose the linears that stay in 16 bits, within a budget",
      "nibble plan measurements.json --budget 10% -o plan.json", [o, &common] { make_plan(*o, common); });
  command->add_option("MEASUREMENTS", o->measurements, "measurements.json")->required();
  add_policy(command, o->budget, o->policy);
  command
      ->add_option(
          "--rounding", o->rounding,
          "Codes of NF4: plain, or what the measurements were made with (default: the better one for policy "
          "dynamic, plain for others)")
      ->check(one_of({"plain", "search", "feedback"}))
      ->type_name("R");
  add_weights(command, o->weights);
  auto* explain =
      command->add_flag("--explain", o->explain, "Name every group that is kept, what it costs and buys");
  command
      ->add_option("--as", o->as,
                   "transformers: print the BitsAndBytesConfig that applies the plan while loading")
      ->check(one_of({"transformers"}))
      ->excludes(explain)
      ->type_name("FORM");
  command->add_option("-o,--out", o->out, "Where to write (default: plan.json; with --as nowhere)")
      ->type_name("FILE");
  add_json_flag(command, common);
  for (const char* form : {"--as", "--explain"})
    command->get_option("--json")->excludes(command->get_option(form));
}

}  // namespace nibble::app
