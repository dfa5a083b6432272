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
#include "records/made.h"
#include "write/checkpoint.h"

namespace nibble::write {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kBatch = int64_t{4} << 20;

std::string digest_of(const io::TensorBytes& bytes) {
  Sha256 sha;
  std::vector<std::byte> buffer;
  for (int64_t at = 0; at < bytes.size(); at += std::ssize(buffer)) {
    buffer.resize(static_cast<size_t>(std::min(kBatch, bytes.size() - at)));
    bytes.read(at, buffer);
    sha.update(buffer);
  }
  return sha.hex();
}

/// What nibble.json says.
records::Made read_recorded(const io::Checkpoint& checkpoint) {
  const std::string path = (checkpoint.folder() / "nibble.json").string();
  const auto json = checkpoint.json("nibble.json");
  if (!json) fail("{}: is missing; nibble verifies what it has written itself", path);
  return records::made_from_json(*json, path);
}

/// Compares one checkpoint with what is known of it, and with its source.
class Verifier {
 public:
  Verifier(const model::Binding& written, const model::Binding* source)
      : written_(written), source_(source), recorded_(read_recorded(written.checkpoint())) {
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
    std::vector<std::string> digests(names.size());
    parallel_for(std::ssize(names), [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      digests[at] = digest_of(written_.checkpoint().bytes(names[at]));
    });
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
    std::vector<std::string> digests(names.size());
    parallel_for(std::ssize(names), [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      digests[at] = digest_of(source_->checkpoint().bytes(names[at]));
    });
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

  void check_strays() {
    for (const std::string& name : io::file_names(written_.checkpoint().folder()))
      if (name.ends_with(".safetensors") &&
          !files_.contains((written_.checkpoint().folder() / name).string()))
        side(name, "is no part of the checkpoint that was written, but some readers load it; move it away");
  }

  const model::Binding& written_;
  const model::Binding* source_;
  const records::Made recorded_;
  std::map<std::string, FileCheck> files_;  // by path
};

}  // namespace

Verification verify(const model::Binding& written, const model::Binding* source) {
  return Verifier(written, source).run();
}

}  // namespace nibble::write
