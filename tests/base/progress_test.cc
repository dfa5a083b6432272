#include "base/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>

namespace nibble {
namespace {

/// Runs `work` with stderr on a new pseudo-terminal and returns what it wrote there; nothing without
/// terminals.
template <typename Work>
std::optional<std::string> on_terminal(const Work& work) {
  const int control = posix_openpt(O_RDWR | O_NOCTTY);
  if (control < 0 || grantpt(control) != 0 || unlockpt(control) != 0) return std::nullopt;
  const int terminal = open(ptsname(control), O_RDWR | O_NOCTTY);
  if (terminal < 0) return std::nullopt;
  const int saved = dup(STDERR_FILENO);
  dup2(terminal, STDERR_FILENO);
  work();
  dup2(saved, STDERR_FILENO);
  close(saved);
  close(terminal);
  // With the terminal closed, what was written arrives to its end; a read of what is "there now" may be
  // early.
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(control, part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  close(control);
  return text;
}

TEST(Progress, SilentOffTerminal) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  {
    Progress progress("measure", 4, "samples");
    progress.advance(2);
    std::this_thread::sleep_for(std::chrono::milliseconds(120));
    progress.advance(2);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

TEST(Progress, DrawsOneLineOnATerminal) {
  const auto text = on_terminal([] {
    Progress progress("measure", 4, "samples");
    progress.advance();
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    progress.advance();
    progress.advance(2);
  });
  if (!text) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_NE(text->find("\rmeasure    2/4 samples"), std::string::npos) << *text;
  EXPECT_NE(text->find(" left"), std::string::npos) << *text;
  EXPECT_NE(text->find("\rmeasure    4/4 samples"), std::string::npos) << *text;
  EXPECT_EQ(text->find('\n'), text->size() - 1) << *text;
}

TEST(Progress, RedrawsAtMostTenTimesASecond) {
  const auto text = on_terminal([] {
    Progress progress("measure", 1000000, "steps");
    for (int i = 0; i < 100000; ++i) progress.advance(10);
  });
  if (!text) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_LT(text->size(), 10000u);
}

TEST(Progress, CanBeTurnedOff) {
  const auto text = on_terminal([] {
    Progress::enable(false);
    { Progress progress("measure", 1, "samples"); }
    Progress::enable(true);
  });
  if (!text) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_EQ(*text, "");
}

}  // namespace
}  // namespace nibble
