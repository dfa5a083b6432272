#include "records/evaluation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <span>

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "evaluation";

double same(double value) {
  return value;
}

/// exp, which JSON can hold.
double perplexity(double loss) {
  const double value = std::exp(loss);
  return std::isinf(value) ? std::numeric_limits<double>::max() : value;
}

double one(const SampleResult&) {
  return 1;
}

double positions_of(const SampleResult& sample) {
  return static_cast<double>(sample.positions);
}

/// One of the totals: finish(sum of weight * value / sum of share) over samples.
template <typename Totals>
struct Measure {
  std::string_view name;
  double (*weight)(const SampleResult&);
  double (*value)(const SampleResult&);
  double (*share)(const SampleResult&);
  Interval Totals::*total;
  double (*finish)(double) = same;
};

double loss_of(const SampleResult& sample) {
  return sample.loss;
}

double kl_of(const SampleResult& sample) {
  return sample.kl;
}

double agreement_of(const SampleResult& sample) {
  return sample.agreement;
}

constexpr std::array<Measure<AnswerTotals>, 4> kAnswerMeasures = {{
    {"exact", one, [](const SampleResult& s) { return s.exact ? 1.0 : 0.0; },
     [](const SampleResult& s) { return s.generated ? 1.0 : 0.0; }, &AnswerTotals::exact},
    {"loss", positions_of, loss_of, positions_of, &AnswerTotals::loss},
    {"kl", positions_of, kl_of, positions_of, &AnswerTotals::kl},
    {"agreement", positions_of, agreement_of, positions_of, &AnswerTotals::agreement},
}};

constexpr std::array<Measure<TextTotals>, 5> kTextMeasures = {{
    {"loss", positions_of, loss_of, positions_of, &TextTotals::loss},
    {"perplexity", positions_of, loss_of, positions_of, &TextTotals::perplexity, perplexity},
    {"loss_per_byte", positions_of, loss_of,
     [](const SampleResult& s) { return static_cast<double>(s.bytes); }, &TextTotals::loss_per_byte},
    {"kl", positions_of, kl_of, positions_of, &TextTotals::kl},
    {"agreement", positions_of, agreement_of, positions_of, &TextTotals::agreement},
}};

/// The two sums of a total over some samples.
struct Ratio {
  double sum = 0, share = 0;
  void add(const Ratio& other) {
    sum += other.sum;
    share += other.share;
  }
  double value() const { return share > 0 ? sum / share : 0; }
};

template <typename Totals, size_t N>
Totals totals_of(const std::vector<const SampleResult*>& samples,
                 const std::array<Measure<Totals>, N>& measures) {
  std::vector<std::array<Ratio, N>> ratios(samples.size());
  std::array<Ratio, N> all;
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t m = 0; m < N; ++m) {
      const SampleResult& sample = *samples[i];
      ratios[i][m] = {measures[m].weight(sample) * measures[m].value(sample), measures[m].share(sample)};
      all[m].add(ratios[i][m]);
    }
  std::array<std::vector<double>, N> resampled;
  std::mt19937_64 generator(kBootstrapSeed);
  for (int resample = 0; resample < kResamples; ++resample) {
    std::array<Ratio, N> drawn;
    for (size_t i = 0; i < samples.size(); ++i) {
      const auto& ratio = ratios[draw(generator, samples.size())];
      for (size_t m = 0; m < N; ++m) drawn[m].add(ratio[m]);
    }
    for (size_t m = 0; m < N; ++m)
      if (drawn[m].share > 0) resampled[m].push_back(drawn[m].value());
  }
  Totals out;
  for (size_t m = 0; m < N; ++m) {
    const double mean = all[m].share > 0 ? measures[m].finish(all[m].value()) : 0;
    Interval& total = out.*measures[m].total;
    total = {mean, mean, mean};
    if (resampled[m].empty() || !std::isfinite(mean)) continue;
    const auto [low, high] = interval_ends(resampled[m]);
    total.low = measures[m].finish(low);
    total.high = measures[m].finish(high);
  }
  return out;
}

io::Json sample_to_json(const SampleResult& sample) {
  io::Json json = io::Json::object();
  json["id"] = writable(sample.id);
  json["plain"] = sample.plain;
  json["modality"] = modality_name(sample.modality);
  json["bytes"] = sample.bytes;
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
  check_keys(fields, {"id", "plain", "modality", "bytes", "prompt", "expected", "output", "generated",
                      "exact", "positions", "loss", "kl", "agreement"});
  SampleResult sample;
  sample.id = fields.string("id");
  sample.plain = fields.boolean("plain");
  sample.modality = modality_field(fields, "modality");
  sample.bytes = count(fields, "bytes");
  sample.prompt = fields.string("prompt");
  sample.expected = fields.string("expected");
  sample.output = fields.string("output");
  sample.generated = fields.boolean("generated");
  sample.exact = fields.boolean("exact");
  if (sample.exact && !sample.generated)
    fail("{}: \"exact\" is true, but nothing was generated", fields.what());
  if (sample.plain && sample.generated)
    fail("{}: \"plain\" and \"generated\" are true, but plain text is only read", fields.what());
  if (sample.plain && sample.modality != Modality::text)
    fail("{}: \"plain\" is true and \"modality\" is \"vision\", but plain text has no pictures",
         fields.what());
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

template <typename Totals, size_t N>
io::Json totals_to_json(const Totals& totals, const std::array<Measure<Totals>, N>& measures) {
  io::Json json = io::Json::object();
  for (const auto& measure : measures)
    json[std::string(measure.name)] = interval_to_json(totals.*measure.total, measure.name);
  return json;
}

/// The totals under `key`, which must be there exactly when there are samples of their kind.
template <typename Totals, size_t N>
std::optional<Totals> totals_from_json(const io::Fields& record, std::string_view key, bool expected,
                                       const std::array<Measure<Totals>, N>& measures) {
  if (record.has(key) != expected)
    fail("{}: \"{}\" {}", record.what(), key,
         expected ? "is missing, but there are such samples" : "is there, but no such samples");
  if (!expected) return std::nullopt;
  const io::Fields fields = record.object(key);
  for (const auto& [name, value] : fields.json().items())
    if (std::none_of(measures.begin(), measures.end(), [&n = name](const auto& m) { return m.name == n; }))
      fail("{}: unknown field \"{}\"", fields.what(), printable(name));
  Totals out;
  for (const auto& measure : measures) out.*measure.total = interval_from_json(fields.object(measure.name));
  return out;
}

using Selected = bool (*)(const SampleResult&);

/// The totals of answers, each with the samples that it is of.
struct AnswerKind {
  std::string_view key;
  std::optional<AnswerTotals> Evaluation::*totals;
  Selected selected;
};

constexpr std::array<AnswerKind, 3> kAnswerKinds = {{
    {"answers", &Evaluation::answers, [](const SampleResult& s) { return !s.plain; }},
    {"picture_answers", &Evaluation::picture_answers,
     [](const SampleResult& s) { return !s.plain && s.modality == Modality::vision; }},
    {"prompt_answers", &Evaluation::prompt_answers,
     [](const SampleResult& s) { return !s.plain && s.modality == Modality::text; }},
}};

bool is_plain(const SampleResult& sample) {
  return sample.plain;
}

std::vector<const SampleResult*> select(const std::vector<SampleResult>& samples, Selected selected) {
  std::vector<const SampleResult*> out;
  for (const SampleResult& sample : samples)
    if (selected(sample)) out.push_back(&sample);
  return out;
}

template <typename Totals, size_t N>
std::optional<Totals> totals_where(const Evaluation& evaluation, Selected selected,
                                   const std::array<Measure<Totals>, N>& measures) {
  const auto samples = select(evaluation.samples, selected);
  if (samples.empty()) return std::nullopt;
  return totals_of(samples, measures);
}

}  // namespace

void summarize(Evaluation& evaluation) {
  for (const AnswerKind& kind : kAnswerKinds)
    evaluation.*kind.totals = totals_where(evaluation, kind.selected, kAnswerMeasures);
  evaluation.texts = totals_where(evaluation, is_plain, kTextMeasures);
}

io::Json to_json(const Evaluation& evaluation) {
  io::Json samples = io::Json::array();  // first, since an error that names a sample says more
  for (const auto& sample : evaluation.samples) samples.push_back(sample_to_json(sample));
  io::Json json = make_header(kKind, Evaluation::kVersion);
  json["model"] = writable(evaluation.model);
  json["against"] = writable(evaluation.against);
  json["compute"] = evaluation.compute;
  json["tensor_bytes"] = evaluation.tensor_bytes;
  for (const AnswerKind& kind : kAnswerKinds)
    if (const auto& totals = evaluation.*kind.totals)
      json[std::string(kind.key)] = totals_to_json(*totals, kAnswerMeasures);
  if (evaluation.texts) json["texts"] = totals_to_json(*evaluation.texts, kTextMeasures);
  json["samples"] = std::move(samples);
  return json;
}

Evaluation evaluation_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, kKind, Evaluation::kVersion,
               {"model", "against", "compute", "tensor_bytes", "answers", "picture_answers", "prompt_answers",
                "texts", "samples"});
  Evaluation evaluation;
  evaluation.model = fields.string("model");
  evaluation.against = fields.string("against");
  evaluation.compute = compute_type(fields, "compute");
  evaluation.tensor_bytes = count(fields, "tensor_bytes");
  for (const auto& item : fields.array("samples"))
    evaluation.samples.push_back(
        sample_from_json(io::Fields(item, fmt::format("{}: samples[{}]", what, evaluation.samples.size()))));
  for (const AnswerKind& kind : kAnswerKinds)
    evaluation.*kind.totals = totals_from_json(
        fields, kind.key, !select(evaluation.samples, kind.selected).empty(), kAnswerMeasures);
  evaluation.texts =
      totals_from_json(fields, "texts", !select(evaluation.samples, is_plain).empty(), kTextMeasures);
  return evaluation;
}

Evaluation read_evaluation(const std::filesystem::path& path) {
  return evaluation_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
