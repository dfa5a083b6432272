// From a 16-bit model to the plans of policies and the codes that they need: what quantize and compare share.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "app/calibrate.h"
#include "write/checkpoint.h"

namespace nibble::app {

/// How plans are made from a model. calibration.rounding "" stands for each policy's own: feedback for
/// dynamic, plain for the others.
struct PlanningOptions {
  std::string model, budget, weights;
  CalibrationOptions calibration;
  bool no_verify = false;
};

/// Throws Error where these policies cannot be made of the model with these options, as far as that shows
/// before anything is measured.
void check_request(const PlanningOptions& options, std::span<const std::string> policies,
                   const model::Binding& source);

/// Says in a line where a plan keeps everything, or a policy that keeps something keeps nothing here.
void tell_of_extremes(const records::Plan& plan);

/// True for a plan whose codes need statistics.
bool needs_codes(const records::Plan& plan);

/// Plans of one model, all from the same measurements.
class Planner {
 public:
  /// All of these must outlive it.
  Planner(const PlanningOptions& options, const model::Binding& source, const Common& common)
      : options_(options), source_(source), common_(common) {}
  Planner(PlanningOptions&&, const model::Binding&, const Common&) = delete;

  /// Measures the model, as far as one of the policies needs it. Throws Error.
  void measure(std::span<const std::string> policies);
  /// Takes measurements that were made earlier instead. Throws Error unless they are of this model.
  void take_measurements(const std::string& file);

  /// Takes a plan that was made earlier for writing it: of this model from now on, its codes rounded on the
  /// inputs of the options where they name some.
  void adopt(records::Plan& plan) const;

  /// The plan of a policy from the measurements; dynamic is verified and repaired where inputs were held out.
  /// `rounding` ("" for the policy's own) and `budget` ("" for the default where one is needed) as users give
  /// them. Throws Error.
  records::Plan plan(const std::string& policy, const std::string& rounding, const std::string& budget);

  /// Writes any plan of this model to a folder (write::open_output) and fills its bytes; codes that are not
  /// at hand are rounded on the inputs that the plan names, or on those of the options. max_shard_bytes is
  /// that of write::Options. Throws Error.
  void write(records::Plan& plan, io::OutputFolder& folder, int64_t max_shard_bytes);
  /// The same to a new folder.
  void write(records::Plan& plan, const std::filesystem::path& out);

  /// What was kept for an interrupted run to go on from goes.
  void finish();

  const records::Measurements& measurements() const { return measurements_; }

 private:
  void prepare_codes(records::Plan& plan);

  const PlanningOptions& options_;
  const model::Binding& source_;
  const Common& common_;
  std::unique_ptr<Calibration> calibration_;  // null where nothing had to be run
  records::Measurements measurements_;
  std::string digest_;
  bool likely_ = false;  // bytes4 of what is rounded are likely sizes (see write::Options)
};

}  // namespace nibble::app
