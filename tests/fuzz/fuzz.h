// What the fuzzers share. A fuzzer gives its input to a reader of files that others made; nibble::Error is
// the answer that a bad input gets. Any other exception, a sanitizer's finding, a hang or too much memory is
// a bug, which libFuzzer reports with the input that shows it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/error.h"

namespace nibble::fuzz {

/// True when the work was done, false when it threw Error, whose text must be one short line.
template <typename Work>
bool accepts(const Work& work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    const std::string_view text = error.what();
    NIBBLE_CHECK(!text.empty() && text.find('\n') == std::string_view::npos && text.size() < 8192,
                 "an error of {} bytes", text.size());
    return false;
  }
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Takes what stands before the first NUL byte off the front of `rest` (all of it where there is none), so
/// that one input can hold several texts.
inline std::string_view take_text(std::string_view& rest) {
  const size_t nul = rest.find('\0');
  const std::string_view text = rest.substr(0, nul);
  rest = nul == std::string_view::npos ? std::string_view() : rest.substr(nul + 1);
  return text;
}

/// Takes a byte off the front; 0 where there is none.
inline uint8_t take_byte(std::string_view& rest) {
  if (rest.empty()) return 0;
  const auto byte = static_cast<uint8_t>(rest[0]);
  rest.remove_prefix(1);
  return byte;
}

/// A regular file that lives in memory and has a path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("nibble-fuzz", MFD_CLOEXEC)) {
    if (fd_ < 0) throw std::runtime_error("memfd_create");
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_); }

  /// Makes these its bytes.
  void set(std::string_view bytes) {
    if (::ftruncate(fd_, 0) != 0 ||
        ::pwrite(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("cannot write to memory");
  }

 private:
  int fd_;
};

}  // namespace nibble::fuzz
