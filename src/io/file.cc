#include "io/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"

namespace nibble::io {
namespace {

constexpr size_t kBufferBytes = size_t{4} << 20;

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? std::filesystem::path(".") : parent;
}

/// Opens and locks the partial file, empty. Another holder may rename or remove it between open and lock, so
/// the name is compared with what was locked.
Descriptor open_partial(const std::filesystem::path& partial) {
  while (true) {
    Descriptor file(::open(partial.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
    if (!file.open()) fail("{}: cannot create it: {}", partial.string(), system_message(errno));
    struct stat opened {
    }, named{};
    if (fstat(file.get(), &opened) != 0) fail("{}: {}", partial.string(), system_message(errno));
    if (!S_ISREG(opened.st_mode)) fail("{}: is in the way and no regular file; remove it", partial.string());
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) fail("{}: another process is writing it", partial.string());
      fail("{}: cannot lock it: {}", partial.string(), system_message(errno));
    }
    if (lstat(partial.c_str(), &named) != 0 || named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
      continue;
    if (ftruncate(file.get(), 0) != 0) fail("{}: {}", partial.string(), system_message(errno));
    return file;
  }
}

/// renameat2; false when the system or the file system does not know the flag.
bool rename_flagged(const std::filesystem::path& from, const std::filesystem::path& to, unsigned flag) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flag) == 0) return true;
  if (errno == ENOSYS || errno == EINVAL || errno == ENOTSUP) return false;
  fail("{}: cannot rename {} to it: {}", to.string(), from.filename().string(), system_message(errno));
}

void rename_plain(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail("{}: cannot rename {} to it: {}", to.string(), from.filename().string(), system_message(errno));
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() {
  return std::exchange(fd_, -1);
}

void Descriptor::close() {
  if (fd_ >= 0) ::close(release());
}

std::string system_message(int error) {
  return std::generic_category().message(error);
}

Descriptor open_regular(const std::filesystem::path& path, int64_t* size) {
  // O_NONBLOCK: opening a pipe must not wait for a writer.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.open()) fail("{}: cannot open it: {}", path.string(), system_message(errno));
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail("{}: {}", path.string(), system_message(errno));
  if (S_ISDIR(status.st_mode)) fail("{}: is a folder where a file is needed", path.string());
  if (!S_ISREG(status.st_mode)) fail("{}: is a pipe or device where a regular file is needed", path.string());
  *size = status.st_size;
  return file;
}

FileStamp stamp_of(const Descriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail("{}: {}", path.string(), system_message(errno));
  return {status.st_size,
          static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec};
}

Descriptor open_unchanged(const std::filesystem::path& path, const FileStamp& stamp) {
  int64_t size = 0;
  Descriptor file = open_regular(path, &size);
  if (stamp_of(file, path) != stamp)
    fail("{}: was changed while it was in use; run again when it is complete", path.string());
  return file;
}

void refuse_lfs_pointer(std::string_view start, const std::filesystem::path& path) {
  if (start.starts_with("version https://git-lfs"))
    fail("{}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {}", path.string(),
         folder_of(path).string());
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.open()) fail("{}: cannot open it: {}", folder.string(), system_message(errno));
  if (fsync(file.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    fail("{}: cannot sync it: {}", folder.string(), system_message(errno));
}

void sync_file(const std::filesystem::path& path) {
  int64_t size = 0;
  const Descriptor file = open_regular(path, &size);
  if (fsync(file.get()) != 0) fail("{}: cannot sync it: {}", path.string(), system_message(errno));
}

void rename_new(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (!rename_flagged(from, to, RENAME_NOREPLACE)) rename_plain(from, to);
}

void swap_folders(const std::filesystem::path& a, const std::filesystem::path& b, bool one_step) {
  if (one_step && rename_flagged(a, b, RENAME_EXCHANGE)) return;
  std::filesystem::path aside = b;
  aside += ".old";
  rename_new(b, aside);
  try {
    rename_plain(a, b);
  } catch (const Error&) {
    ::rename(aside.c_str(), b.c_str());
    throw;
  }
  rename_plain(aside, a);
}

std::string sha256_of_file(const std::filesystem::path& path) {
  int64_t size = 0;
  const Descriptor file = open_regular(path, &size);
  Sha256 sha;
  std::vector<std::byte> buffer(kBufferBytes);
  while (true) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n == 0) return sha.hex();
    if (n > 0) sha.update(std::span(buffer).first(static_cast<size_t>(n)));
    if (n < 0 && errno != EINTR) fail("{}: cannot read it: {}", path.string(), system_message(errno));
  }
}

std::string read_start(const std::filesystem::path& path, size_t limit) {
  std::string start(limit, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(start.data(), std::ssize(start));
  start.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return start;
}

std::filesystem::path writable_target(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  if (path.empty()) fail("the name of the file to write is empty; name a file");
  std::error_code error;
  fs::path target = path;
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    target = fs::weakly_canonical(path, error);
    if (error) fail("{}: cannot follow the link: {}", path.string(), error.message());
  }
  const fs::file_status status = fs::status(target, error);
  if (fs::is_directory(status)) fail("{}: is a folder; name a file", path.string());
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail("{}: is no regular file (a device or a pipe) and is not written to; name a file", path.string());
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error))
    fail("{}: there is no folder {}; create it first", path.string(), folder.string());
  return target;
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(writable_target(path)), partial_(path_) {
  partial_ += kUnfinished;
  file_ = open_partial(partial_);
}

AtomicFile::~AtomicFile() {
  if (file_.open()) ::unlink(partial_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  NIBBLE_CHECK(file_.open(), "write after commit to {}", path_.string());
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() >= kBufferBytes) return put(bytes);
  if (buffer_.capacity() == 0) buffer_.reserve(kBufferBytes);
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void AtomicFile::flush() {
  put(buffer_);
  buffer_.clear();
}

void AtomicFile::put(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refused(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void AtomicFile::refused(ssize_t written) const {
  fail("{}: cannot write it: {}", path_.string(), system_message(written < 0 ? errno : ENOSPC));
}

void AtomicFile::skip(int64_t n) {
  flush();
  if (lseek(file_.get(), n, SEEK_CUR) < 0) refused(-1);
  skipped_ = true;
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file_.get(), bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refused(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void AtomicFile::begin_sync() {
  sync_file_range(file_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
}

void AtomicFile::commit() {
  NIBBLE_CHECK(file_.open(), "second commit of {}", path_.string());
  flush();
  if (skipped_ && ftruncate(file_.get(), lseek(file_.get(), 0, SEEK_CUR)) != 0) refused(-1);
  if (fsync(file_.get()) != 0) fail("{}: cannot sync it: {}", path_.string(), system_message(errno));
  if (::rename(partial_.c_str(), path_.c_str()) != 0)
    fail("{}: cannot rename {} to it: {}", path_.string(), partial_.filename().string(),
         system_message(errno));
  file_.close();
  sync_folder(folder_of(path_));
}

}  // namespace nibble::io
