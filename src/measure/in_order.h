// Rounding linear after linear for one plan, each for the inputs that the linears before it leave as they are
// written.
#pragma once

#include <map>
#include <string>

#include "measure/lockstep.h"
#include "records/rounding.h"

namespace nibble::measure {

/// Of coordinate descent over each weight: codes that are written are worth more of them than those that are
/// measured.
inline constexpr int kSweepsInOrder = 4;

/// The share of the drift that is taken back. Pictures are few inputs of many rows, which are alike: all of
/// the drift fits them better, and pictures that were not seen worse.
inline double share_of_drift(bool pictures) {
  return pictures ? 0.5 : 1;
}

/// Bytes of the matrices that measure() and round_in_order() hold at most beside weights, hidden states and
/// the rows of a batch: for each modality of the inputs two squares of the width of an input and one like the
/// weight, the sum of one of them over both, and then what kernels::round4 takes. Of inputs wider than
/// `widest` (0: of none), two like the weight.
int64_t rounding_bytes(const model::Spec& spec, bool both_modalities, int64_t widest = 0);

/// The widest inputs whose matrices keep within `limit` bytes, for records::Rounding: 0 where all do, 1 where
/// not even the narrowest do.
int64_t widest_within(const model::Spec& spec, bool both_modalities, int64_t limit);

/// Rounds those linears that are Stored::rounded in `how`, which names all linears, in the order of the
/// forward pass, with feedback, and puts them into the store by in_order_name(). Two branches go through the
/// model: that of the 16-bit model, and one with all linears before as `how` and the store have them. A
/// linear's codes are chosen for the inputs Y of the latter, so that Y Q' is near to the X W' of the former,
/// and the hidden states that these are added to with them (kernels::round4; share_of_drift() of the drift).
/// Modalities are mixed as mixed_gram() does it, with Y for X (of wide ones by what the diagonal tells of Y
/// W'). Linears that no input reached, or some that is not finite, are rounded plainly; wide ones
/// (records::Rounding::widest) by the diagonal of Y'Y alone, without what drifted; weights that are not
/// finite stay as they are. The same bits for any number of threads. Memory: two branches' hidden states, and
/// rounding_bytes(). With a journal, goes on after an interruption.
void round_in_order(Walk& walk, const records::Rounding& rounding, const std::map<std::string, Stored>& how,
                    RoundedStore& store, Journal* journal = nullptr);

}  // namespace nibble::measure
