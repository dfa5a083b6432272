#include "write/verify.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <system_error>

#include "base/error.h"
#include "base/sha256.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/file.h"
#include "io/weight_files.h"
#include "quant/int8.h"
#include "quant/pieces.h"
#include "records/fields.h"
#include "records/made.h"
#include "write/checkpoint.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

constexpr const char* kRecord = "nibble.json";

io::Json read_record(const io::Checkpoint& checkpoint) {
  const auto json = checkpoint.json(kRecord);
  if (!json)
    fail("{}: is missing; nibble verifies what it has written itself",
         (checkpoint.folder() / kRecord).string());
  return *json;
}

/// Files and folders that no reader of checkpoints looks at: hidden ones, pages, pictures, and other records
/// of nibble.
bool is_bystander(const fs::path& path) {
  const std::string name = path.filename().string(), ending = path.extension().string();
  if (name.starts_with('.')) return true;
  for (const char* e : {".md", ".html", ".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf"})
    if (ending == e) return true;
  std::error_code ignored;
  return ending == ".json" && fs::is_regular_file(path, ignored) && !records::kind_of_file(path).empty();
}

std::vector<std::string> digests_of(const io::Checkpoint& checkpoint, const std::vector<std::string>& names) {
  std::vector<std::string> digests(names.size());
  parallel_for(std::ssize(names), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    digests[at] = checkpoint.bytes(names[at]).sha256();
  });
  return digests;
}

/// Compares one checkpoint with what is known of it, and with its source.
class Comparison {
 public:
  Comparison(const model::Binding& written, const model::Binding* source)
      : written_(written),
        source_(source),
        record_(read_record(written.checkpoint())),
        recorded_(records::made_from_json(record_, (written.checkpoint().folder() / kRecord).string())) {
    if (source && source->family().model_type != written.family().model_type)
      fail("{}: is a {}, but {} a {}; give the checkpoint that it was made of",
           source->checkpoint().folder().string(), source->family().title,
           written.checkpoint().folder().string(), written.family().title);
    if (source && source->quantized())
      fail("{}: is quantized itself; give the 16-bit checkpoint", source->checkpoint().folder().string());
  }

  Verification run() {
    for (const auto& path : written_.checkpoint().files())
      files_[path.string()].file = path.filename().string();
    check_digests();
    if (source_) check_linears();
    if (source_) check_kept();
    check_config();
    if (recorded_.files) check_sides(*recorded_.files);
    check_record();
    check_containers();
    check_strays();
    Verification out{.files = {}, .sides_recorded = recorded_.files.has_value()};
    for (auto& [path, check] : files_) out.files.push_back(std::move(check));
    return out;
  }

 private:
  FileCheck& file_of(const std::string& tensor) {
    return files_.at(written_.checkpoint().file_of(tensor).string());
  }

  void problem(const std::string& tensor, const std::string& what) {
    file_of(tensor).problems.push_back(
        fmt::format("{}: tensor {} {}", written_.checkpoint().file_of(tensor).string(), tensor, what));
  }

  void check_digests() {
    std::vector<std::string> names;
    for (const auto& [name, info] : written_.checkpoint().tensors()) names.push_back(name);
    const auto digests = digests_of(written_.checkpoint(), names);
    for (size_t i = 0; i < names.size(); ++i) {
      const io::TensorInfo& info = written_.checkpoint().tensors().at(names[i]);
      FileCheck& file = file_of(names[i]);
      ++file.tensors;
      file.bytes += info.end - info.begin;
      const auto it = recorded_.sha256.find(names[i]);
      if (it == recorded_.sha256.end())
        problem(names[i], "is not in nibble.json");
      else if (it->second != digests[i])
        problem(names[i], "is not what was written (its SHA-256 differs from nibble.json)");
    }
    for (const auto& [name, digest] : recorded_.sha256)
      if (!written_.checkpoint().has(name))
        fail("{}: tensor {} of nibble.json is in no file; get the files again",
             written_.checkpoint().folder().string(), printable(name));
  }

  void check_linears() {
    for (const model::Linear* l : model::linears(written_.spec())) {
      const model::BoundLinear& bound = written_.linear(*l);
      if (bound.storage == model::Storage::plain) continue;
      const std::string weight = bound.stored + ".weight";
      ++file_of(weight).rounded;
      if (bound.storage == model::Storage::int8)
        check8(*l, weight);
      else
        check4(*l, weight);
      source_->drop(*l);
      written_.drop(*l);
    }
  }

  void check4(const model::Linear& linear, const std::string& weight) {
    const auto recorded = recorded_.weight_errors.find(linear.name);
    if (recorded == recorded_.weight_errors.end())
      return problem(weight, "has no weight error in nibble.json");
    const std::string stored = source_->linear(linear).stored + ".weight";
    const io::TensorInfo& info = source_->checkpoint().tensors().at(stored);
    const quant::Packed4 packed = written_.packed(linear);
    if (packed.shape != info.shape || packed.block != quant::kBlock)
      return problem(weight, fmt::format("decodes to shape {}, but the source has {}",
                                         shape_text(packed.shape), shape_text(info.shape)));
    const io::TensorBytes bytes = source_->checkpoint().bytes(stored);
    const int64_t piece = quant::kPiece * dtype_size(info.dtype);
    quant::PieceError sums(packed);
    parallel_for(sums.pieces(), [&](int64_t i) {
      std::vector<std::byte> buffer(static_cast<size_t>(std::min(piece, bytes.size() - i * piece)));
      bytes.read(i * piece, buffer);
      sums.add(i, info.dtype, buffer.data());
    });
    const double error = sums.error().relative;
    FileCheck& file = file_of(weight);
    file.largest_error = std::max(file.largest_error, error);
    if (!(error <= recorded->second))
      problem(
          weight,
          fmt::format("decodes with weight error {:.6g} against the source, above the {:.6g} of nibble.json",
                      error, recorded->second));
  }

  void check8(const model::Linear& linear, const std::string& weight) {
    const quant::Packed8 packed = written_.packed8(linear);
    Tensor buffer;
    const quant::Packed8 expected = quant::encode8(source_->weight(linear, buffer));
    if (packed.codes != expected.codes || packed.scb != expected.scb)
      problem(weight, "is not what the source rounds to in 8 bits");
  }

  /// Tensors that are no part of a quantized linear are those of the source, which has no others.
  void check_kept() {
    std::vector<std::string> names;
    for (const auto& [name, info] : source_->checkpoint().tensors()) {
      const bool there = written_.checkpoint().has(name);
      if (!there)
        fail("{}: tensor {} of the source is missing", written_.checkpoint().folder().string(),
             printable(name));
      if (written_.checkpoint().tensors().at(name).dtype == info.dtype) names.push_back(name);
    }
    const auto digests = digests_of(source_->checkpoint(), names);
    for (size_t i = 0; i < names.size(); ++i) {
      ++file_of(names[i]).kept;
      const auto it = recorded_.sha256.find(names[i]);
      if (it != recorded_.sha256.end() && it->second != digests[i]) problem(names[i], "is not the source's");
    }
  }

  /// The entry of a file beside the weights; `problem` is what is wrong with it, if anything.
  void side(const std::string& name, const std::string& problem) {
    const fs::path path = written_.checkpoint().folder() / name;
    FileCheck& check = files_[path.string()];
    check.file = name;
    std::error_code none;
    const auto bytes = fs::file_size(path, none);
    check.bytes = none ? 0 : static_cast<int64_t>(bytes);
    if (!problem.empty()) check.problems.push_back(fmt::format("{}: {}", printable(path.string()), problem));
  }

  void check_sides(const std::map<std::string, std::string>& digests) {
    for (const auto& [name, digest] : digests) {
      const fs::path path = written_.checkpoint().folder() / name;
      std::error_code ignored;
      if (!fs::is_regular_file(path, ignored))
        side(name, "is missing, but was written with the checkpoint; get it again");
      else if (io::sha256_of_file(path) != digest)
        side(name, "is not what was written (its SHA-256 differs from nibble.json)");
      else
        side(name, "");
    }
  }

  /// As the record has them: where weights are not finite, members of a group may differ, which kept_linears
  /// refuses.
  std::vector<const model::Linear*> kept_by_plan() const {
    std::map<std::string, bool> keep;
    for (const records::Decision& d : recorded_.plan.decisions) keep[d.name] = d.keep;
    std::vector<const model::Linear*> out;
    for (const model::Linear* l : model::linears(written_.spec())) {
      const auto it = keep.find(l->name);
      if (it == keep.end())
        fail("{}: its plan says nothing about {}; get the file again",
             (written_.checkpoint().folder() / "nibble.json").string(), l->name);
      if (it->second) out.push_back(l);
    }
    return out;
  }

  /// Readers go by quantization_config: it must be the one that belongs to the plan.
  void check_config() {
    constexpr const char* kKey = "quantization_config";
    const io::Json expected =
        quantized_config(written_, kept_by_plan(), recorded_.plan.format).value(kKey, io::Json::object());
    const io::Json found = written_.checkpoint().config().value(kKey, io::Json::object());
    std::set<std::string> keys, differ;
    for (const io::Json* json : {&expected, &found})
      for (const auto& [key, value] : json->items()) keys.insert(key);
    for (const std::string& key : keys)
      if (!expected.contains(key) || !found.contains(key) || expected[key] != found[key])
        differ.insert(printable(key));
    side("config.json",
         differ.empty() ? ""
                        : fmt::format("{} is not what the plan in nibble.json gives ({}); get the file again",
                                      kKey, fmt::join(differ, ", ")));
  }

  void check_record() {
    side(kRecord, records::is_whole(record_)
                      ? ""
                      : "is not what was written (it differs from its own digest); get it again");
  }

  /// What holds the tensors and is in no digest of theirs: the files' names and metadata, and the index.
  void check_containers() {
    const auto paths = written_.checkpoint().files();
    const auto metadata = written_.checkpoint().metadata();
    int64_t total = 0;
    std::map<std::string, std::string> weight_map;
    for (const auto& [name, info] : written_.checkpoint().tensors()) {
      total += info.end - info.begin;
      weight_map[name] = written_.checkpoint().file_of(name).filename().string();
    }
    for (size_t i = 0; i < paths.size(); ++i) {
      std::vector<std::string>& problems = files_.at(paths[i].string()).problems;
      if (const std::string name = io::shard_name(i, paths.size()); paths[i].filename() != name)
        problems.push_back(
            fmt::format("{}: was written as {}; rename it", printable(paths[i].string()), name));
      if (metadata[i] != std::map<std::string, std::string>{{"format", "pt"}})
        problems.push_back(fmt::format("{}: its metadata are not what was written; get it again",
                                       printable(paths[i].string())));
    }
    if (const auto index = written_.checkpoint().json(io::kIndexFile))
      side(io::kIndexFile, paths.size() > 1 && *index == io::index_json(weight_map, total)
                               ? ""
                               : "is not what belongs to these files; get it again");
  }

  /// What was added: readers look for files by name (adapters, templates, weights in other formats, code). Of
  /// a record that does not name the files, safetensors alone.
  void check_strays() {
    std::error_code error;
    fs::directory_iterator entries(written_.checkpoint().folder(), error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error))
      if (const fs::path& path = entries->path(); !files_.contains(path.string()) && !is_bystander(path) &&
                                                  (recorded_.files || path.extension() == ".safetensors"))
        side(path.filename().string(),
             "is no part of what was written, and readers may go by it; move it away");
    if (error)
      fail("{}: cannot read the folder: {}", written_.checkpoint().folder().string(), error.message());
  }

  const model::Binding& written_;
  const model::Binding* source_;
  const io::Json record_;
  const records::Made recorded_;
  std::map<std::string, FileCheck> files_;  // by path
};

}  // namespace

Verification verify(const model::Binding& written, const model::Binding* source) {
  return Comparison(written, source).run();
}

}  // namespace nibble::write
