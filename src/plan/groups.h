// The groups of a model's linears, with what the policies weigh: bytes and errors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "records/measurements.h"

namespace nibble::plan {

/// Linears that are kept or not as a whole.
struct Group {
  std::string name;
  std::vector<size_t> members;      // indices into the inventory's linears, ascending
  int64_t bytes16 = 0, bytes4 = 0;  // of all members

  int64_t extra_bytes() const { return bytes16 - bytes4; }
};

/// The groups in order of their first member.
std::vector<Group> group_linears(const records::Inventory& inventory);

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
