#include "app/planning.h"

#include <algorithm>
#include <set>

#include "app/commands.h"
#include "base/error.h"
#include "measure/sizes.h"
#include "plan/name_list.h"
#include "plan/plan.h"
#include "write/checkpoint.h"

namespace nibble::app {
namespace {

/// What needs no prompts does without a tokenizer, but few readers of the written checkpoint will.
void tell_of_missing_tokenizer(const model::Binding& source) {
  const std::filesystem::path path = source.checkpoint().folder() / "tokenizer.json";
  if (std::error_code ignored; !std::filesystem::exists(path, ignored))
    tell(fmt::format("{}: is not there, nor will it be in what is made of this checkpoint", path.string()));
}

}  // namespace

bool needs_codes(const records::Plan& plan) {
  return std::any_of(plan.decisions.begin(), plan.decisions.end(),
                     [](const auto& d) { return !d.keep && d.rounding != "plain"; });
}

void tell_of_extremes(const records::Plan& plan) {
  if (plan.policy != "none" && plan.kept() == std::ssize(plan.decisions))
    tell("the plan keeps every linear in 16 bits: nothing is quantized");
  if (plan.kept() == 0 && plan.budget.empty() && plan.policy != "all" && plan.policy != "int8")
    tell(fmt::format("policy {} keeps no linear of this model in 16 bits", plan.policy));
}

void check_request(const PlanningOptions& options, std::span<const std::string> policies,
                   const model::Binding& source) {
  const records::Inventory inventory = source.inventory(options.model);
  const std::string &budget = options.budget, &rounding = options.calibration.rounding;
  for (const std::string& policy : policies) {
    plan::find_policy(policy);
    if (policy.starts_with("list:")) plan::match_list(plan::policy_argument(policy), inventory);
  }
  const bool dynamic = std::find(policies.begin(), policies.end(), "dynamic") != policies.end();
  if (!budget.empty()) plan::check_budget(budget, inventory);
  if (plan::is_kl_budget(budget)) {
    if (!dynamic)
      fail("budget \"{}\" is for policy dynamic, which is not among the policies; give a size", budget);
    if (options.calibration.effort == "none")
      fail("budget \"{}\" needs groups run alone; leave --effort none out, or give a size", budget);
  }
  if (policies.size() == 1 && !rounding.empty() && rounding != "plain" &&
      (policies[0] == "int8" || policies[0] == "none"))
    fail("--rounding {} is for 4 bits, and policy {} writes none", rounding, policies[0]);
}

void Planner::measure(std::span<const std::string> policies) {
  const bool dynamic = std::find(policies.begin(), policies.end(), "dynamic") != policies.end();
  CalibrationOptions options = options_.calibration;
  if (options.rounding.empty()) options.rounding = dynamic ? "feedback" : "plain";
  if (!dynamic) options.effort = "none";
  if (!options_.budget.empty()) options.budget = options_.budget;
  options.hold_out = dynamic && !options_.no_verify && options.effort != "none";
  const bool measured = std::any_of(policies.begin(), policies.end(), [](const std::string& policy) {
    return plan::find_policy(policy).needs_measurements;
  });
  if (measured || options.rounding != "plain") {
    calibration_ = std::make_unique<Calibration>(options_.model, options, common_);
    measurements_ = calibration_->measure();
    digest_ = record_digest(records::to_json(measurements_));
    return;
  }
  measurements_.inventory = source_.inventory(options_.model);
  measurements_.inventory.weights = source_.fingerprint();
  measurements_.fuse = options.fuse;
  // Where no size decides anything, that of what is rounded is known when it is written.
  likely_ = options_.budget.empty() &&
            std::none_of(policies.begin(), policies.end(),
                         [](const std::string& policy) { return plan::find_policy(policy).needs_budget; });
  if (!likely_) measure::exact_sizes(source_, measurements_.inventory, options.allow_nonfinite);
}

void Planner::take_measurements(const std::string& file) {
  measurements_ = read_measurements(file, digest_);
  check_measurements(measurements_, source_.inventory(options_.model));
  records::Inventory& inventory = measurements_.inventory;
  const std::string ours = source_.fingerprint();
  tell_of_other_weights("measurements", inventory.model, inventory.weights, ours);
  inventory.model = options_.model;
  inventory.weights = ours;
  if (!options_.calibration.data.empty()) measurements_.data = options_.calibration.data;
}

void Planner::adopt(records::Plan& plan) const {
  (void)write::config_of_plan(source_, plan);  // an Error where it is of another model
  const std::string ours = source_.fingerprint();
  tell_of_other_weights("plan", plan.model, plan.weights, ours);
  plan.model = options_.model;
  plan.weights = ours;
  if (options_.calibration.data.empty() || !needs_codes(plan)) return;
  plan.data = options_.calibration.data;
  plan.held_out = false;
}

records::Plan Planner::plan(const std::string& policy, const std::string& rounding,
                            const std::string& budget) {
  const plan::Preferences preferences{.rounding = rounding, .weights = parse_weights(options_.weights)};
  records::Plan out = plan_for(measurements_, digest_, policy, budget, preferences);
  if (likely_) {
    std::set<std::string> others;
    for (const records::Decision& d : out.decisions)
      if (d.keep || out.format != "nf4") others.insert(d.name);
    measure::exact_sizes(source_, measurements_.inventory, others, options_.calibration.allow_nonfinite);
    out = plan_for(measurements_, digest_, policy, budget, preferences);
  }
  if (!calibration_) {
    if (policy == "dynamic" && plan::has_costs(measurements_))
      tell(
          "the plan is predicted from the measurements and was not run: without --measurements it is "
          "verified");
    return out;
  }
  if (policy == "dynamic" && !options_.no_verify)
    out = verify_and_repair(*calibration_, measurements_, std::move(out), preferences);
  out.held_out = !out.measurements_digest.empty() && !calibration_->held_out().items.empty() &&
                 options_.calibration.verify.empty();
  return out;
}

/// Codes in order are judged like plans: those that were measured stay where they did better.
void Planner::prepare_codes(records::Plan& plan) {
  if (!needs_codes(plan)) return;
  if (!calibration_) {
    CalibrationOptions options = options_.calibration;
    options.data = plan.data;
    options.window = plan.window;
    options.rounding = plan.rounding.kind;
    options.damping = fmt::format("{},{}", plan.rounding.damping[0], plan.rounding.damping[1]);
    options.guard = plan.rounding.guard > 0;
    options.add_pictures = !options_.calibration.data.empty();  // what the plan names is complete
    options.mix = plan.rounding.mix;
    options.widest = plan.rounding.widest;
    options.fuse = plan.fuse;
    options.hold_out = plan.held_out;
    Common same = common_;
    same.compute = plan.compute;
    for (const std::string& file : options.data)
      if (std::error_code ignored; !std::filesystem::exists(file, ignored))
        fail("{}: is not there; the plan's codes are made from it: say where it is with --data", file);
    calibration_ = std::make_unique<Calibration>(options_.model, options, same);
    plan.data = calibration_->options().data;
  }
  calibration_->round(plan);
  if (plan.rounding.in_order && plan.verification && calibration_->held_out().lockstep)
    plan = verify_in_order(*calibration_, measurements_, plan, {.weights = parse_weights(options_.weights)});
}

void Planner::finish() {
  if (calibration_) calibration_->finish();
}

void Planner::write(records::Plan& plan, io::OutputFolder& folder, int64_t max_shard_bytes) {
  prepare_codes(plan);
  if (calibration_) calibration_->save();
  tell_of_missing_tokenizer(source_);
  const write::Options options{
      .max_shard_bytes = max_shard_bytes,
      .allow_nonfinite = options_.calibration.allow_nonfinite,
      .likely_sizes = likely_,
      .rounded = [&](const std::string& linear) { return calibration_->rounded(plan, linear); },
      .command = command_text(),
      .version = NIBBLE_VERSION,
      .build = build_digest(),
      .tell = tell};
  plan.set_written(write::write_checkpoint(source_, plan, folder, options), likely_);
}

void Planner::write(records::Plan& plan, const std::filesystem::path& out) {
  io::OutputFolder folder = write::open_output(source_, out, false);
  write(plan, folder, write::Options().max_shard_bytes);
}

}  // namespace nibble::app
