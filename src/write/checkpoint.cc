#include "write/checkpoint.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "write/layouts/bitsandbytes.h"
#include "write/skip_list.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

/// The linears that the plan keeps; checks that plan and source belong together.
std::vector<const model::Linear*> kept_linears(const model::Binding& source, const records::Plan& plan) {
  std::map<std::string, bool> keep;
  for (const records::Decision& d : plan.decisions) keep[d.name] = d.keep;
  std::vector<const model::Linear*> out;
  const auto linears = model::linears(source.spec());
  for (const model::Linear* l : linears) {
    const auto it = keep.find(l->name);
    if (it == keep.end())
      fail("the plan (made for {}) says nothing about {} of {}; make a plan for this model", plan.model,
           l->name, source.checkpoint().folder().string());
    if (it->second) out.push_back(l);
  }
  if (keep.size() != linears.size())
    fail("the plan (made for {}) decides on {} linears, but {} has {}; make a plan for this model",
         plan.model, keep.size(), source.checkpoint().folder().string(), linears.size());
  return out;
}

/// All tensors to be written, those of one linear together.
std::vector<std::vector<io::PlannedTensor>> plan_tensors(const model::Binding& source,
                                                         const std::vector<const model::Linear*>& kept,
                                                         const Options& options) {
  std::map<std::string, std::string> quantized;  // stored weight -> stored linear
  for (const model::Linear* l : model::linears(source.spec())) {
    if (std::find(kept.begin(), kept.end(), l) != kept.end()) continue;
    const std::string& stored = source.linear(*l).stored;
    quantized[stored + ".weight"] = stored;
  }
  const io::Checkpoint& checkpoint = source.checkpoint();
  Progress progress("encode", static_cast<int64_t>(checkpoint.tensors().size()), "tensors");
  std::vector<std::vector<io::PlannedTensor>> out;
  for (const auto& [name, info] : checkpoint.tensors()) {
    if (!options.allow_nonfinite) source.check_finite(name);
    const TensorView view = checkpoint.tensor(name);
    if (const auto it = quantized.find(name); it != quantized.end())
      out.push_back(bitsandbytes::tensors(it->second, view));
    else
      out.push_back({io::planned(name, view)});
    progress.advance();
  }
  return out;
}

void copy_side_file(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) fail("{}: cannot be copied to {}: {}", from.string(), to.string(), error.message());
}

io::Json nibble_json(const records::Plan& plan, const Options& options, int64_t tensor_bytes) {
  return {{"nibble", options.version},
          {"command", options.command},
          {"tensor_bytes", tensor_bytes},
          {"plan", records::to_json(plan)}};
}

}  // namespace

io::Json quantized_config(const model::Binding& source, const std::vector<const model::Linear*>& kept) {
  io::Json config = source.family().config_for_both(source.checkpoint().config());
  config.erase("quantization_config");
  if (kept.size() == model::linears(source.spec()).size()) return config;
  const auto list = skip_list(source.spec(), source.family(), kept);
  const auto wrong = check_skip_list(list, source.spec(), source.family(), kept);
  NIBBLE_CHECK(wrong.empty(), "skip list: {}", wrong.front());
  config["quantization_config"] = bitsandbytes::config_section(list);
  return config;
}

void check_output(const model::Binding& source, const fs::path& out, bool force) {
  std::error_code ignored;
  if (fs::equivalent(out, source.checkpoint().folder(), ignored))
    fail("{}: is the 16-bit checkpoint itself; choose another folder for -o", out.string());
  if (!force && fs::exists(fs::symlink_status(out, ignored)))
    fail("{}: exists already; choose another name for -o, or say --force to replace it", out.string());
}

Written write_checkpoint(const model::Binding& source, const records::Plan& plan, const fs::path& out,
                         const Options& options) {
  if (source.quantized() || source.checkpoint().config().contains("quantization_config"))
    fail("{}: is quantized already; quantize the 16-bit checkpoint that it was made of",
         source.checkpoint().folder().string());
  check_output(source, out, options.force);
  const auto kept = kept_linears(source, plan);
  io::OutputFolder folder(out, options.force);
  auto groups = plan_tensors(source, kept, options);
  int64_t total = 0;
  for (const auto& group : groups)
    for (const auto& t : group) total += TensorView{t.dtype, t.shape, nullptr}.bytes();
  Written written;
  {
    constexpr int64_t kMiB = 1 << 20;
    Progress progress("write", total / kMiB, "MiB");
    int64_t told = 0;
    written.tensor_bytes =
        io::write_shards(folder.path(), std::move(groups), options.max_shard_bytes, [&](int64_t bytes) {
          progress.advance(bytes / kMiB - told);
          told = bytes / kMiB;
        });
  }
  for (const fs::path& file : source.checkpoint().side_files())
    if (file.filename() != "nibble.json") copy_side_file(file, folder.path() / file.filename());
  io::write_file(folder.path() / "config.json", io::dump_json(quantized_config(source, kept)) + "\n");
  records::Plan final_plan = plan;
  final_plan.bytes = written.tensor_bytes;
  io::write_file(folder.path() / "nibble.json",
                 io::dump_json(nibble_json(final_plan, options, written.tensor_bytes)) + "\n");
  for (const auto& entry : fs::directory_iterator(folder.path())) written.files += entry.is_regular_file();
  folder.commit();
  return written;
}

}  // namespace nibble::write
