// Rounded linears between the pass that made them and those that use them: too large to hold, too dear to make
// again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "io/file.h"
#include "quant/format.h"

namespace nibble::measure {

/// Keeps 4-bit linears in a scratch file that has no name, so that it is gone with the process. Not
/// thread-safe.
class RoundedStore {
 public:
  /// The scratch file lies in `folder`. Throws Error when it cannot be made.
  explicit RoundedStore(const std::filesystem::path& folder);

  /// Keeps a linear (NF4 with double quantization, blocks of 64) by its name. Throws Error when the disk is
  /// full.
  void put(const std::string& linear, const quant::Packed4& packed);
  bool has(const std::string& linear) const { return entries_.contains(linear); }
  /// What was put. Throws Error when it cannot be read back.
  quant::Packed4 get(const std::string& linear) const;
  int64_t bytes() const { return end_; }

 private:
  struct Entry {
    Shape shape;
    DType dtype;
    int64_t begin = 0, codes = 0, blocks = 0, scales = 0;
    float offset = 0;
  };

  std::filesystem::path folder_;
  io::Descriptor file_;
  int64_t end_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace nibble::measure
