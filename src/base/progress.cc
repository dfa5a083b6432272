#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace nibble {
namespace {

bool progress_enabled = true;

std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(std::ceil(std::min(seconds, 1e9)));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      shown_(progress_enabled && isatty(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

Progress::~Progress() {
  if (!shown_) return;
  draw();
  std::fputc('\n', stderr);
}

void Progress::enable(bool on) {
  progress_enabled = on;
}

void Progress::advance(int64_t n) {
  done_ += n;
  if (shown_ && std::chrono::steady_clock::now() - drawn_ > std::chrono::milliseconds(100)) draw();
}

void Progress::draw() const {
  drawn_ = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(drawn_ - start_).count();
  std::string line = fmt::format("\r{:<10} {}/{} {}", label_, done_, total_, unit_);
  if (done_ > 0 && seconds > 0) {
    const double rate = static_cast<double>(done_) / seconds;
    line += rate < 999.5 ? fmt::format("  {:.3g}/s", rate) : fmt::format("  {:.0f}/s", rate);
    line += done_ < total_
                ? fmt::format("  {} left", duration_text(static_cast<double>(total_ - done_) / rate))
                : fmt::format("  {}", duration_text(seconds));
  }
  line += "\x1b[K";
  std::fputs(line.c_str(), stderr);  // a terminal that has gone away is no error of the work
  std::fflush(stderr);
}

}  // namespace nibble
