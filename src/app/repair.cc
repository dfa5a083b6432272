// Verification and repair: a plan is run for real, and made again from what that shows.
#include <algorithm>
#include <functional>
#include <numeric>

#include "app/calibrate.h"
#include "base/error.h"
#include "plan/choose.h"
#include "plan/plan.h"

namespace nibble::app {
namespace {

using measure::Assignment;
using measure::Stored;
using plan::GroupCosts;
using Kl = std::array<double, 2>;

/// Rounds of repair; the last one that helped counts.
constexpr int kRepairs = 4;
/// Aims at a KL before the best so far is taken.
constexpr int kAims = 12;

Kl means(const std::array<records::Interval, 2>& kl) {
  return {kl[0].mean, kl[1].mean};
}

Kl typical(std::span<const records::MeasuredInput> inputs, std::span<const double> kl) {
  return {records::typical_kl(inputs, kl, records::Modality::vision),
          records::typical_kl(inputs, kl, records::Modality::text)};
}

class Verifier {
 public:
  Verifier(Calibration& calibration, const records::Measurements& measurements, const records::Plan& plan,
           const plan::Preferences& preferences)
      : calibration_(calibration),
        measurements_(measurements),
        plan_(plan),
        rounding_(preferences.rounding.empty() ? measurements.rounding.kind : preferences.rounding),
        costs_(plan::costs_for(measurements, preferences)),
        objective_(plan::objective_for(costs_, preferences.weights)) {
    verification_.data =
        calibration.options().verify.empty() ? measurements.data : calibration.options().verify;
    for (const auto& input : calibration.held_out().inputs)
      ++verification_.inputs[static_cast<size_t>(input.modality)];
  }

  /// For budgets in bytes: the best of the plan, its repairs and the ranking by activation error. The ranking
  /// stays where it cures the model by itself, plain codes and all, and the held-out inputs do not show that
  /// another plan beats it: such a plan does not lean on the calibration data where inputs are of another
  /// kind.
  records::Plan within_bytes() {
    const records::Plan ranking = rank_by_activation_error();
    judge("activation error", plan::choice_of_plan(costs_, ranking));
    judge("dynamic", plan::choice_of_plan(costs_, plan_));
    for (int round = 1; round <= kRepairs; ++round)
      if (!judge(fmt::format("repaired {}", round), repaired())) break;
    if (verification_.chosen != 0 && !beats(verification_.chosen, 0) && cures(seen_[0])) {
      verification_.chosen = 0;
      best_ = seen_[0];
    }
    records::Plan out = result();
    if (out.verification->chosen == 0)
      for (size_t i = 0; i < out.decisions.size(); ++i) out.decisions[i].reason = ranking.decisions[i].reason;
    return out;
  }

  /// For budgets in KL: the smallest plan that keeps the limit, found by aiming at more or less predicted KL.
  records::Plan within_kl(const Kl& limit, bool upper_end) {
    double aim = 1;  // share of the limit that is aimed at
    double failed = std::numeric_limits<double>::infinity();
    bool kept = false;  // the limit, by the last run
    for (int round = 0; round < kAims && aim > 1e-9; ++round) {
      const auto chosen = plan::choose_for_kl(costs_, {limit[0] * aim, limit[1] * aim});
      if (chosen == last_) {
        if (kept) break;
        aim *= 0.3;
        continue;
      }
      records::Plan next = like(chosen);
      const auto kl = run(round == 0 ? "dynamic" : fmt::format("aimed {}", round), next, chosen);
      const Kl real = upper_end ? Kl{kl[0].high, kl[1].high} : means(kl);
      const double ratio = plan::worst_ratio(real, limit);
      if (ratio <= 1 && (best_.empty() || next.bytes < best_bytes_)) {
        best_ = chosen;
        best_bytes_ = next.bytes;
        verification_.chosen = std::ssize(verification_.runs) - 1;
      }
      if (ratio > 1) failed = std::min(failed, aim);
      const double wanted = aim / std::max(ratio, 1e-3) * 0.98;
      aim = std::min(wanted,
                     std::isfinite(failed) ? (ratio <= 1 ? std::sqrt(aim * failed) : failed * 0.95) : wanted);
      kept = ratio <= 1;
      last_ = chosen;
    }
    if (best_.empty()) keep_everything();
    return result();
  }

  /// The plan as it was verified, or with codes that were rounded in order where these do better.
  records::Plan in_order() {
    verification_ = *plan_.verification;
    const records::VerifiedRun before = verification_.runs[static_cast<size_t>(verification_.chosen)];
    const auto chosen = plan::choice_of_plan(costs_, plan_);
    in_order_ = true;
    const auto kl = run(before.label + ", in order", plan_, chosen);
    in_order_ = false;
    // On inputs that no codes were made on: those in order fit theirs the most.
    InputSet& set = calibration_.held_out();
    const Assignment a = assignment(chosen);
    const Kl alone = typical(set.inputs, set.lockstep->run(a, {&a, 1})[0]);
    bool better = objective_(typical(set.inputs, kl_of_inputs_.back())) < objective_(alone);
    if (plan::kl_budget(plan_.budget, measurements_))  // the limit is still kept
      for (size_t m = 0; m < 2; ++m)
        better = better && kl[m].mean <= before.kl[m].mean && kl[m].high <= before.kl[m].high;
    records::Plan out = plan_;
    out.rounding.in_order = better;
    if (better) verification_.chosen = std::ssize(verification_.runs) - 1;
    out.verification = std::move(verification_);
    return out;
  }

 private:
  records::Plan rank_by_activation_error() const {
    return plan::make_plan(measurements_, "activation-error", fmt::format("{}B", plan_.budget_bytes),
                           {.rounding = rounding_});
  }

  Assignment assignment(const std::vector<int>& chosen) const {
    Assignment out;
    for (size_t g = 0; g < costs_.size(); ++g) {
      out.push_back(stored(costs_[g].options[static_cast<size_t>(chosen[g])]));
      if (in_order_ && out.back() == Stored::rounded) out.back() = Stored::in_order;
    }
    return out;
  }
  static Stored stored(const plan::StoredAs& option) {
    if (option.rounding.empty()) return Stored::as_source;
    return option.rounding == "plain" ? Stored::plain : Stored::rounded;
  }

  /// A choice as a plan.
  records::Plan like(const std::vector<int>& chosen) const {
    return plan::plan_of_choice(measurements_, costs_, chosen, plan_);
  }

  /// Runs a plan on the held-out inputs and records it.
  std::array<records::Interval, 2> run(const std::string& label, const records::Plan& plan,
                                       const std::vector<int>& chosen) {
    InputSet& set = calibration_.held_out();
    const Assignment a = assignment(chosen);
    const auto kl = set.lockstep->run(a, {&a, 1});
    records::VerifiedRun& run = verification_.runs.emplace_back();
    run.label = label;
    run.bytes = plan.bytes;
    run.kept = plan.kept();
    run.predicted = plan::predicted_kl(costs_, chosen);
    run.kl = kl_by_modality(set.inputs, kl[0]);
    kl_of_inputs_.push_back(kl[0]);
    return run.kl;
  }

  /// Runs a choice; false when it was run before or is no better than the best so far.
  bool judge(const std::string& label, const std::vector<int>& chosen) {
    if (std::find(seen_.begin(), seen_.end(), chosen) != seen_.end()) return false;
    seen_.push_back(chosen);
    run(label, like(chosen), chosen);
    const double score = objective_(over_all_inputs(chosen));
    if (!best_.empty() && score >= best_score_) return false;
    best_ = chosen;
    best_score_ = score;
    verification_.chosen = std::ssize(verification_.runs) - 1;
    return true;
  }

  /// The typical KL by which a choice, which was run last, is judged: on held-out inputs that the user gave
  /// as such; else on all inputs, since a part of them is too few where one in twenty holds most of the harm.
  Kl over_all_inputs(const std::vector<int>& chosen) {
    records::VerifiedRun& run = verification_.runs.back();
    std::vector<records::MeasuredInput> inputs = calibration_.held_out().inputs;
    std::vector<double> kl = kl_of_inputs_.back();
    if (calibration_.options().verify.empty()) {
      InputSet& set = calibration_.calibration();
      const Assignment a = assignment(chosen);
      const std::vector<double> there = set.lockstep->run(a, {&a, 1})[0];
      run.decided = means(kl_by_modality(set.inputs, there));
      inputs.insert(inputs.end(), set.inputs.begin(), set.inputs.end());
      kl.insert(kl.end(), there.begin(), there.end());
    }
    run.typical = typical(inputs, kl);
    return *run.typical;
  }

  /// True where run a has less KL than run b on the held-out inputs of some modality that counts, by the 95 %
  /// interval of the difference from input to input.
  bool beats(int64_t a, int64_t b) {
    const auto &less = kl_of_inputs_[static_cast<size_t>(a)], &more = kl_of_inputs_[static_cast<size_t>(b)];
    std::vector<double> difference(less.size());
    std::transform(more.begin(), more.end(), less.begin(), difference.begin(), std::minus());
    const auto intervals = kl_by_modality(calibration_.held_out().inputs, difference);
    for (size_t m = 0; m < 2; ++m)
      if (objective_.counts(m) && intervals[m].low > 0) return true;
    return false;
  }

  /// True where a choice takes nearly all of the harm of all-4-bit away with plain codes too; both are run.
  bool cures(const std::vector<int>& chosen) {
    constexpr double kLeft = 0.01;
    std::vector<int> plain(chosen.size(), 0);  // the first option of each group
    Kl all4 = means(run("all 4 bit, plain codes", like(plain), plain));
    for (size_t m = 0; m < 2; ++m)
      if (!objective_.counts(m)) all4[m] = 0;
    const Assignment kept = assignment(chosen);
    for (size_t g = 0; g < chosen.size(); ++g)
      if (kept[g] == Stored::as_source) plain[g] = chosen[g];
    return plan::worst_ratio(means(run("activation error, plain codes", like(plain), plain)), all4) <= kLeft;
  }

  /// The groups that are changed one at a time around the best plan: all of them at full effort, else those
  /// whose place in the plan is least certain.
  std::vector<size_t> questioned() const {
    std::vector<size_t> all(costs_.size());
    std::iota(all.begin(), all.end(), size_t{0});
    if (measurements_.effort == "full") return all;
    const auto names = plan::contested_groups(measurements_, plan_.budget_bytes, costs_.size() / 3);
    std::erase_if(all, [&](size_t g) {
      return std::find(names.begin(), names.end(), costs_[g].group.name) == names.end();
    });
    return all;
  }

  /// A new choice from costs around the best plan: what un-quantizing a group saves, what quantizing it adds.
  std::vector<int> repaired() {
    InputSet& set = calibration_.calibration();
    const Assignment base = assignment(best_);
    std::vector<Assignment> hypotheses = {base};
    const std::vector<size_t> groups = questioned();
    for (const size_t g : groups) {
      hypotheses.push_back(base);
      hypotheses.back()[g] =
          base[g] == Stored::as_source ? stored(plan::better4(costs_[g])) : Stored::as_source;
    }
    const auto kl = set.lockstep->run(base, hypotheses);
    const Kl now = typical(set.inputs, kl[0]);
    const Kl predicted = plan::predicted_kl(costs_, best_);
    std::vector<GroupCosts> costs = costs_;
    for (GroupCosts& group : costs)
      for (plan::StoredAs& option : group.options)
        for (size_t m = 0; m < 2; ++m)
          if (predicted[m] > 0) option.kl[m] *= now[m] / predicted[m];
    for (size_t i = 0; i < groups.size(); ++i) {
      const Kl other = typical(set.inputs, kl[i + 1]);
      const bool kept = base[groups[i]] == Stored::as_source;
      const plan::StoredAs& before = plan::better4(costs_[groups[i]]);
      for (size_t o = 0; o < costs_[groups[i]].options.size(); ++o) {
        plan::StoredAs& option = costs[groups[i]].options[o];
        if (option.rounding.empty()) continue;
        // Codes that were not run keep their ratio to those that were.
        for (size_t m = 0; m < 2; ++m)
          option.kl[m] = std::max(0.0, kept ? other[m] - now[m] : now[m] - other[m]) *
                         (before.kl[m] > 0 ? costs_[groups[i]].options[o].kl[m] / before.kl[m] : 1);
      }
    }
    return plan::choose(costs, plan_.budget_bytes - measurements_.inventory.other_bytes, objective_);
  }

  void keep_everything() {
    for (const GroupCosts& group : costs_) best_.push_back(static_cast<int>(group.options.size()) - 1);
    run("16 bit", like(best_), best_);
    verification_.chosen = std::ssize(verification_.runs) - 1;
  }

  records::Plan result() {
    records::Plan out = like(best_);
    out.measurements_digest = plan_.measurements_digest;
    out.curve = plan_.curve;
    if (!plan_.budget.empty() && plan::kl_budget(plan_.budget, measurements_)) out.budget_bytes = out.bytes;
    out.verification = std::move(verification_);
    return out;
  }

  Calibration& calibration_;
  const records::Measurements& measurements_;
  const records::Plan& plan_;
  std::string rounding_;  // of the ranking
  std::vector<GroupCosts> costs_;
  plan::Objective objective_;
  records::Verification verification_;
  std::vector<std::vector<int>> seen_;
  std::vector<std::vector<double>> kl_of_inputs_;  // by run
  std::vector<int> best_, last_;
  double best_score_ = 0;
  int64_t best_bytes_ = 0;
  bool in_order_ = false;  // rounded groups run with the codes of the plan that was rounded in order
};

}  // namespace

records::Plan verify_and_repair(Calibration& calibration, const records::Measurements& measurements,
                                records::Plan plan, const plan::Preferences& preferences) {
  if (calibration.held_out().items.empty() || !plan::has_costs(measurements)) return plan;
  Verifier verifier(calibration, measurements, plan, preferences);
  if (const auto limit = plan::kl_budget(plan.budget, measurements))
    return verifier.within_kl(*limit, plan.budget == "match");
  return verifier.within_bytes();
}

records::Plan verify_in_order(Calibration& calibration, const records::Measurements& measurements,
                              const records::Plan& plan, const plan::Preferences& preferences) {
  return Verifier(calibration, measurements, plan, preferences).in_order();
}

}  // namespace nibble::app
