// What storing a group in 4 bits costs in KL: measured by its solo runs, or predicted from the errors of its
// linears and the solo runs of groups of the same kind. KLs of runs are taken as records::typical_kl, scaled
// so that they sum up to the means: what is to be expected on other inputs.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "records/groups.h"
#include "records/measurements.h"

namespace nibble::plan {

/// One way to store a group.
struct StoredAs {
  std::string rounding;        // of NF4: "plain", "search", "feedback"; "" for as in the source
  int64_t bytes = 0;           // of all members
  std::array<double, 2> kl{};  // by Modality of the inputs; 0 as in the source
  bool measured = true;        // false: predicted
};

struct GroupCosts {
  records::Group group;
  std::vector<StoredAs>
      options;  // NF4 plain, NF4 with the measurements' rounding if it is another, as source
};

/// True where solo runs tell what groups cost.
bool has_costs(const records::Measurements& measurements);

/// The costs of all groups. A group that was not run alone is predicted: KL = gain * error, where error is
/// the sum of its members' squared relative activation errors (the mean over modalities of the rows) and gain
/// is interpolated in depth, on a logarithmic scale, between the groups of its kind (part and role) that were
/// run; from all of its part, then from all, where none of its kind was. What a joint run leaves when the
/// groups in it that were run alone are taken off is what its others cost together: their gains are scaled to
/// that. Another rounding of a group that was run has the group's own gain. KLs add where layers act alone,
/// so the cost of a plan is predicted as the sum.
std::vector<GroupCosts> predict_costs(const records::Measurements& measurements);

/// How good predictions are: each run group predicted from the others.
struct PredictionQuality {
  int64_t run = 0, groups = 0;
  double rank_correlation = 0;  // Spearman's; 0 with fewer than three runs
  double largest_miss = 1;      // largest ratio between predicted and measured, either way; KLs below
                                // 1e-4 of the largest count as that
};
PredictionQuality prediction_quality(const records::Measurements& measurements);

/// What to run first, in at most `most` runs: the groups of each kind together; of each part, or all, where
/// there are too many kinds. None is in two sets.
std::vector<std::vector<std::string>> first_runs(const records::Measurements& measurements, size_t most);

/// The groups to run alone next, at most `most`: of those that were not, the ones by which the plan of
/// `budget` bytes of tensor data is expected to lose most for want of a run. A predicted KL is held to be the
/// median of a log-normal distribution, cut off at what a joint run leaves; a group that the plan keeps loses
/// what its bytes would save elsewhere beyond its own KL, one in 4 bits the reverse. A byte elsewhere saves
/// what it buys in the first group that no longer fits into the budget, the densest first.
std::vector<std::string> uncertain_groups(const records::Measurements& measurements, int64_t budget,
                                          size_t most);

/// The groups in 4 bits whose KL the plan of `budget` bytes of tensor data has most of, and whose codes of
/// plain rounding were not run: at most `most`.
std::vector<std::string> costly_groups(const records::Measurements& measurements, int64_t budget,
                                       size_t most);

/// The groups whose place in a plan is least certain by what they cost: whose KL per byte is nearest to that
/// of the first that no longer fits into `budget` bytes. At most `most`.
std::vector<std::string> contested_groups(const records::Measurements& measurements, int64_t budget,
                                          size_t most);

/// The option that plans take of a group's NF4 ones: the least KL over both modalities.
const StoredAs& better4(const GroupCosts& costs);

}  // namespace nibble::plan
