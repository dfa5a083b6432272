// What is said when a user ends the program in the middle of its work.
#pragma once

#include <filesystem>

namespace nibble::app {

/// While it lives, Ctrl-C and a request to end (SIGINT, SIGTERM) first say in a line that unfinished work lies in
/// `partial` and that the same command goes on from it. One at a time.
class InterruptNote {
 public:
  explicit InterruptNote(const std::filesystem::path& partial);
  ~InterruptNote();
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;
};

}  // namespace nibble::app
