// The program as users call it, for tests: what it says and how it exits.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "io/json.h"
#include "support/temp_folder.h"

namespace nibble {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

inline const std::string kModel = NIBBLE_ROOT "/models/qwen2-vl-tiny";
inline const std::string kPicture = NIBBLE_ROOT "/pictures/evaluation/images/0000.png";

struct Outcome {
  int code = -1;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  Outcome nibble(const std::string& arguments) {
    const fs::path out = folder_.path() / "stdout", err = folder_.path() / "stderr";
    const std::string command =
        fmt::format("'{}' {} >'{}' 2>'{}'", NIBBLE_BINARY, arguments, out.string(), err.string());
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, io::read_file(out), io::read_file(err)};
  }

  /// Exit 2 and one line that says all of `parts`.
  template <typename... Parts>
  void expect_error(const std::string& arguments, const Parts&... parts) {
    const Outcome o = nibble(arguments);
    EXPECT_EQ(o.code, 2) << arguments << "\n" << o.out << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    EXPECT_THAT(o.err, AllOf(testing::StartsWith("nibble: "), HasSubstr(parts)...)) << arguments;
    EXPECT_EQ(o.out, "") << arguments;
  }

  /// A copy of the model's folder whose files may be changed.
  fs::path copy_model(const std::string& name) {
    const fs::path to = folder_.path() / name;
    fs::copy(kModel, to, fs::copy_options::recursive);
    return to;
  }

  std::string temp(const std::string& name) const { return (folder_.path() / name).string(); }

  test::TempFolder folder_;
};

}  // namespace nibble
