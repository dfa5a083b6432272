// A safetensors file whose tensors come in pieces and in any order, so that none need lie in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/safetensors_header.h"

namespace nibble::io {

/// Byte for byte the file of write_safetensors with the same tensors. The length of some tensors may be known
/// only when they have been made: the file is laid out for the lengths that they are planned with, and room
/// is kept for a header of just that length. Goes through `path` + ".nibble-partial" like AtomicFile.
class ShardFile {
 public:
  /// Throws Error like AtomicFile, and for a header that is too long.
  ShardFile(const std::filesystem::path& path, std::vector<TensorPlan> tensors);

  /// The tensor's rank in the file.
  size_t rank(const std::string& name) const;
  /// Puts bytes of a tensor at an offset inside it. Thread-safe while no length is set. Throws Error.
  void write(const std::string& name, int64_t offset, std::span<const std::byte> bytes);
  /// Says how long a tensor of one dimension is. Tensors of higher rank move: none of them may have been
  /// written before.
  void set_length(const std::string& name, int64_t length);
  /// Writes the header and lets the file appear. False, with nothing written, when the header has become
  /// longer or shorter than the room kept for it: make the file again with the lengths that are known now.
  bool commit();
  /// See AtomicFile.
  void begin_sync() { file_.begin_sync(); }

 private:
  std::string name_;
  std::vector<TensorPlan> tensors_;  // in file order
  std::map<std::string, size_t> ranks_;
  std::vector<int64_t> begins_;  // of each tensor, from the start of the file
  int64_t header_bytes_;
  AtomicFile file_;
};

}  // namespace nibble::io
