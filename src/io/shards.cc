#include <sys/statvfs.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "io/checkpoint.h"
#include "io/weight_files.h"

namespace nibble::io {
namespace {

using Shard = std::vector<PlannedTensor>;

int64_t sum(int64_t a, int64_t b) {
  const auto total = checked_add(a, b);
  NIBBLE_CHECK(total, "the tensors' bytes do not fit in 64 bits");
  return *total;
}

int64_t bytes_of(const std::vector<PlannedTensor>& tensors) {
  int64_t bytes = 0;
  for (const auto& t : tensors) bytes = sum(bytes, TensorView{t.dtype, t.shape, nullptr}.bytes());
  return bytes;
}

/// Fills shards one after another with whole groups.
std::vector<Shard> split(std::vector<std::vector<PlannedTensor>> groups, int64_t max_bytes) {
  std::vector<Shard> shards(1);
  int64_t filled = 0;
  for (auto& group : groups) {
    const int64_t bytes = bytes_of(group);
    if (!shards.back().empty() && sum(filled, bytes) > max_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    for (auto& tensor : group) shards.back().push_back(std::move(tensor));
  }
  if (shards.size() > 1 && shards.back().empty()) shards.pop_back();
  return shards;
}

/// What a tensor takes on the disk: nothing for a hole.
int64_t disk_bytes(const Shard& shard) {
  int64_t bytes = 0;
  for (const auto& t : shard)
    if (t.write) bytes = sum(bytes, TensorView{t.dtype, t.shape, nullptr}.bytes());
  return bytes;
}

/// Lets `progress` know of every piece that the tensor's writer gives; `done` outlives the writing.
void count_into(PlannedTensor& tensor, int64_t& done, const std::function<void(int64_t)>& progress) {
  if (!tensor.write) return;
  tensor.write = [write = std::move(tensor.write), &done, &progress](const PlannedTensor::Sink& sink) {
    write([&](std::span<const std::byte> bytes) {
      sink(bytes);
      done += static_cast<int64_t>(bytes.size());
      progress(done);
    });
  };
}

}  // namespace

void check_room(const std::filesystem::path& folder, int64_t bytes) {
  struct statvfs status {};
  if (statvfs(folder.c_str(), &status) != 0 || status.f_blocks == 0 || status.f_frsize == 0) return;
  const auto blocks = static_cast<uint64_t>(bytes) / status.f_frsize;
  if (blocks > status.f_bavail)
    fail("{}: the disk has {} free, and the checkpoint takes {}; make room or write elsewhere",
         folder.string(), bytes_text(static_cast<int64_t>(status.f_bavail * status.f_frsize)),
         bytes_text(bytes));
}

std::string shard_name(size_t i, size_t count) {
  return count == 1 ? kSingleFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
}

Json index_json(const std::map<std::string, std::string>& weight_map, int64_t total) {
  return {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
}

void write_index(const std::filesystem::path& folder, const std::map<std::string, std::string>& weight_map,
                 int64_t total) {
  write_file(folder / kIndexFile, dump_json(index_json(weight_map, total)) + "\n");
}

int64_t write_shards(const std::filesystem::path& folder, std::vector<std::vector<PlannedTensor>> groups,
                     int64_t max_bytes, const std::function<void(int64_t)>& progress) {
  NIBBLE_CHECK(max_bytes > 0, "shards of {} bytes", max_bytes);
  auto shards = split(std::move(groups), max_bytes);
  int64_t total = 0, done = 0, on_disk = 0;
  for (const auto& shard : shards) {
    total = sum(total, bytes_of(shard));
    on_disk = sum(on_disk, disk_bytes(shard));
  }
  check_room(folder, on_disk);
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    for (auto& tensor : shards[i]) {
      const bool is_new = weight_map.emplace(tensor.name, name).second;
      NIBBLE_CHECK(is_new, "tensor {} is planned twice", printable(tensor.name));
      if (progress) count_into(tensor, done, progress);
    }
    write_safetensors(folder / name, std::move(shards[i]));
  }
  if (shards.size() > 1) write_index(folder, weight_map, total);
  return total;
}

}  // namespace nibble::io
