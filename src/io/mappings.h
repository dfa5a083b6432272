// Which files are mapped where: for saying which one failed when the system cannot give a page of it.
#pragma once

#include <cstddef>
#include <filesystem>

namespace nibble::io {

/// A file's place in memory, known to mapped_file_at as long as the object lives. Thread-safe.
class MappedRange {
 public:
  MappedRange(const std::byte* begin, size_t size, const std::filesystem::path& path);
  ~MappedRange();
  MappedRange(const MappedRange&) = delete;
  MappedRange& operator=(const MappedRange&) = delete;

 private:
  size_t slot_;
};

/// The path of the file that is mapped at an address; null when there is none, or when more files than
/// kMappings are mapped. May be called in a signal handler.
const char* mapped_file_at(const void* address) noexcept;

inline constexpr size_t kMappings = 4096;

}  // namespace nibble::io
