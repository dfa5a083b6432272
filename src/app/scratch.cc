#include "app/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <tuple>

#include "base/error.h"
#include "base/text.h"

namespace nibble::app {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "nibble-scratch-";

/// Where the handler writes to; a handler may do little else.
std::atomic<int> tell_end{-1};

extern "C" void tell_signal(int signal) {
  const int kept = errno;
  const auto byte = static_cast<unsigned char>(signal);
  (void)!write(tell_end.load(), &byte, 1);
  errno = kept;
}

/// The folder, locked; not open where it is no folder of this user's or another process holds it.
io::Descriptor lock_folder(const fs::path& path) {
  io::Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat opened {
  }, named{};
  if (!folder.open() || fstat(folder.get(), &opened) != 0 || opened.st_uid != geteuid() ||
      flock(folder.get(), LOCK_EX | LOCK_NB) != 0 || lstat(path.c_str(), &named) != 0 ||
      named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
    return {};
  return folder;
}

/// Removes the scratch folders whose processes are gone.
void remove_abandoned(const fs::path& parent) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(parent, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(kPrefix)) found.push_back(it->path());
  for (const fs::path& path : found)
    if (const io::Descriptor lock = lock_folder(path); lock.open()) fs::remove_all(path, error);
}

/// A new folder, locked.
std::pair<fs::path, io::Descriptor> make_folder(const fs::path& parent) {
  constexpr int kTries = 10;  // another process may remove a folder that is not locked yet
  std::string name;
  for (int i = 0; i < kTries; ++i) {
    name = (parent / kPrefix).string() + "XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) break;
    errno = 0;
    io::Descriptor lock = lock_folder(name);
    // Where the file system knows no locks, nobody else gets one either.
    std::error_code ignored;
    if (lock.open() || (errno != EWOULDBLOCK && fs::exists(name, ignored))) return {name, std::move(lock)};
  }
  fail("{}: cannot make a scratch folder: {}; set TMPDIR to a folder with space", name,
       io::system_message(errno));
}

}  // namespace

fs::path temporary_folder() {
  std::error_code error;
  fs::path folder = fs::temp_directory_path(error);
  if (!error) return folder;
  for (const char* name : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"})  // as the standard library looks
    if (const char* value = std::getenv(name))
      fail("{}={}: is no folder that can be used; set {} to a folder with space", name, printable(value),
           name);
  fail("there is no folder /tmp; set TMPDIR to a folder with space");
}

ScratchFolder::ScratchFolder(const fs::path& given) {
  const fs::path parent = given.empty() ? temporary_folder() : given;
  remove_abandoned(parent);
  std::tie(path_, lock_) = make_folder(parent);
  try {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("cannot make a pipe: {}", io::system_message(errno));
    told_ = io::Descriptor(ends[0]);
    NIBBLE_CHECK(tell_end.exchange(ends[1]) == -1, "two scratch folders at a time");
    watcher_ = std::thread([this] { watch(); });
  } catch (...) {
    if (const int end = tell_end.exchange(-1); end != -1) close(end);
    remove();
    throw;
  }
  struct sigaction ours {};
  ours.sa_handler = tell_signal;
  ours.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;
    before_.emplace_back(signal, before);
    sigaction(signal, &ours, nullptr);
  }
}

ScratchFolder::~ScratchFolder() {
  for (const auto& [signal, before] : before_) sigaction(signal, &before, nullptr);
  // The watcher ends when the pipe does, and before that it serves signals that came.
  close(tell_end.exchange(-1));
  watcher_.join();
  remove();
}

void ScratchFolder::watch() {
  unsigned char signal = 0;
  ssize_t got = 0;
  do got = read(told_.get(), &signal, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) return;
  // Under another name nothing new comes into it while it is removed.
  fs::path gone = path_;
  gone += ".gone";
  std::error_code ignored;
  fs::rename(path_, gone, ignored);
  // What was being made at that moment may come after the first look.
  for (int i = 0; i < 100 && fs::exists(gone, ignored); ++i) fs::remove_all(gone, ignored);
  std::signal(signal, SIG_DFL);
  kill(getpid(), signal);
  while (true) pause();
}

void ScratchFolder::remove() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace nibble::app
