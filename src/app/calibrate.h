// A 16-bit model with its inputs, measured, rounded and judged: what quantize, measure and plan string
// together.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "app/stages.h"
#include "measure/lockstep.h"
#include "measure/measure.h"
#include "plan/plan.h"

namespace nibble::app {

/// Bytes that hidden states may take where nothing is said.
inline constexpr int64_t kHiddenStates = int64_t{4} << 30;

/// How a model is measured. The defaults of rounding are those that did best on the trained
/// models of tests/zoo/quality.
struct CalibrationOptions {
  std::vector<std::string> data, verify;  // files; verify empty: a part of data is held out
  int64_t window = 2048;
  std::string rounding = "feedback";
  std::string damping = "0.03,0.1";  // VISION,TEXT
  double mix = 0.1;                  // text speaks for more
  bool guard = true;                 // nibble's own texts count in the statistics as well
  std::string effort = "auto";       // of solo runs: "none", "auto", "full"
  std::string budget = "10%";        // where solo runs matter most; any that make_plan takes
  bool fuse = true, allow_nonfinite = false;
  bool hold_out = false;  // keep a part of data for verification
  int64_t resample = 0;   // seed of a bootstrap of data by its pictures and texts; 0: data itself
  /// Bytes that hidden states, and the matrices of rounding beside them, may take; 0: kHiddenStates, and half
  /// of the machine's memory.
  int64_t memory = 0;
  /// Where the model takes pictures and the data hold none: nibble's own beside them, by `guard` as well.
  bool add_pictures = true;
  std::optional<int64_t> widest = {};  // records::Rounding::widest; else by `memory`
  std::filesystem::path scratch = {};  // folder for rounded weights; empty: the system's
  /// What is written in the end: beside it stands how far the run is, in place of `scratch`; empty: nowhere.
  std::filesystem::path target = {};
  double save_every = 20;  // the least seconds between two saves of that
};

/// Inputs that are run as a whole, with the lockstep over them.
struct InputSet {
  std::vector<data::Item> items;
  std::vector<records::MeasuredInput> inputs;
  std::unique_ptr<measure::Walk> walk;
  std::unique_ptr<measure::Lockstep> lockstep;
};

class Calibration {
 public:
  /// Opens the model and its inputs; answers that samples leave open are the model's own. Throws Error for a
  /// quantized model.
  Calibration(const std::string& model, CalibrationOptions options, const Common& common);

  /// Errors of all linears, and solo runs by the effort. Rounded linears go to the store.
  records::Measurements measure();
  /// Makes the codes that a plan rounds with statistics: in order, or where measure() has not.
  void round(const records::Plan& plan);
  /// One of them.
  quant::Packed4 rounded(const records::Plan& plan, const std::string& linear) const;
  /// Saves what is known, before long work that comes after; or forgets it, when the target is there.
  void save();
  void finish();

  /// The inputs that plans are made from, and those that they are judged by; the second may be empty.
  InputSet& calibration() { return calibration_; }
  InputSet& held_out() { return held_out_; }
  /// What statistics are taken of.
  measure::Walk& statistics() { return guarded_.walk ? *guarded_.walk : *calibration_.walk; }
  const CalibrationOptions& options() const { return options_; }
  const std::vector<records::Group>& groups() const { return groups_; }

 private:
  int64_t matrix_limit() const;
  bool with_pictures() const;
  int64_t fitting_width() const;
  void tell_of_matrices() const;
  void add_pictures(std::vector<data::Sample>& samples);
  void open_journal();
  void complete_answers(InputSet& set, const std::string& name);
  void prepare(InputSet& set, const std::string& name);
  measure::RoundedStore* codes() const { return journal_ ? &journal_->store() : store_.get(); }
  void add_guard();
  void make_lockstep(InputSet& set, const std::string& name);
  void solo_runs(records::Measurements& measurements);
  void run_sets(records::Measurements& measurements, std::vector<std::vector<std::string>> sets,
                const std::vector<std::string>& roundings);
  std::array<double, 2> noise();

  CalibrationOptions options_;
  records::Rounding rounding_;
  LoadedModel model_;
  InputSet calibration_, held_out_;
  InputSet guarded_;  // the calibration inputs with texts beside them; empty without
  records::Inventory inventory_;
  std::vector<records::Group> groups_;
  std::set<std::string> unroundable_;             // groups with weights that are not finite
  std::unique_ptr<measure::Journal> journal_;     // null: nothing is kept for another run
  std::unique_ptr<measure::RoundedStore> store_;  // where there is no journal, and codes
  double forward_seconds_ = 0;                    // of the 16-bit model over the calibration inputs
};

/// Mean KL by modality of the inputs, with intervals over inputs, from the KL of each input.
std::array<records::Interval, 2> kl_by_modality(std::span<const records::MeasuredInput> inputs,
                                                std::span<const double> kl);

/// Runs the plan beside a ranking by activation errors of the same bytes and rounding; where its real KL
/// differs from the predicted, groups are un-quantized and quantized one at a time around it and the plan is
/// made again within the budget, as long as that lowers the real KL. Returns the plan of the lowest typical
/// KL, over the held-out inputs that were given as such, else over all inputs; of both modalities as
/// plan::objective_for the preferences' weights takes them. All runs are in its verification. Budgets "kl:X"
/// and "match": the smallest plan whose real KL on the held-out inputs (for match: the upper end of its
/// interval) keeps the limit. Without held-out inputs the plan comes back as it is.
records::Plan verify_and_repair(Calibration& calibration, const records::Measurements& measurements,
                                records::Plan plan, const plan::Preferences& preferences);

/// Runs a verified plan with the codes that Calibration::round() made in order. Where their typical KL on the
/// held-out inputs is no lower (for budgets in KL: or their mean KL or its upper end is higher), it is no
/// longer rounded in order. The run is in the verification.
records::Plan verify_in_order(Calibration& calibration, const records::Measurements& measurements,
                              const records::Plan& plan, const plan::Preferences& preferences);

}  // namespace nibble::app
