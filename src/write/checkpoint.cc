#include "write/checkpoint.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "base/text.h"
#include "records/fields.h"
#include "records/made.h"
#include "write/items.h"
#include "write/layouts/bitsandbytes.h"
#include "write/own_files.h"
#include "write/resume.h"
#include "write/skip_list.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

/// Returns the SHA-256 of the copy, which is that of the file.
std::string copy_side_file(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) fail("{}: cannot be copied to {}: {}", from.string(), to.string(), error.message());
  std::string digest = io::sha256_of_file(to);
  if (io::sha256_of_file(from) != digest)
    fail("{}: was changed while it was copied; run again when it is complete", from.string());
  return digest;
}

/// The shards of a job, made one after the other.
class Shards {
 public:
  Shards(const model::Binding& source, const records::Plan& plan, std::vector<Item> items,
         io::OutputFolder& folder, const Options& options)
      : items_(std::move(items)),
        folder_(folder),
        options_(options),
        state_{job_key(source, plan, options.version + " " + options.build, options.max_shard_bytes,
                       options.allow_nonfinite),
               {}},
        progress_("write", bytes() / kMiB, "MiB"),
        stream_(source, {.allow_nonfinite = options.allow_nonfinite,
                         .rounded = options.rounded,
                         .progress = [this](int64_t n) { advance(n); }}) {}

  /// Bytes of tensor data as far as they are known.
  int64_t bytes() const {
    int64_t sum = 0;
    for (const Item& item : items_) sum += item.bytes();
    return sum;
  }
  /// The least that it can come to.
  int64_t least_bytes() const {
    const auto open = std::count_if(items_.begin(), items_.end(), [](const Item& i) { return !i.exact; });
    return bytes() - open * bitsandbytes::kStateSlack;
  }

  /// Goes on where an interrupted run stopped, and writes what is missing.
  void write() {
    const auto codes_digest = [this](const Item& item) {
      const quant::Packed4 packed = options_.rounded(item.linear);
      Sha256 sha;
      sha.update(std::as_bytes(std::span(packed.codes)));
      return sha.hex();
    };
    const auto told = [this](const std::string& line) {
      if (options_.tell) options_.tell(line);
    };
    for (FinishedShard& shard : take_over(folder_, state_.key, items_, codes_digest, told))
      skip(std::move(shard));
    io::check_room(folder_.path(), bytes() - done_);
    while (next_ < items_.size()) {
      const size_t end =
          shard_end(items_, next_, options_.max_shard_bytes, [this](Item& i) { stream_.look(i); });
      // What a first try leaves open is known after it.
      if (!write_shard(end)) NIBBLE_CHECK(write_shard(end), "a header that changes its length");
    }
  }

  /// Gives the shards their names, and writes the index. Returns what is known of all tensors.
  Written name_all() {
    std::map<std::string, std::string> weight_map;
    Written all;
    for (size_t i = 0; i < state_.shards.size(); ++i) {
      const std::string name = io::shard_name(i, state_.shards.size());
      io::rename_new(folder_.path() / unnumbered_shard(i), folder_.path() / name);
      Written& written = state_.shards[i].written;
      for (const auto& [tensor, digest] : written.digests) weight_map[tensor] = name;
      all.digests.merge(written.digests);
      all.errors.merge(written.errors);
    }
    if (state_.shards.size() > 1) io::write_index(folder_.path(), weight_map, bytes());
    return all;
  }

  size_t finished() const { return state_.shards.size(); }

 private:
  static constexpr int64_t kMiB = 1 << 20;

  void advance(int64_t n) {
    progress_.advance((done_ + n) / kMiB - done_ / kMiB);
    done_ += n;
  }

  /// Items of a shard that is there are exact now: its state says how long the tensors are.
  void skip(FinishedShard shard) {
    const io::SafetensorsFile file(folder_.path() / unnumbered_shard(state_.shards.size()));
    for (const size_t end = next_ + shard.items; next_ < end; ++next_) {
      Item& item = items_[next_];
      for (io::TensorPlan& t : item.tensors) t.shape = file.tensors().at(t.name).shape;
      item.exact = true;
      advance(item.bytes());
    }
    state_.shards.push_back(std::move(shard));
  }

  /// False when the file must be made again.
  bool write_shard(size_t end) {
    std::vector<io::TensorPlan> tensors;
    for (size_t i = next_; i < end; ++i)
      tensors.insert(tensors.end(), items_[i].tensors.begin(), items_[i].tensors.end());
    const fs::path path = folder_.path() / unnumbered_shard(state_.shards.size());
    io::ShardFile file(path, std::move(tensors));
    const int64_t before = done_;
    for (const size_t i : in_file_order(file, end)) stream_.write(items_[i], file);
    FinishedShard shard{.items = end - next_, .stamp = {}, .written = stream_.take()};
    if (!file.commit()) {
      done_ = before;
      return false;
    }
    int64_t size = 0;
    shard.stamp = io::stamp_of(io::open_regular(path, &size), path);
    state_.shards.push_back(std::move(shard));
    folder_.save_state(state_text(state_));
    next_ = end;
    return true;
  }

  /// The items up to `end`: first those whose place is known from the beginning, then the others as they
  /// stand.
  std::vector<size_t> in_file_order(const io::ShardFile& file, size_t end) const {
    size_t first_open = std::numeric_limits<size_t>::max();
    for (size_t i = next_; i < end; ++i)
      if (!items_[i].exact) first_open = std::min(first_open, file.rank(items_[i].tensors.back().name));
    std::vector<std::pair<size_t, size_t>> order;  // rank of the first tensor behind, or 0; item
    for (size_t i = next_; i < end; ++i) {
      size_t rank = std::numeric_limits<size_t>::max();
      for (const io::TensorPlan& t : items_[i].tensors)
        if (file.rank(t.name) >= first_open) rank = std::min(rank, file.rank(t.name));
      order.emplace_back(rank == std::numeric_limits<size_t>::max() ? 0 : rank, i);
    }
    std::sort(order.begin(), order.end());
    std::vector<size_t> out;
    for (const auto& [rank, i] : order) out.push_back(i);
    return out;
  }

  std::vector<Item> items_;
  io::OutputFolder& folder_;
  const Options& options_;
  JobState state_;
  Progress progress_;
  Stream stream_;
  size_t next_ = 0;   // item to be written
  int64_t done_ = 0;  // bytes of tensor data
};

/// Throws Error for a side file that cannot be read, or whose name nibble.json cannot hold.
void check_sides(const io::Checkpoint& source) {
  for (const fs::path& file : source.side_files()) {
    if (records::writable(file.filename().string()) != file.filename().string())
      fail("{}: its name is not UTF-8; rename it, or move it away", printable(file.string()));
    int64_t size = 0;
    (void)io::open_regular(file, &size);
  }
}

void check_budget(int64_t bytes, const records::Plan& plan, const model::Binding& source) {
  if (plan.budget_bytes > 0 && bytes > plan.budget_bytes)
    fail(
        "the plan would write {} bytes of tensor data for {}, above its budget of {}; it was made for "
        "another "
        "model, or edited: make it again",
        bytes, source.checkpoint().folder().string(), plan.budget_bytes);
}

/// Everything of the folder but the weights and nibble.json. Returns what Made::files is to hold.
std::map<std::string, std::string> write_sides(const model::Binding& source,
                                               const std::vector<const model::Linear*>& kept,
                                               const records::Plan& plan, const fs::path& folder) {
  std::map<std::string, std::string> digests;
  for (const fs::path& file : source.checkpoint().side_files())
    if (const std::string name = file.filename().string(); name != "nibble.json")
      digests[name] = copy_side_file(file, folder / name);
  digests.erase("README.md");
  io::write_file(folder / "config.json", io::dump_json(quantized_config(source, kept, plan.format)) + "\n");
  digests["config.json"] = io::sha256_of_file(folder / "config.json");
  return digests;
}

}  // namespace

io::Json quantized_config(const model::Binding& source, const std::vector<const model::Linear*>& kept,
                          const std::string& format) {
  io::Json config = source.family().config_for_both(source.checkpoint().config());
  config.erase("quantization_config");
  if (kept.size() == model::linears(source.spec()).size()) return config;
  const auto list = skip_list(source.spec(), source.family(), kept);
  const auto wrong = check_skip_list(list, source.spec(), source.family(), kept);
  NIBBLE_CHECK(wrong.empty(), "skip list: {}", wrong.front());
  config["quantization_config"] =
      format == "int8" ? bitsandbytes::config_section8(list) : bitsandbytes::config_section(list);
  return config;
}

io::Json config_of_plan(const model::Binding& source, const records::Plan& plan) {
  records::Plan copy = plan;
  return quantized_config(source, kept_linears(source, copy, false), plan.format);
}

io::OutputFolder open_output(const model::Binding& source, const fs::path& out, bool force) {
  if (out.empty()) fail("-o is empty; name the folder to write");
  const io::Json& config = source.checkpoint().config();
  const bool marked = config.contains("quantization_config") && !config["quantization_config"].is_null();
  if (source.quantized() || marked)
    fail("{}: is quantized already; quantize the 16-bit checkpoint that it was made of",
         source.checkpoint().folder().string());
  check_sides(source.checkpoint());
  std::vector<fs::path> files = source.checkpoint().files();
  files.push_back(source.checkpoint().folder());
  const fs::path target = fs::weakly_canonical(out);
  for (const fs::path& file : files) {
    const fs::path real = fs::weakly_canonical(file);
    if (std::mismatch(target.begin(), target.end(), real.begin(), real.end()).first == target.end())
      fail("{}: is or holds the 16-bit checkpoint itself ({}); choose another folder for -o", out.string(),
           real.string());
  }
  const auto leftover = [&](const fs::path& folder) { check_own_leftovers(folder, source.checkpoint()); };
  return io::OutputFolder(out, force, io::OutputFolder::Leftovers::keep, {check_own_output, leftover});
}

int64_t write_checkpoint(const model::Binding& source, const records::Plan& plan, const fs::path& out,
                         const Options& options) {
  io::OutputFolder folder = open_output(source, out, options.force);
  return write_checkpoint(source, plan, folder, options);
}

int64_t write_checkpoint(const model::Binding& source, const records::Plan& plan, io::OutputFolder& folder,
                         const Options& options) {
  records::Plan final_plan = plan;
  const auto kept = kept_linears(source, final_plan, options.allow_nonfinite);
  const bool needs_codes = std::any_of(final_plan.decisions.begin(), final_plan.decisions.end(),
                                       [](const auto& d) { return !d.keep && d.rounding != "plain"; });
  NIBBLE_CHECK(options.rounded || !needs_codes, "nothing gives the plan's {} codes", plan.rounding.kind);
  Shards shards(source, final_plan, plan_items(source, kept, final_plan), folder, options);
  check_budget(shards.least_bytes(), plan, source);
  try {
    shards.write();
    final_plan.set_written(shards.bytes(), options.likely_sizes);
    check_budget(final_plan.bytes, plan, source);
    Written written = shards.name_all();
    auto sides = write_sides(source, kept, final_plan, folder.path());
    io::write_file(folder.path() / "nibble.json",
                   io::dump_json(records::to_json(records::Made{.version = options.version,
                                                                .command = options.command,
                                                                .tensor_bytes = final_plan.bytes,
                                                                .plan = final_plan,
                                                                .weight_errors = std::move(written.errors),
                                                                .sha256 = std::move(written.digests),
                                                                .files = std::move(sides)})) +
                       "\n");
    folder.commit();
  } catch (const Error& error) {
    std::error_code ignored;
    if (shards.finished() == 0 || !fs::exists(folder.path(), ignored)) throw;
    fail("{}; {} finished files stay in {}, where the same command goes on", error.what(), shards.finished(),
         folder.path().string());
  }
  return final_plan.bytes;
}

}  // namespace nibble::write
