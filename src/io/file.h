// Files at the level of the system: checked opening, reading and durable writing. Every error names the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::io {

/// An open file descriptor, closed when it goes. Movable.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;

  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  int release();
  void close();

 private:
  int fd_ = -1;
};

/// The system's words for an errno: "No space left on device".
std::string system_message(int error);

/// What tells that a file is still the same.
struct FileStamp {
  int64_t size = 0;
  int64_t changed = 0;  // nanoseconds since 1970

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

/// The stamp of an open file. Throws Error naming `path`.
FileStamp stamp_of(const Descriptor& file, const std::filesystem::path& path);

/// Opens a regular file that must be what it was when it got its stamp. Throws Error.
Descriptor open_unchanged(const std::filesystem::path& path, const FileStamp& stamp);

/// Opens a regular file for reading and tells its size; folders, pipes and devices are refused without
/// blocking. Throws Error.
Descriptor open_regular(const std::filesystem::path& path, int64_t* size);

/// The SHA-256 of a file's bytes as lower-case hex. Throws Error when it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

/// The first bytes of a file, at most `limit`; "" for one that cannot be read.
std::string read_start(const std::filesystem::path& path, size_t limit);

/// Throws Error when the bytes are the start of a Git LFS pointer, which stands where the real file should
/// be.
void refuse_lfs_pointer(std::string_view start, const std::filesystem::path& path);

/// Makes the entries of a folder durable (fsync). File systems that cannot sync folders are let pass.
void sync_folder(const std::filesystem::path& folder);

/// Makes the bytes of a file durable (fsync).
void sync_file(const std::filesystem::path& path);

/// The file that writing to `path` would make or replace: links followed. Throws Error when the path is
/// empty, names a folder that does not exist, or something other than a regular file stands there.
std::filesystem::path writable_target(const std::filesystem::path& path);

/// Renames to a name that must not be taken. Throws Error. Where the file system cannot promise that, an
/// empty folder that appears at the same moment is replaced.
void rename_new(const std::filesystem::path& from, const std::filesystem::path& to);

/// Lets two folders of one parent change names. In one step where the file system can and `one_step` is true;
/// else by way of `b` + ".old", with a moment at which there is no `b`. Throws Error, both as they were.
void swap_folders(const std::filesystem::path& a, const std::filesystem::path& b, bool one_step = true);

/// The ending of a file that is being written.
inline constexpr const char* kUnfinished = ".nibble-partial";

/// A file that appears under its name only when it is complete. Bytes go to `path` + kUnfinished through a
/// buffer; commit() syncs and renames. Destroyed without commit, it removes the partial file. A partial file
/// that an interrupted run left is overwritten; one that another process is writing is refused.
///
/// A link at `path` is followed, so that the file it names is replaced and the link stays. Throws Error where
/// something other than a regular file (a folder, a device, a pipe) stands.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends bytes. Throws Error when the system does not take them all.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Appends n zeros that take no room on the disk where the file system knows holes.
  void skip(int64_t n);
  /// Puts bytes at a place of the file, past what write() has appended. Thread-safe. Throws Error.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Asks the system to put on the disk what it has been given, without waiting, so that commit() has less
  /// to wait for.
  void begin_sync();
  /// Writes what is buffered, syncs, renames to the final name and syncs the folder.
  void commit();

 private:
  void flush();
  void put(std::span<const std::byte> bytes);
  [[noreturn]] void refused(ssize_t written) const;

  std::filesystem::path path_, partial_;
  Descriptor file_;
  std::vector<std::byte> buffer_;
  bool skipped_ = false;
};

}  // namespace nibble::io
