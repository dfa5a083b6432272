// Texts compared with committed files.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace nibble::testing {

/// Expects the text to be the bytes of tests/<name>. With NIBBLE_UPDATE_SNAPSHOTS=1 in the environment the
/// file is written anew instead: read the diff before committing it.
inline void expect_snapshot(const std::string& name, const std::string& text) {
  const std::filesystem::path path = std::filesystem::path(NIBBLE_ROOT) / "tests" / name;
  if (std::getenv("NIBBLE_UPDATE_SNAPSHOTS") != nullptr) {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  std::ostringstream expected;
  expected << file.rdbuf();
  EXPECT_EQ(text, expected.str()) << path;
}

}  // namespace nibble::testing
