// Damage to files, for tests of what notices it.
#pragma once

#include <filesystem>
#include <fstream>

namespace nibble::test {

/// Inverts the lowest bit of the byte at `at`; the file's size and its last change stay as they are.
inline void flip_bit(const std::filesystem::path& path, std::streamoff at) {
  const auto changed = std::filesystem::last_write_time(path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.exceptions(std::ios::failbit | std::ios::badbit);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 1));
  file.close();
  std::filesystem::last_write_time(path, changed);
}

}  // namespace nibble::test
