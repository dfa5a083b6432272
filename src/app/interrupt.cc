#include "app/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <string>

#include "base/error.h"

namespace nibble::app {
namespace {

/// What the handler says; it may only read what is ready.
std::string note;

void say_and_end(int signal) {
  (void)!write(STDERR_FILENO, note.data(), note.size());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

InterruptNote::InterruptNote(const std::filesystem::path& target) {
  note = fmt::format(
      "\nnibble: interrupted; the same command goes on from what lies in {0}.progress or {0}.partial, if they are "
      "there\n",
      target.string());
  // One that the caller ignores (nohup) stays ignored.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (std::signal(signal, say_and_end) == SIG_IGN) std::signal(signal, SIG_IGN);
}

InterruptNote::~InterruptNote() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP})
    if (std::signal(signal, SIG_DFL) == SIG_IGN) std::signal(signal, SIG_IGN);
}

}  // namespace nibble::app
