// A folder for files that are only needed while the program runs.
#pragma once

#include <csignal>
#include <filesystem>
#include <thread>
#include <vector>

#include "io/file.h"

namespace nibble::app {

/// Where files go that nobody keeps: $TMPDIR, or /tmp. Throws Error naming the variable where that is no
/// folder.
std::filesystem::path temporary_folder();

/// A new folder in `parent` ($TMPDIR where that is empty), removed with all that is in it when this goes, and
/// before the process ends by a signal that asks it to (SIGINT, SIGTERM, SIGHUP, SIGQUIT; those that are
/// ignored stay so). What a process leaves that ended otherwise (SIGKILL), the next one made in `parent`
/// removes: the owner holds a lock (flock) on its folder as long as it lives. One at a time in a process: it
/// handles these signals while it lives.
class ScratchFolder {
 public:
  /// Throws Error when the folder cannot be made.
  explicit ScratchFolder(const std::filesystem::path& parent = {});
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  void watch();
  void remove();

  std::filesystem::path path_;
  io::Descriptor lock_;  // the folder itself
  io::Descriptor told_;  // the end of a pipe that the handler writes the signal's number to
  std::vector<std::pair<int, struct sigaction>> before_;
  std::thread watcher_;
};

}  // namespace nibble::app
