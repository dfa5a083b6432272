// Which files of a folder are nibble's own: no others are ever removed with it.
#pragma once

#include <filesystem>

#include "io/checkpoint.h"

namespace nibble::write {

/// Throws Error unless the folder is a checkpoint that nibble wrote (its nibble.json says so, and what files
/// it wrote) and holds nothing but these files and README.md, which `nibble card` writes. The message names
/// the first file that is not nibble's.
void check_own_output(const std::filesystem::path& folder);

/// The same of the folder in which a checkpoint of `source` was being written when the run was killed, or in
/// which the output lies that it had just replaced.
void check_own_leftovers(const std::filesystem::path& folder, const io::Checkpoint& source);

}  // namespace nibble::write
