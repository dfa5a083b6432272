#include "app/bus_error.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

#include "io/mappings.h"

namespace nibble::app {
namespace {

/// Only what POSIX allows in a signal handler.
void on_bus_error(int signal, siginfo_t* info, void*) {
  const char* path = io::mapped_file_at(info->si_addr);
  if (path == nullptr) {
    std::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  for (const char* part :
       {"nibble: ", path, ": a part of it is gone: it shrank or cannot be read any more; get it again\n"})
    (void)!write(STDERR_FILENO, part, std::strlen(part));
  _exit(2);
}

}  // namespace

void catch_bus_errors() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace nibble::app
