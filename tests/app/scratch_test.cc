// The scratch folder, and that it is gone however the program ends.
#include "app/scratch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
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

TEST(Scratch, WhatAKilledProcessLeftIsRemovedByTheNext) {
  GTEST_FLAG_SET(death_test_style, "fast");
  test::TempFolder parent;
  EXPECT_EXIT(
      {
        const ScratchFolder scratch(parent.path());
        io::write_file(scratch.path() / "file", "x");
        kill(getpid(), SIGKILL);
      },
      testing::KilledBySignal(SIGKILL), "");
  const fs::path left = fs::directory_iterator(parent.path())->path(),
                 used = parent / "nibble-scratch-in-use", file = parent / "nibble-scratch-file",
                 other = parent / "other";
  ASSERT_TRUE(fs::exists(left / "file"));
  for (const fs::path& folder : {used, other}) fs::create_directory(folder);
  io::write_file(file, "x");
  const io::Descriptor lock(open(used.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  const ScratchFolder scratch(parent.path());
  EXPECT_FALSE(fs::exists(left));
  for (const fs::path& kept : {used, file, other, scratch.path()}) EXPECT_TRUE(fs::exists(kept)) << kept;
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
