#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/json.h"
#include "io/weight_files.h"

namespace nibble::io {
namespace fs = std::filesystem;
namespace {

/// What stands at a path, links not followed.
fs::file_type type_at(const fs::path& path) {
  std::error_code error;
  const auto type = fs::symlink_status(path, error).type();
  if (type == fs::file_type::none) fail("{}: cannot look at it: {}", path.string(), error.message());
  return type;
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// The target without "." parts and closing slashes.
fs::path normal_target(const fs::path& target) {
  fs::path path = target.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.empty() || !path.has_filename() || path.filename() == "." || path.filename() == "..")
    fail("\"{}\" is no name for an output folder", target.string());
  return path;
}

/// Throws Error unless an existing target may be replaced.
void check_replaceable(const fs::path& target, const WorkFolder::CheckOwn& written) {
  const auto type = type_at(target);
  if (type == fs::file_type::symlink)
    fail("{}: is a symbolic link; give the folder that it leads to", target.string());
  if (type != fs::file_type::directory) fail("{}: exists and is no folder", target.string());
  std::error_code error;
  if (fs::is_empty(target, error)) return;
  if (fs::exists(target / ".git", error))
    fail("{}: is a git working tree, so it is not replaced; give another name", target.string());
  const fs::path real = fs::canonical(target, error);
  for (fs::path here = fs::current_path(error); !error; here = here.parent_path()) {
    if (here == real)
      fail("{}: is the current folder or one above it, so it is not replaced", target.string());
    if (here == here.parent_path()) break;
  }
  if (!written) fail("{}: is not empty, so it is not replaced; give another name", target.string());
  written(target);
}

void refuse_foreign(const fs::path& partial) {
  fail("{}: is in the way, and not from an interrupted run of nibble; remove or rename it", partial.string());
}

/// Opens (creating it where need be) and locks a folder's lock file. Another run may remove it between open
/// and lock, so the name is compared with what was locked.
Descriptor lock_folder(const fs::path& folder, const fs::path& target) {
  const fs::path path = folder / kLockFile;
  // A run that was just killed holds it until the system has cleaned up after it.
  constexpr std::chrono::milliseconds kPatience(1000), kStep(20);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
    if (!file.open()) fail("{}: cannot create it: {}", path.string(), system_message(errno));
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) fail("{}: cannot lock it: {}", path.string(), system_message(errno));
      if (std::chrono::steady_clock::now() >= end)
        fail("{}: another run of nibble is writing it", target.string());
      std::this_thread::sleep_for(kStep);
      continue;
    }
    struct stat opened {
    }, named{};
    if (fstat(file.get(), &opened) == 0 && lstat(path.c_str(), &named) == 0 &&
        opened.st_ino == named.st_ino && opened.st_dev == named.st_dev)
      return file;
  }
}

/// Removes all entries of a folder but the lock file and those named.
void empty_folder(const fs::path& folder, const std::set<std::string>& except = {}) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator i(folder, error); !error && i != fs::directory_iterator(); i.increment(error))
    entries.push_back(i->path());
  if (error) fail("{}: cannot read the folder: {}", folder.string(), error.message());
  // The state last: as long as others are there that it speaks of, it is.
  std::stable_partition(entries.begin(), entries.end(),
                        [](const fs::path& entry) { return entry.filename() != kStateFile; });
  for (const fs::path& entry : entries) {
    if (entry.filename() == kLockFile || except.contains(entry.filename().string())) continue;
    fs::remove_all(entry, error);
    if (error) fail("{}: cannot remove it: {}", entry.string(), error.message());
  }
}

/// Removes a folder, its lock file last, so that an interrupted removal is still recognised as nibble's.
void remove_folder(const fs::path& folder) {
  empty_folder(folder);
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) fail("{}: cannot remove it: {}", folder.string(), error.message());
}

/// Removes what a run leaves that was killed between the last two steps of its commit. A work folder whose
/// name is given as a target looks the same, but its lock and state are what its own run goes on by.
void clean_committed(const fs::path& target) {
  std::error_code ignored;
  if (fs::symlink_status(target / kLockFile, ignored).type() != fs::file_type::regular) return;
  if (target.extension() == kPartial || target.extension() == kProgress)
    fail("{}: holds what an interrupted run of nibble left, and its command goes on from; give another name",
         target.string());
  const Descriptor lock = lock_folder(target, target);
  fs::remove(target / kStateFile, ignored);
  fs::remove(target / kLockFile, ignored);
}

/// The target of an output folder, which may come into being or be replaced.
fs::path checked_target(const fs::path& given, bool force, const WorkFolder::CheckOwn& written) {
  fs::path target = normal_target(given);
  std::error_code ignored;
  if (fs::exists(parent_of(target) / kLockFile, ignored))
    fail("{}: {} is where a run of nibble writes; give a name outside of it", target.string(),
         parent_of(target).string());
  if (type_at(target) == fs::file_type::not_found) return target;
  clean_committed(target);
  if (!force && type_at(target) == fs::file_type::directory)
    fail("{}: exists already; give another name, or --force to replace it", target.string());
  check_replaceable(target, written);
  if (access(target.c_str(), W_OK | X_OK) != 0)
    fail("{}: cannot be replaced: {}", target.string(), system_message(errno));
  return target;
}

void sync_tree(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const auto type = type_at(entries->path());
    if (type == fs::file_type::directory) sync_folder(entries->path());
    if (type == fs::file_type::regular) sync_file(entries->path());
  }
  if (error) fail("{}: cannot read the folder: {}", folder.string(), error.message());
  sync_folder(folder);
}

}  // namespace

WorkFolder::WorkFolder(const fs::path& target, std::string_view suffix, Leftovers leftovers,
                       const CheckOwn& check_own)
    : target_(normal_target(target)), path_(target_) {
  path_ += suffix;
  if (::mkdir(path_.c_str(), 0777) != 0) {
    const int reason = errno;
    std::error_code ignored;
    if (reason == ENOENT && !fs::exists(parent_of(target_), ignored))
      fail("{}: the folder {} does not exist; create it first", target_.string(),
           parent_of(target_).string());
    if (reason != EEXIST) fail("{}: cannot create the folder: {}", path_.string(), system_message(reason));
    if (type_at(path_) != fs::file_type::directory) refuse_foreign(path_);
    std::error_code error;
    if (type_at(path_ / kLockFile) != fs::file_type::regular && !fs::is_empty(path_, error))
      refuse_foreign(path_);
  }
  lock_ = lock_folder(path_, target_);
  if (check_own) check_own(path_);
  stays_ = leftovers == Leftovers::keep && type_at(state_path()) == fs::file_type::regular;
  if (!stays_) empty_folder(path_);
}

WorkFolder::~WorkFolder() {
  if (released_ || stays_) return;
  try {
    remove_folder(path_);
  } catch (const std::exception&) {
    // What cannot be removed keeps the lock file, and the next run on this target clears it.
  }
}

fs::path WorkFolder::state_path() const {
  return path_ / kStateFile;
}

std::optional<std::string> WorkFolder::state() const {
  if (type_at(state_path()) != fs::file_type::regular) return std::nullopt;
  return read_file(state_path());
}

void WorkFolder::save_state(std::string_view text) {
  write_file(state_path(), text);
  state_saved();
}

void WorkFolder::clear() {
  empty_folder(path_);
  stays_ = false;
}

void WorkFolder::begin_anew(std::string_view why, const std::function<void(const std::string&)>& tell) {
  tell(fmt::format("{}: an interrupted run left {}; it is removed, and the work begins anew", path_.string(),
                   why));
  clear();
}

void WorkFolder::keep_only(const std::set<std::string>& names) {
  std::set<std::string> all = names;
  all.insert(kStateFile);
  empty_folder(path_, all);
}

OutputFolder::OutputFolder(const fs::path& target, bool force, Leftovers leftovers, OwnFolders own)
    : WorkFolder(checked_target(target, force, own.written), kPartial, leftovers, own.leftover),
      force_(force),
      written_(std::move(own.written)) {}

void OutputFolder::commit() {
  NIBBLE_CHECK(!released_, "second commit of {}", target_.string());
  sync_tree(path_);
  Descriptor old_lock;
  if (type_at(target_) == fs::file_type::not_found) {
    rename_new(path_, target_);
  } else {
    if (!force_)
      fail("{}: came into being while its new content was made; it is left alone", target_.string());
    check_replaceable(target_, written_);
    old_lock = replace();
  }
  released_ = true;
  std::error_code ignored;
  fs::remove(target_ / kStateFile, ignored);
  fs::remove(target_ / kLockFile, ignored);
  sync_folder(target_);
  sync_folder(parent_of(target_));
  lock_.close();
  if (old_lock.open()) remove_folder(path_);
}

Descriptor OutputFolder::replace() {
  // The old folder gets a lock file too: under the partial name it is then recognised as nibble's to remove.
  Descriptor old_lock = lock_folder(target_, target_);
  try {
    swap_folders(path_, target_);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(target_ / kLockFile, ignored);
    throw;
  }
  return old_lock;
}

}  // namespace nibble::io
