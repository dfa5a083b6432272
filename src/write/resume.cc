#include "write/resume.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/file.h"
#include "io/tensor_bytes.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

constexpr int kStateVersion = 3;

io::Json to_json(const FinishedShard& shard) {
  return {{"items", shard.items},
          {"size", shard.stamp.size},
          {"changed", shard.stamp.changed},
          {"digests", shard.written.digests},
          {"errors", shard.written.errors}};
}

FinishedShard shard_from_json(const io::Json& json) {
  FinishedShard shard;
  shard.items = json.at("items").get<size_t>();
  shard.stamp = {json.at("size").get<int64_t>(), json.at("changed").get<int64_t>()};
  shard.written.digests = json.at("digests").get<std::map<std::string, std::string>>();
  shard.written.errors = json.at("errors").get<std::map<std::string, double>>();
  return shard;
}

/// True when the file is there and holds what was written.
bool unchanged(const fs::path& path, const FinishedShard& shard) {
  std::error_code error;
  if (fs::symlink_status(path, error).type() != fs::file_type::regular) return false;
  try {
    const io::SafetensorsFile file(path);
    const auto& digests = shard.written.digests;
    if (file.stamp() != shard.stamp || file.tensors().size() != digests.size()) return false;
    const std::vector<std::pair<std::string, io::TensorInfo>> tensors(file.tensors().begin(),
                                                                      file.tensors().end());
    std::vector<uint8_t> same(tensors.size());
    parallel_for(std::ssize(tensors), [&](int64_t i) {
      const auto& [name, info] = tensors[static_cast<size_t>(i)];
      const auto it = digests.find(name);
      same[static_cast<size_t>(i)] =
          it != digests.end() && io::TensorBytes(path, shard.stamp, info).sha256() == it->second;
    });
    return std::find(same.begin(), same.end(), 0) == same.end();
  } catch (const Error&) {
    return false;
  }
}

/// Gives shards their first names back, should a run have been killed while it gave them their last.
void unnumber(const fs::path& folder, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    std::error_code ignored;
    fs::rename(folder / io::shard_name(i, count), folder / unnumbered_shard(i), ignored);
  }
}

/// In words, why the shards of a state cannot be used; "" when they can.
std::string objection(const fs::path& folder, const JobState& state, const io::JobKey& key,
                      const std::vector<Item>& items,
                      const std::function<std::string(const Item&)>& codes_digest) {
  const std::string difference = state.key.difference(key);
  if (!difference.empty()) return difference;
  size_t next = 0;
  for (size_t i = 0; i < state.shards.size(); ++i) {
    const FinishedShard& shard = state.shards[i];
    if (!unchanged(folder / unnumbered_shard(i), shard)) return "files that were changed since";
    if (shard.items > items.size() - next) return "another plan";
    for (const size_t end = next + shard.items; next < end; ++next) {
      const Item& item = items[next];
      if (item.kind != Item::Kind::rounded4) continue;
      const auto it = shard.written.digests.find(item.source);
      if (it == shard.written.digests.end() || it->second != codes_digest(item))
        return "other calibration inputs";
    }
  }
  return "";
}

}  // namespace

io::JobKey job_key(const model::Binding& source, const records::Plan& plan, const std::string& version,
                   int64_t max_shard_bytes, bool allow_nonfinite) {
  // How the plan's files are spelled changes no weight.
  records::Plan bare = plan;
  bare.model.clear();
  bare.data.clear();
  bare.measurements_digest.clear();
  return {{{"another version of nibble", version},
           {"another 16-bit checkpoint, or one that was changed since",
            source.checkpoint().identity() + source.fingerprint()},
           {"another plan", sha256(io::dump_json(records::to_json(bare)))},
           {"other options", fmt::format("{} {}", max_shard_bytes, allow_nonfinite)}}};
}

std::string state_text(const JobState& state) {
  io::Json shards = io::Json::array();
  for (const FinishedShard& shard : state.shards) shards.push_back(to_json(shard));
  io::Json json = {{"state", kStateVersion}, {"key", io::to_json(state.key)}, {"shards", shards}};
  json["sha256"] = sha256(io::dump_json(json));
  return io::dump_json(json);
}

std::optional<JobState> parse_state(const std::string& text) {
  try {
    io::Json json = io::parse_json(text, "state");
    if (json.at("state") != kStateVersion) return std::nullopt;
    const std::string digest = json.at("sha256").get<std::string>();
    json.erase("sha256");
    if (sha256(io::dump_json(json)) != digest) return std::nullopt;
    JobState state;
    state.key = io::job_key_from_json(json.at("key"));
    for (const io::Json& shard : json.at("shards")) state.shards.push_back(shard_from_json(shard));
    return state;
  } catch (const Error&) {
    return std::nullopt;
  } catch (const io::Json::exception&) {
    return std::nullopt;
  }
}

std::string unnumbered_shard(size_t i) {
  return fmt::format("shard-{:05}.safetensors", i + 1);
}

std::vector<FinishedShard> take_over(io::OutputFolder& folder, const io::JobKey& key,
                                     const std::vector<Item>& items,
                                     const std::function<std::string(const Item&)>& codes_digest,
                                     const std::function<void(const std::string&)>& told) {
  const auto text = folder.state();
  if (!text) return {};
  std::optional<JobState> state = parse_state(*text);
  std::string why = "a state that cannot be read";
  if (state) {
    unnumber(folder.path(), state->shards.size());
    why = objection(folder.path(), *state, key, items, codes_digest);
  }
  if (!why.empty()) {
    folder.begin_anew(why, told);
    return {};
  }
  std::set<std::string> names;
  for (size_t i = 0; i < state->shards.size(); ++i) names.insert(unnumbered_shard(i));
  folder.keep_only(names);
  told(fmt::format("{}: going on after {} finished files of an interrupted run", folder.path().string(),
                   state->shards.size()));
  return std::move(state->shards);
}

}  // namespace nibble::write
