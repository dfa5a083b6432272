// Loaded before a program (LD_PRELOAD), makes the system fail under it. NIBBLE_FAULT says how:
//   short_reads    a read gives at most 1000 bytes
//   read_error:N   the Nth read fails with EIO
//   disk_full:N    after N bytes no write takes more
//   read_only      no folder can be made
//   kill:N         the process is killed at the Nth call that writes, syncs, renames or removes
//   interrupt:N    it gets Ctrl-C there
//   holes          zeros that are written become holes
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

namespace {

struct Fault {
  std::string_view kind;
  long limit = 0;

  Fault() {
    const char* text = std::getenv("NIBBLE_FAULT");
    if (text == nullptr) return;
    kind = text;
    const size_t colon = kind.find(':');
    if (colon == std::string_view::npos) return;
    limit = std::atol(text + colon + 1);
    kind = kind.substr(0, colon);
  }
};

const Fault& fault() {
  static const Fault instance;
  return instance;
}

template <typename F>
F* next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

/// Counts a call that changes files.
void count_change() {
  static std::atomic<long> changes{0};
  const bool killed = fault().kind == "kill";
  if ((killed || fault().kind == "interrupt") && ++changes == fault().limit)
    kill(getpid(), killed ? SIGKILL : SIGINT);
}

/// How many of n bytes may still be written; 0 sets errno.
size_t allowed(size_t n) {
  static std::atomic<long> written{0};
  if (fault().kind != "disk_full") return n;
  const long before = written.fetch_add(static_cast<long>(n));
  if (before >= fault().limit) {
    errno = ENOSPC;
    return 0;
  }
  return std::min(n, static_cast<size_t>(fault().limit - before));
}

bool all_zero(const void* data, size_t n) {
  const auto* bytes = static_cast<const char*>(data);
  return std::all_of(bytes, bytes + n, [](char c) { return c == 0; });
}

}  // namespace

extern "C" {

ssize_t pread(int fd, void* to, size_t n, off_t at) {
  static auto* real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  static std::atomic<long> reads{0};
  if (fault().kind == "short_reads") n = std::min<size_t>(n, 1000);
  if (fault().kind == "read_error" && ++reads == fault().limit) {
    errno = EIO;
    return -1;
  }
  return real(fd, to, n, at);
}

ssize_t pwrite(int fd, const void* from, size_t n, off_t at) {
  static auto* real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  count_change();
  if (n > 0 && allowed(n) == 0) return -1;
  if (fault().kind == "holes" && all_zero(from, n)) {
    // The last byte makes the file long enough; files come to their length from behind or are written on.
    struct stat status {};
    if (fstat(fd, &status) != 0) return -1;
    const off_t end = at + static_cast<off_t>(n);
    return status.st_size >= end || real(fd, "", 1, end - 1) == 1 ? static_cast<ssize_t>(n) : -1;
  }
  return real(fd, from, n, at);
}

ssize_t write(int fd, const void* from, size_t n) {
  static auto* real = next<ssize_t(int, const void*, size_t)>("write");
  if (fd <= 2) return real(fd, from, n);
  count_change();
  const size_t some = allowed(n);
  return n > 0 && some == 0 ? -1 : real(fd, from, some);
}

int fsync(int fd) {
  static auto* real = next<int(int)>("fsync");
  count_change();
  return real(fd);
}

int rename(const char* from, const char* to) {
  static auto* real = next<int(const char*, const char*)>("rename");
  count_change();
  return real(from, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  static auto* real = next<int(int, const char*, int, const char*, unsigned)>("renameat2");
  count_change();
  return real(from_folder, from, to_folder, to, flags);
}

int unlinkat(int folder, const char* path, int flags) {
  static auto* real = next<int(int, const char*, int)>("unlinkat");
  count_change();
  return real(folder, path, flags);
}

int mkdir(const char* path, mode_t mode) {
  static auto* real = next<int(const char*, mode_t)>("mkdir");
  if (fault().kind == "read_only") {
    errno = EROFS;
    return -1;
  }
  return real(path, mode);
}

}  // extern "C"
