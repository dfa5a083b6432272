// Lists of linears to keep, as people write them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "records/inventory.h"

namespace nibble::plan {

/// For each linear of the inventory the line (from 1) of the file that names it first, 0 for none. A line
/// holds the name of a linear or of a parent ("visual.blocks.3" for all below it), with or without ".weight";
/// # starts a comment; blank lines are skipped. Throws Error naming file and line for a name that matches
/// nothing.
std::vector<int64_t> match_list(const std::filesystem::path& path, const records::Inventory& inventory);

}  // namespace nibble::plan
