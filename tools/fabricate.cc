// Makes a checkpoint of full size with random weights from a config.json, for trying out what only large
// files show.
//   fabricate CONFIG.json -o DIR [--seed N] [--sparse] [--tokenizer DIR]
#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/threads.h"
#include "io/checkpoint.h"
#include "model/config.h"
#include "model/family.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kShardBytes = 5'000'000'000;  // as published
constexpr double kDeviation = 0.02;
constexpr float kOutlier = 8;           // factor of a few input channels of each linear
constexpr int64_t kOutlierEvery = 512;  // channels among which one is such
constexpr int64_t kPiece = 1 << 20;     // elements made at once
constexpr int64_t kSmall = 1 << 20;     // elements of a tensor that --sparse writes all the same

/// A number for each counter (splitmix64's finalizer).
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t hash(std::string_view text, uint64_t seed) {
  uint64_t h = mix(seed);
  for (const char c : text) h = mix(h ^ static_cast<unsigned char>(c));
  return h;
}

/// The quantiles (i + 1/2) / 2^16 of the normal distribution, times `deviation`, by bisection.
std::vector<float> normal_table(double deviation) {
  std::vector<float> out(1 << 16);
  parallel_ranges(std::ssize(out), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double p = (static_cast<double>(i) + 0.5) / 65536;
      double low = -6, high = 6;
      for (int step = 0; step < 50; ++step) {
        const double middle = (low + high) / 2;
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
      }
      out[static_cast<size_t>(i)] = static_cast<float>(deviation * (low + high) / 2);
    }
  });
  return out;
}

/// The tensors of a model, with what they hold.
class Maker {
 public:
  Maker(const model::Spec& spec, DType dtype, uint64_t seed, bool sparse)
      : tensors_(model::tensor_table(spec)), dtype_(dtype), seed_(seed), sparse_(sparse) {}

  std::vector<std::vector<io::PlannedTensor>> groups() const {
    std::vector<std::vector<io::PlannedTensor>> out;
    for (const model::TensorSpec& tensor : tensors_) {
      io::PlannedTensor planned{.name = tensor.name, .dtype = dtype_, .shape = tensor.shape, .write = {}};
      const int64_t count = TensorView{dtype_, tensor.shape, nullptr}.count();
      if (!sparse_ || count < kSmall)
        planned.write = [this, &tensor, count](const io::PlannedTensor::Sink& sink) {
          make(tensor, count, sink);
        };
      out.push_back({std::move(planned)});
    }
    return out;
  }

 private:
  /// Norms are ones, other vectors zeros, everything else is random.
  void make(const model::TensorSpec& tensor, int64_t count, const io::PlannedTensor::Sink& sink) const {
    const uint64_t key = hash(tensor.name, seed_);
    const int64_t width = tensor.shape.empty() ? 1 : tensor.shape.back();
    const bool vector = tensor.shape.size() < 2, norm = vector && tensor.name.ends_with("weight");
    std::vector<float> values(static_cast<size_t>(std::min(kPiece, count)));
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_size(dtype_)));
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      const int64_t n = std::min(kPiece, count - begin);
      parallel_ranges(n, 1 << 16, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          values[static_cast<size_t>(i)] =
              vector ? (norm ? 1.0f : 0.0f) : element(key, begin + i, tensor.linear != nullptr, width);
        from_float(std::span(values).subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)),
                   dtype_, bytes.data() + first * dtype_size(dtype_));
      });
      sink(std::span(bytes).first(static_cast<size_t>(n * dtype_size(dtype_))));
    }
  }

  float element(uint64_t key, int64_t i, bool linear, int64_t width) const {
    const auto at = static_cast<uint64_t>(i);
    const float value = normal_[mix(key + at / 4) >> (at % 4 * 16) & 0xffff];
    if (!linear) return value;
    // One channel in each run of kOutlierEvery, at a place of its own in every run.
    const int64_t channel = i % width;
    const auto chosen = static_cast<int64_t>(mix(key ^ static_cast<uint64_t>(channel / kOutlierEvery)) %
                                             static_cast<uint64_t>(kOutlierEvery));
    return channel % kOutlierEvery == chosen ? value * kOutlier : value;
  }

  std::vector<model::TensorSpec> tensors_;
  DType dtype_;
  uint64_t seed_;
  bool sparse_;
  std::vector<float> normal_ = normal_table(kDeviation);
};

void fabricate(const std::string& config_path, const std::string& out, uint64_t seed, bool sparse,
               const std::string& tokenizer) {
  const io::Json json = io::read_json(config_path);
  const io::Fields config(json, config_path);
  const model::Spec spec = model::find_family(config).describe(config);
  io::OutputFolder folder(out, false);
  const Maker maker(spec, model::config_dtype(config), seed, sparse);
  io::write_shards(folder.path(), maker.groups(), kShardBytes, {});
  if (!tokenizer.empty())
    for (const auto& entry : fs::directory_iterator(tokenizer))
      if (const std::string name = entry.path().filename().string();
          name.find("token") != std::string::npos || name.find("processor") != std::string::npos ||
          name.find("template") != std::string::npos || name.find("generation") != std::string::npos)
        fs::copy_file(entry.path(), folder.path() / name);
  io::write_file(folder.path() / "config.json", io::dump_json(json) + "\n");
  folder.commit();
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  CLI::App app("Makes a checkpoint of full size with random weights from a config.json");
  std::string config, out, tokenizer;
  uint64_t seed = 0;
  bool sparse = false;
  app.add_option("CONFIG", config, "config.json of the model")->required();
  app.add_option("-o,--out", out, "Folder to write")->required();
  app.add_option("--seed", seed, "Of the weights");
  app.add_flag("--sparse", sparse, "Leave large tensors zero, as holes that take no room on the disk");
  app.add_option("--tokenizer", tokenizer, "Folder whose tokenizer and processor files are taken over");
  CLI11_PARSE(app, argc, argv);
  try {
    nibble::fabricate(config, out, seed, sparse, tokenizer);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fabricate: %s\n", e.what());
    return 2;
  }
}
