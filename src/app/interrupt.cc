#include "app/interrupt.h"

#include <unistd.h>

#include <array>
#include <csignal>
#include <string>

#include "base/error.h"
#include "io/checkpoint.h"

namespace nibble::app {
namespace {

/// What the handler looks at and says; it may only read what is ready.
std::string progress, partial;
std::array<std::string, 4> notes;  // by whose state is there: nobody's, progress, partial, both

void say_and_end(int signal) {
  const size_t there =
      (access(progress.c_str(), F_OK) == 0 ? 1 : 0) + (access(partial.c_str(), F_OK) == 0 ? 2 : 0);
  (void)!write(STDERR_FILENO, notes[there].data(), notes[there].size());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

InterruptNote::InterruptNote(const std::filesystem::path& target) {
  const std::string progress_folder = target.string() + io::kProgress,
                    partial_folder = target.string() + io::kPartial;
  progress = (std::filesystem::path(progress_folder) / io::kStateFile).string();
  partial = (std::filesystem::path(partial_folder) / io::kStateFile).string();
  notes[0] = "\nnibble: interrupted; nothing was kept yet, and the same command begins anew\n";
  const auto from = [](const std::string& what) {
    return fmt::format("\nnibble: interrupted; the same command goes on from what lies in {}\n", what);
  };
  notes[1] = from(progress_folder);
  notes[2] = from(partial_folder);
  notes[3] = from(fmt::format("{} and {}", progress_folder, partial_folder));
  // One that the caller ignores (nohup) stays ignored.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (std::signal(signal, say_and_end) == SIG_IGN) std::signal(signal, SIG_IGN);
}

InterruptNote::~InterruptNote() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (std::signal(signal, SIG_DFL) == SIG_IGN) std::signal(signal, SIG_IGN);
}

}  // namespace nibble::app
