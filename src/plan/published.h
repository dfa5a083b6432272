// The selections of published dynamic 4-bit checkpoints, as files of names (lists/ beside the program).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "records/inventory.h"

namespace nibble::plan {

/// A published selection, applied to a model.
struct PublishedList {
  std::string model;       // that it was published for
  std::vector<bool> kept;  // for each linear of the inventory
};

/// The lists in `folder` that were published for a model of this family, number of text blocks and hidden
/// size, in order of their file names. A list begins with comments "# model:", "# family:", "# layers:",
/// "# hidden:". Throws Error naming file and line for a list without them, or with a name that matches
/// nothing.
std::vector<PublishedList> published_lists(const std::filesystem::path& folder,
                                           const records::Inventory& inventory, int64_t layers,
                                           int64_t hidden);

}  // namespace nibble::plan
