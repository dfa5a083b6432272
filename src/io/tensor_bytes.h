// A tensor of a file, read piece by piece: memory holds the caller's buffers and nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "io/file.h"
#include "io/safetensors.h"

namespace nibble::io {

/// Cheap to copy; all copies read from one open file. Thread-safe.
class TensorBytes {
 public:
  /// Opens the file again. Throws Error when it is no longer what the stamp says.
  TensorBytes(const std::filesystem::path& path, const FileStamp& stamp, const TensorInfo& info);

  int64_t size() const { return end_ - begin_; }
  /// The tensor's bytes from `offset` on. Throws Error naming the file when it ends before or cannot be read.
  void read(int64_t offset, std::span<std::byte> to) const;
  /// The SHA-256 of all of them as lower-case hex. Throws Error like read().
  std::string sha256() const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<const Descriptor> file_;
  int64_t begin_, end_;
};

}  // namespace nibble::io
