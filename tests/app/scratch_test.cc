// The scratch folder, and that it is gone however the program ends.
#include "app/scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "base/error.h"
#include "io/json.h"
#include "support/temp_folder.h"

namespace nibble::app {
namespace {

namespace fs = std::filesystem;

TEST(Scratch, IsGoneWhenItGoes) {
  test::TempFolder parent;
  {
    const ScratchFolder scratch(parent.path());
    EXPECT_EQ(scratch.path().parent_path(), parent.path());
    EXPECT_EQ(fs::status(scratch.path()).permissions(), fs::perms::owner_all);
    fs::create_directories(scratch.path() / "a" / "b");
    io::write_file(scratch.path() / "a" / "file", "x");
  }
  EXPECT_TRUE(fs::is_empty(parent.path()));
  EXPECT_THROW(ScratchFolder(parent / "none"), Error);
}

TEST(Scratch, HandlesSignalsOnlyWhileItLives) {
  test::TempFolder parent;
  const auto handler = [](int signal) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    return action.sa_handler;
  };
  const auto before = std::signal(SIGHUP, SIG_IGN), before_int = std::signal(SIGINT, SIG_DFL);
  {
    const ScratchFolder scratch(parent.path());
    EXPECT_EQ(handler(SIGHUP), SIG_IGN) << "nohup";
    EXPECT_NE(handler(SIGINT), SIG_DFL);
  }
  EXPECT_EQ(handler(SIGINT), SIG_DFL);
  std::signal(SIGHUP, before);
  std::signal(SIGINT, before_int);
}

class ScratchSignals : public testing::TestWithParam<int> {};

TEST_P(ScratchSignals, RemoveItAndEndTheProcess) {
  GTEST_FLAG_SET(death_test_style, "fast");
  test::TempFolder parent;
  EXPECT_EXIT(
      {
        std::signal(GetParam(), SIG_DFL);  // a shell may have it ignored
        const ScratchFolder scratch(parent.path());
        io::write_file(scratch.path() / "file", "x");
        kill(getpid(), GetParam());
        // Someone is in the middle of writing.
        for (int i = 0;; ++i) {
          try {
            io::write_file(scratch.path() / std::to_string(i), "x");
          } catch (const Error&) {
            pause();
          }
        }
      },
      testing::KilledBySignal(GetParam()), "");
  EXPECT_TRUE(fs::is_empty(parent.path()));
}

INSTANTIATE_TEST_SUITE_P(Signals, ScratchSignals, testing::Values(SIGINT, SIGTERM, SIGHUP, SIGQUIT));

}  // namespace
}  // namespace nibble::app
