#include "records/evaluation.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "base/error.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "evaluation";
constexpr int kResamples = 2000;
constexpr uint64_t kSeed = 20240607;
constexpr double kLow = 0.025, kHigh = 0.975;

/// One of the four totals: per sample a weight and a value; the total is sum(weight * value) / sum(weight).
struct Measure {
  double (*weight)(const SampleResult&);
  double (*value)(const SampleResult&);
  Interval Evaluation::*total;
};

double positions_of(const SampleResult& sample) {
  return static_cast<double>(sample.positions);
}

constexpr std::array<Measure, 4> kMeasures = {{
    {[](const SampleResult& s) { return s.generated ? 1.0 : 0.0; },
     [](const SampleResult& s) { return s.exact ? 1.0 : 0.0; }, &Evaluation::exact},
    {positions_of, [](const SampleResult& s) { return s.loss; }, &Evaluation::loss},
    {positions_of, [](const SampleResult& s) { return s.kl; }, &Evaluation::kl},
    {positions_of, [](const SampleResult& s) { return s.agreement; }, &Evaluation::agreement},
}};

/// sum(weight * value) and sum(weight) of one measure over some samples.
struct Ratio {
  double sum = 0, weight = 0;
  void add(const Measure& measure, const SampleResult& sample) {
    const double w = measure.weight(sample);
    sum += w * measure.value(sample);
    weight += w;
  }
};

/// A number in [0, n): the high word of the product, the same on every platform.
size_t draw(std::mt19937_64& generator, size_t n) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<size_t>((static_cast<Wide>(generator()) * n) >> 64);
}

/// The value at `share` of the sorted values, linear between neighbours.
double quantile(std::span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

io::Json sample_to_json(const SampleResult& sample) {
  io::Json json = io::Json::object();
  json["id"] = writable(sample.id);
  json["prompt"] = writable(sample.prompt);
  json["expected"] = writable(sample.expected);
  json["output"] = writable(sample.output);
  json["generated"] = sample.generated;
  json["exact"] = sample.exact;
  json["positions"] = sample.positions;
  json["loss"] = writable(sample.loss, sample.id, "loss");
  json["kl"] = writable(sample.kl, sample.id, "kl");
  json["agreement"] = writable(sample.agreement, sample.id, "agreement");
  return json;
}

SampleResult sample_from_json(const io::Fields& fields) {
  check_keys(fields, {"id", "prompt", "expected", "output", "generated", "exact", "positions", "loss", "kl",
                      "agreement"});
  SampleResult sample;
  sample.id = fields.string("id");
  sample.prompt = fields.string("prompt");
  sample.expected = fields.string("expected");
  sample.output = fields.string("output");
  sample.generated = fields.boolean("generated");
  sample.exact = fields.boolean("exact");
  if (sample.exact && !sample.generated)
    fail("{}: \"exact\" is true, but nothing was generated", fields.what());
  sample.positions = count(fields, "positions");
  sample.loss = finite(fields, "loss");
  sample.kl = finite(fields, "kl");
  sample.agreement = share(fields, "agreement");
  return sample;
}

io::Json interval_to_json(const Interval& interval, std::string_view name) {
  io::Json json = io::Json::object();
  json["mean"] = writable(interval.mean, name, "mean");
  json["low"] = writable(interval.low, name, "low");
  json["high"] = writable(interval.high, name, "high");
  return json;
}

Interval interval_from_json(const io::Fields& fields) {
  check_keys(fields, {"mean", "low", "high"});
  Interval interval{finite(fields, "mean"), finite(fields, "low"), finite(fields, "high")};
  if (interval.low > interval.high) fail("{}: \"low\" is above \"high\"", fields.what());
  return interval;
}

}  // namespace

void summarize(Evaluation& evaluation) {
  const auto& samples = evaluation.samples;
  for (const auto& measure : kMeasures) {
    Ratio all;
    for (const auto& sample : samples) all.add(measure, sample);
    const double mean = all.weight > 0 ? all.sum / all.weight : 0;
    evaluation.*measure.total = {mean, mean, mean};
  }
  if (samples.empty()) return;

  std::array<std::vector<double>, kMeasures.size()> totals;
  std::mt19937_64 generator(kSeed);
  for (int resample = 0; resample < kResamples; ++resample) {
    std::array<Ratio, kMeasures.size()> ratios;
    for (size_t i = 0; i < samples.size(); ++i) {
      const SampleResult& sample = samples[draw(generator, samples.size())];
      for (size_t m = 0; m < kMeasures.size(); ++m) ratios[m].add(kMeasures[m], sample);
    }
    for (size_t m = 0; m < kMeasures.size(); ++m)
      if (ratios[m].weight > 0) totals[m].push_back(ratios[m].sum / ratios[m].weight);
  }
  for (size_t m = 0; m < kMeasures.size(); ++m) {
    Interval& total = evaluation.*kMeasures[m].total;
    if (totals[m].empty() || !std::isfinite(total.mean)) continue;
    std::sort(totals[m].begin(), totals[m].end());
    total.low = quantile(totals[m], kLow);
    total.high = quantile(totals[m], kHigh);
  }
}

io::Json to_json(const Evaluation& evaluation) {
  io::Json samples = io::Json::array();  // first, since an error that names a sample says more
  for (const auto& sample : evaluation.samples) samples.push_back(sample_to_json(sample));
  io::Json json = make_header(kKind, Evaluation::kVersion);
  json["model"] = writable(evaluation.model);
  json["against"] = writable(evaluation.against);
  json["compute"] = evaluation.compute;
  json["tensor_bytes"] = evaluation.tensor_bytes;
  json["exact"] = interval_to_json(evaluation.exact, "exact");
  json["loss"] = interval_to_json(evaluation.loss, "loss");
  json["kl"] = interval_to_json(evaluation.kl, "kl");
  json["agreement"] = interval_to_json(evaluation.agreement, "agreement");
  json["samples"] = std::move(samples);
  return json;
}

Evaluation evaluation_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(
      fields, kKind, Evaluation::kVersion,
      {"model", "against", "compute", "tensor_bytes", "exact", "loss", "kl", "agreement", "samples"});
  Evaluation evaluation;
  evaluation.model = fields.string("model");
  evaluation.against = fields.string("against");
  evaluation.compute = compute_type(fields, "compute");
  evaluation.tensor_bytes = count(fields, "tensor_bytes");
  evaluation.exact = interval_from_json(fields.object("exact"));
  evaluation.loss = interval_from_json(fields.object("loss"));
  evaluation.kl = interval_from_json(fields.object("kl"));
  evaluation.agreement = interval_from_json(fields.object("agreement"));
  for (const auto& item : fields.array("samples"))
    evaluation.samples.push_back(
        sample_from_json(io::Fields(item, fmt::format("{}: samples[{}]", what, evaluation.samples.size()))));
  return evaluation;
}

Evaluation read_evaluation(const std::filesystem::path& path) {
  return evaluation_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
