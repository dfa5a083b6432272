// The errors of a linear as the policies weigh them.
#pragma once

#include <string>

#include "records/measurements.h"

namespace nibble::plan {

/// An error of a linear, and where it was seen.
struct SeenError {
  double error = 0;   // relative, at most kLargestError
  std::string where;  // "vision", "text", "weight" for the weight's own error, "" for nowhere
};

/// Relative errors above this, and those that are no number, count as this: an output that is all noise
/// cannot get worse, and scores stay finite.
inline constexpr double kLargestError = 1e6;

/// |W - Q(W)| / |W|.
SeenError weight_error(const records::LinearErrors& errors);

/// The activation error of the modality where it is largest (vision when equal); 0 for a linear without rows.
SeenError activation_error(const records::LinearErrors& errors);

/// The activation error, or for a linear that calibration never reached the weight error: what rows without
/// direction would see.
SeenError expected_error(const records::LinearErrors& errors);

}  // namespace nibble::plan
