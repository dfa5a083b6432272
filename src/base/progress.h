// Progress of long work for people: a bar line with a rate and the time left.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace nibble {

/// Draws "measure  12/32 samples  3.1/s  7 s left" on stderr, redrawn in place at most ten times a second.
/// Silent when stderr is no terminal or `enabled` was turned off. Not thread-safe; the destructor ends the
/// line.
class Progress {
 public:
  /// total: units of work to come; unit: their name in the plural ("samples", "layers").
  Progress(std::string label, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Counts n further units as done and redraws when due.
  void advance(int64_t n = 1);

  /// Turns all progress lines off or on (`--quiet`).
  static void enable(bool on);

 private:
  void draw() const;

  std::string label_, unit_;
  int64_t total_, done_ = 0;
  bool shown_;
  std::chrono::steady_clock::time_point start_;
  mutable std::chrono::steady_clock::time_point drawn_;
};

}  // namespace nibble
