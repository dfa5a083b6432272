// What is said when a user ends the program in the middle of its work.
#pragma once

#include <filesystem>

namespace nibble::app {

/// While it lives, Ctrl-C and a request to end (SIGINT, SIGTERM, SIGHUP) first say in a line where the work
/// so far lies beside `target` (target.progress, target.partial; what is there) and that the same command
/// goes on from it. One at a time.
class InterruptNote {
 public:
  explicit InterruptNote(const std::filesystem::path& target);
  ~InterruptNote();
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;
};

}  // namespace nibble::app
