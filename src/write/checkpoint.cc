#include "write/checkpoint.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "records/made.h"
#include "write/layouts/bitsandbytes.h"
#include "write/skip_list.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

/// The linears that stay as they are; checks that plan and source belong together. A weight that is not
/// finite cannot be rounded: where it is allowed, it stays, and the plan is told.
std::vector<const model::Linear*> kept_linears(const model::Binding& source, records::Plan& plan,
                                               bool allow_nonfinite) {
  std::map<std::string, records::Decision*> decisions;
  for (records::Decision& d : plan.decisions) decisions[d.name] = &d;
  std::vector<const model::Linear*> out;
  std::map<std::string, std::pair<bool, std::string>> groups;  // of each: the decision on its first member
  const auto linears = model::linears(source.spec());
  for (const model::Linear* l : linears) {
    const auto it = decisions.find(l->name);
    if (it == decisions.end())
      fail("the plan (made for {}) says nothing about {} of {}; make a plan for this model", plan.model,
           l->name, source.checkpoint().folder().string());
    records::Decision& decision = *it->second;
    const auto [first, fresh] = groups.try_emplace(l->group, decision.keep, l->name);
    if (plan.fuse && first->second.first != decision.keep)
      fail("the plan decides otherwise on {} than on {}, but serving engines fuse them; decide alike on both",
           l->name, first->second.second);
    if (!decision.keep && allow_nonfinite &&
        quant::find_nonfinite(source.checkpoint().tensor(source.linear(*l).stored + ".weight"))) {
      decision.keep = true;
      decision.reason = "holds NaN or infinity";
    }
    if (decision.keep) out.push_back(l);
  }
  if (plan.decisions.size() != linears.size())
    fail("the plan (made for {}) decides on {} linears, but {} has {}; make a plan for this model",
         plan.model, plan.decisions.size(), source.checkpoint().folder().string(), linears.size());
  return out;
}

/// All tensors to be written, those of one linear together.
std::vector<std::vector<io::PlannedTensor>> plan_tensors(const model::Binding& source,
                                                         const std::vector<const model::Linear*>& kept,
                                                         const records::Plan& plan, const Options& options) {
  std::map<std::string, bool> plain;  // of each linear: rounded plainly
  for (const records::Decision& d : plan.decisions) plain[d.name] = d.rounding == "plain";
  std::map<std::string, const model::Linear*> quantized;  // by stored weight
  for (const model::Linear* l : model::linears(source.spec())) {
    if (std::find(kept.begin(), kept.end(), l) != kept.end()) continue;
    quantized[source.linear(*l).stored + ".weight"] = l;
  }
  const io::Checkpoint& checkpoint = source.checkpoint();
  Progress progress("encode", static_cast<int64_t>(checkpoint.tensors().size()), "tensors");
  std::vector<std::vector<io::PlannedTensor>> out;
  for (const auto& [name, info] : checkpoint.tensors()) {
    if (!options.allow_nonfinite) source.check_finite(name);
    const TensorView view = checkpoint.tensor(name);
    const auto it = quantized.find(name);
    if (it == quantized.end()) {
      out.push_back({io::planned(name, view)});
      progress.advance();
      continue;
    }
    const std::string &linear = it->second->name, &stored = source.linear(*it->second).stored;
    if (plan.format == "int8")
      out.push_back(bitsandbytes::tensors8(
          stored, view, fmt::format("{}: tensor {}", checkpoint.file_of(name).string(), name)));
    else if (plain.at(linear))
      out.push_back(bitsandbytes::tensors(
          stored, [view] { return quant::encode4(view, quant::Format::nf4, true); }));
    else
      out.push_back(bitsandbytes::tensors(stored, [&options, linear] { return options.rounded(linear); }));
    progress.advance();
  }
  return out;
}

void copy_side_file(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) fail("{}: cannot be copied to {}: {}", from.string(), to.string(), error.message());
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

void check_job(const model::Binding& source, const fs::path& out, bool force) {
  const io::Json& config = source.checkpoint().config();
  const bool marked = config.contains("quantization_config") && !config["quantization_config"].is_null();
  if (source.quantized() || marked)
    fail("{}: is quantized already; quantize the 16-bit checkpoint that it was made of",
         source.checkpoint().folder().string());
  std::vector<fs::path> files = source.checkpoint().files();
  files.push_back(source.checkpoint().folder());
  const fs::path target = fs::weakly_canonical(out);
  for (const fs::path& file : files) {
    const fs::path real = fs::weakly_canonical(file);
    if (std::mismatch(target.begin(), target.end(), real.begin(), real.end()).first == target.end())
      fail("{}: is or holds the 16-bit checkpoint itself ({}); choose another folder for -o", out.string(),
           real.string());
  }
  if (!force && fs::exists(fs::symlink_status(out)))
    fail("{}: exists already; choose another name for -o, or say --force to replace it", out.string());
  const io::OutputFolder probe(out, force);
}

int64_t write_checkpoint(const model::Binding& source, const records::Plan& plan, const fs::path& out,
                         const Options& options) {
  check_job(source, out, options.force);
  records::Plan final_plan = plan;
  const auto kept = kept_linears(source, final_plan, options.allow_nonfinite);
  const bool needs_codes = std::any_of(final_plan.decisions.begin(), final_plan.decisions.end(),
                                       [](const auto& d) { return !d.keep && d.rounding != "plain"; });
  NIBBLE_CHECK(options.rounded || !needs_codes, "nothing gives the plan's {} codes", plan.rounding.kind);
  io::OutputFolder folder(out, options.force);
  auto groups = plan_tensors(source, kept, final_plan, options);
  int64_t total = 0;
  for (const auto& group : groups)
    for (const auto& t : group) total += TensorView{t.dtype, t.shape, nullptr}.bytes();
  if (plan.budget_bytes > 0 && total > plan.budget_bytes)
    fail(
        "the plan would write {} bytes of tensor data for {}, above its budget of {}; it was made for "
        "another model, or "
        "edited: make it again",
        total, source.checkpoint().folder().string(), plan.budget_bytes);
  {
    constexpr int64_t kMiB = 1 << 20;
    Progress progress("write", total / kMiB, "MiB");
    int64_t told = 0;
    io::write_shards(folder.path(), std::move(groups), options.max_shard_bytes, [&](int64_t bytes) {
      progress.advance(bytes / kMiB - told);
      told = bytes / kMiB;
    });
  }
  for (const fs::path& file : source.checkpoint().side_files())
    if (file.filename() != "nibble.json") copy_side_file(file, folder.path() / file.filename());
  io::write_file(folder.path() / "config.json", io::dump_json(quantized_config(source, kept, plan.format)) + "\n");
  final_plan.bytes = total;
  io::write_file(folder.path() / "nibble.json",
                 io::dump_json(records::to_json(records::Made{
                     .version = options.version, .command = options.command, .tensor_bytes = total, .plan = final_plan})) +
                     "\n");
  folder.commit();
  return total;
}

}  // namespace nibble::write
