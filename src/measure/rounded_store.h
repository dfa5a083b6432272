// Rounded linears between the pass that made them and those that use them: too large to hold, too dear to
// make again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "io/file.h"
#include "io/json.h"
#include "quant/format.h"

namespace nibble::measure {

/// Keeps 4-bit linears in a scratch file. Not thread-safe.
class RoundedStore {
 public:
  /// The scratch file lies in `folder` and has no name, so that it is gone with the process. Throws Error
  /// when it cannot be made.
  explicit RoundedStore(const std::filesystem::path& folder);
  /// The scratch file stays when the process ends. `index` is what index() of an earlier object on it said,
  /// and null for a new one. Throws Error when the file cannot be made or does not hold what was put.
  RoundedStore(const std::filesystem::path& file, const io::Json& index);

  /// Keeps a linear (NF4 with double quantization, blocks of 64) by its name. Throws Error when the disk is
  /// full.
  void put(const std::string& linear, const quant::Packed4& packed);
  bool has(const std::string& linear) const { return entries_.contains(linear); }
  /// What was put. Throws Error when it cannot be read back.
  quant::Packed4 get(const std::string& linear) const;
  int64_t bytes() const { return end_; }

  /// What is where in the file.
  io::Json index() const;
  /// Makes what was put durable.
  void sync() const;

 private:
  struct Entry {
    Shape shape;
    DType dtype;
    int64_t begin = 0, codes = 0, blocks = 0, scales = 0;
    float offset = 0;
    std::string sha256 = {};  // of what was put
  };

  std::filesystem::path path_;  // of the folder, where the file has no name
  io::Descriptor file_;
  int64_t end_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace nibble::measure
