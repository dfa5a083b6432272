// The groups of a model's linears: what is decided as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "records/inventory.h"

namespace nibble::records {

/// Linears that are kept or not as a whole.
struct Group {
  std::string name;
  std::vector<size_t> members;      // indices into the inventory's linears, ascending
  int64_t bytes16 = 0, bytes4 = 0;  // of all members; bytes4 with plain rounding

  int64_t extra_bytes() const { return bytes16 - bytes4; }
};

/// The groups in order of their first member. With `fuse` they are what serving engines fuse; without it
/// every linear is a group of its own name.
std::vector<Group> group_linears(const Inventory& inventory, bool fuse = true);

}  // namespace nibble::records
