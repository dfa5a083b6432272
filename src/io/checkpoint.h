// A checkpoint folder: config.json, *.safetensors (with or without index), tokenizer and processor files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/tensor_bytes.h"

namespace nibble::io {

/// Turns what a user typed into a folder: an existing folder as it is; otherwise "org/name" (optionally
/// "org/name@revision") looked up in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME
/// or
/// ~/.cache/huggingface/hub: models--org--name/snapshots/<refs/main>). Throws Error that says how to download
/// it
/// ("hf download org/name") when it is a hub name that is not in the cache, or whose weights there are
/// incomplete.
std::filesystem::path resolve_model(const std::string& model);

/// An opened checkpoint. Tensors of all shards are found by name. Thread-safe after construction.
class Checkpoint {
 public:
  /// Reads config.json and maps the safetensors: model.safetensors.index.json when it is there (every file it
  /// names must lie in the folder itself; every tensor must be in the shard that it says; a tensor in a shard
  /// that the index leaves out is an error), else model.safetensors, else the one *.safetensors file. Other
  /// *.safetensors beside an index (Mistral's consolidated.safetensors) are left alone, but a
  /// model.safetensors that the index does not name is an error, because readers differ in which of the two
  /// they take. Throws Error.
  explicit Checkpoint(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const { return config_; }
  /// "folder/config.json", for errors.
  std::string config_path() const { return (folder_ / "config.json").string(); }

  /// All tensors by name.
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// View of a tensor; throws Error naming folder and tensor when there is none.
  TensorView tensor(const std::string& name) const;
  /// Gives back the memory of a tensor's bytes, or of some rows of one: the next read of the view brings them
  /// in from the file again. Views of other memory are left alone.
  void drop(const TensorView& view) const;
  /// A tensor's bytes for reading piece by piece. Throws Error like tensor(), and when the file was changed.
  TensorBytes bytes(const std::string& name) const;
  /// The file that holds a tensor, for errors.
  const std::filesystem::path& file_of(const std::string& name) const;
  /// The safetensors files, in order of their names, and what they were when they were opened.
  std::vector<std::filesystem::path> files() const;
  std::vector<FileStamp> stamps() const;
  /// "__metadata__" of each of them.
  std::vector<std::map<std::string, std::string>> metadata() const;
  /// Throws Error naming the first of these files that is not what it was when it was opened.
  void check_unchanged() const;
  /// A digest of config.json and of the names, sizes and last changes of these files.
  std::string identity() const;
  /// The other regular files of the folder (not *.safetensors, not an index, not config.json, not other
  /// weight formats such as *.bin, *.pt, *.gguf, not hidden ones), by name: what a written checkpoint takes
  /// over.
  std::vector<std::filesystem::path> side_files() const;
  /// Reads a JSON file of the folder; nothing when it does not exist.
  std::optional<Json> json(const std::string& name) const;

 private:
  void open_one(const std::string& name);
  const SafetensorsFile& holder(const std::string& name) const;
  void open_indexed(const std::vector<std::string>& names);

  std::filesystem::path folder_;
  Json config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, const SafetensorsFile*> where_;
};

/// What is added to a target's name for the folder in which it is made, and for that of how far measuring for
/// it is.
inline constexpr const char* kPartial = ".partial";
inline constexpr const char* kProgress = ".progress";
/// The files of a WorkFolder that are its own.
inline constexpr const char* kLockFile = ".nibble-lock";
inline constexpr const char* kStateFile = ".nibble-state";

/// A folder beside what a run is to write, for its unfinished files. It holds a file ".nibble-lock", locked
/// (flock) as long as the run lives: a second run on the same target is refused. What an interrupted run left
/// is recognised by that file without a lock; it is emptied and used again, or taken over as it is where that
/// is asked for and there is a state. A folder without the file is not nibble's and refused unless it is
/// empty. Destroyed, it is removed, unless there is a state.
class WorkFolder {
 public:
  /// What becomes of an interrupted run's files when there is a state that says what they are.
  enum class Leftovers { remove, keep };
  /// Throws Error where a folder holds what nibble did not write.
  using CheckOwn = std::function<void(const std::filesystem::path&)>;

  /// The folder is `target` + `suffix`. Throws Error when it cannot be made or is another run's, and what
  /// check_own (none where empty) throws of an interrupted run's folder, which stays as it is.
  WorkFolder(const std::filesystem::path& target, std::string_view suffix, Leftovers leftovers,
             const CheckOwn& check_own = {});
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  /// Where to write: path() / "config.json".
  const std::filesystem::path& path() const { return path_; }
  /// The file that says how far the work is. One who writes it on his own says so: what is there stays from
  /// then on when the object goes.
  std::filesystem::path state_path() const;
  void state_saved() { stays_ = true; }
  /// Its text that was saved last, by this run or by the interrupted one whose files are kept.
  std::optional<std::string> state() const;
  void save_state(std::string_view text);
  /// Removes everything that is in the folder, the state too.
  void clear();
  /// The same, and tells why an interrupted run's files are of no use: "another plan".
  void begin_anew(std::string_view why, const std::function<void(const std::string&)>& tell);
  /// Removes everything but the state and the named entries.
  void keep_only(const std::set<std::string>& names);

 protected:
  std::filesystem::path target_, path_;
  Descriptor lock_;
  bool released_ = false;  // no longer this object's to remove

 private:
  bool stays_ = false;
};

/// What tells nibble's own folders from others.
struct OwnFolders {
  WorkFolder::CheckOwn written =
      {};  // of a target that is to be replaced; where there is none, only an empty one is
  WorkFolder::CheckOwn leftover =
      {};  // of what an interrupted run left beside the target, lock and state too
};

/// A folder that becomes visible under its final name only when it is complete: files are written into
/// `target` + ".partial", and commit() renames it.
class OutputFolder : public WorkFolder {
 public:
  /// Throws Error when the target exists and `force` is false, is an interrupted run's work folder, or the
  /// parent cannot be written. With `force`, an existing target must be empty or own.written let it pass; it
  /// must be neither a git working tree nor a link nor the current folder or one above it, and is replaced
  /// only by commit(). Whether the target is the folder that is being read is the caller's to check.
  OutputFolder(const std::filesystem::path& target, bool force, Leftovers leftovers = Leftovers::remove,
               OwnFolders own = {});

  /// Syncs every file and renames to the final name; with `force` it changes places with the old folder in
  /// one step where the file system can, and the old one is removed afterwards. The state is gone. Throws
  /// Error, the target untouched, when that fails, or when the target came into being meanwhile.
  void commit();

 private:
  Descriptor replace();

  bool force_;
  CheckOwn written_;
};

/// The name of shard i of `count`: model.safetensors, or model-00001-of-0000N.safetensors.
std::string shard_name(size_t i, size_t count);

/// What model.safetensors.index.json holds: {"metadata": {"total_size": N}, "weight_map": tensor -> file}.
Json index_json(const std::map<std::string, std::string>& weight_map, int64_t total);

/// Writes it.
void write_index(const std::filesystem::path& folder, const std::map<std::string, std::string>& weight_map,
                 int64_t total);

/// Throws Error when the file system says that it has too little room for so many bytes; one that says
/// nothing is let pass.
void check_room(const std::filesystem::path& folder, int64_t bytes);

/// Splits planned tensors into shards of at most `max_bytes` of tensor data, in their given order. Each group
/// (tensors that share PlannedTensor::name's owner) must stay together, so the input is a list of groups; one
/// group larger than the limit gets a shard of its own. Writes model.safetensors, or model-00001-of-0000N
/// .safetensors with model.safetensors.index.json ("metadata": {"total_size": N}, "weight_map" sorted by
/// name). `progress` (may be empty) is told the bytes of tensor data written so far. Returns the total bytes
/// of tensor data. Throws Error when the disk has too little room, before anything is written, and what
/// write_safetensors throws.
int64_t write_shards(const std::filesystem::path& folder, std::vector<std::vector<PlannedTensor>> groups,
                     int64_t max_bytes, const std::function<void(int64_t)>& progress);

}  // namespace nibble::io
