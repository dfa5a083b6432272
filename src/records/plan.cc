#include "records/plan.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "plan";

Decision decision_from_json(const io::Fields& fields) {
  check_keys(fields, {"name", "keep", "rounding", "reason", "score"});
  Decision decision;
  decision.name = non_empty(fields, "name");
  decision.keep = fields.boolean("keep");
  decision.rounding = rounding_kind(fields, "rounding");
  decision.reason = fields.string("reason");
  decision.score = finite(fields, "score");
  return decision;
}

io::Json interval_to_json(const Interval& interval, std::string_view what) {
  return {{"mean", writable(interval.mean, what, "mean")},
          {"low", writable(interval.low, what, "low")},
          {"high", writable(interval.high, what, "high")}};
}

Interval interval_from_json(const io::Fields& fields) {
  check_keys(fields, {"mean", "low", "high"});
  return {kl_field(fields, "mean"), kl_field(fields, "low"), kl_field(fields, "high")};
}

io::Json run_to_json(const VerifiedRun& run) {
  io::Json json = io::Json::object();
  json["label"] = run.label;
  json["bytes"] = run.bytes;
  json["kept"] = run.kept;
  json["predicted"] = by_modality(run.predicted, run.label);
  for (const Modality m : kModalities)
    json["kl"][std::string(modality_name(m))] = interval_to_json(run.kl[static_cast<size_t>(m)], run.label);
  if (run.decided) json["decided"] = by_modality(*run.decided, run.label);
  if (run.typical) json["typical"] = by_modality(*run.typical, run.label);
  return json;
}

VerifiedRun run_from_json(const io::Fields& fields) {
  check_keys(fields, {"label", "bytes", "kept", "predicted", "kl", "decided", "typical"});
  VerifiedRun run;
  run.label = fields.string("label");
  run.bytes = count(fields, "bytes");
  run.kept = count(fields, "kept");
  run.predicted = by_modality_field(fields, "predicted");
  const io::Fields kl = fields.object("kl");
  check_keys(kl, {modality_name(Modality::vision), modality_name(Modality::text)});
  for (const Modality m : kModalities)
    run.kl[static_cast<size_t>(m)] = interval_from_json(kl.object(modality_name(m)));
  if (fields.has("decided")) run.decided = kl_by_modality_field(fields, "decided");
  if (fields.has("typical")) run.typical = kl_by_modality_field(fields, "typical");
  return run;
}

io::Json verification_to_json(const Verification& verification) {
  io::Json json = io::Json::object();
  json["data"] = writable(verification.data);
  for (const Modality m : kModalities)
    json["inputs"][std::string(modality_name(m))] = verification.inputs[static_cast<size_t>(m)];
  json["runs"] = io::Json::array();
  for (const VerifiedRun& run : verification.runs) json["runs"].push_back(run_to_json(run));
  json["chosen"] = verification.chosen;
  return json;
}

Verification verification_from_json(const io::Fields& fields) {
  check_keys(fields, {"data", "inputs", "runs", "chosen"});
  Verification out;
  out.data = strings_field(fields, "data");
  const io::Fields inputs = fields.object("inputs");
  check_keys(inputs, {modality_name(Modality::vision), modality_name(Modality::text)});
  for (const Modality m : kModalities) out.inputs[static_cast<size_t>(m)] = count(inputs, modality_name(m));
  for (const io::Json& item : fields.array("runs"))
    out.runs.push_back(
        run_from_json(io::Fields(item, fmt::format("{}: runs[{}]", fields.what(), out.runs.size()))));
  out.chosen = count(fields, "chosen");
  if (out.chosen >= std::ssize(out.runs))
    fail("{}: \"chosen\" is {}, but there are {} runs", fields.what(), out.chosen, out.runs.size());
  return out;
}

}  // namespace

bool ran_where_decided(const Verification& verification) {
  return std::any_of(verification.runs.begin(), verification.runs.end(),
                     [](const VerifiedRun& run) { return run.decided.has_value(); });
}

int64_t Plan::kept() const {
  return std::count_if(decisions.begin(), decisions.end(), [](const Decision& d) { return d.keep; });
}

void Plan::set_written(int64_t written, bool likely) {
  if (likely) bytes_all4 += written - bytes;
  bytes = written;
}

io::Json to_json(const Plan& plan) {
  io::Json json = make_header(kKind, Plan::kVersion);
  json["family"] = plan.family;
  json["model"] = writable(plan.model);
  if (!plan.weights.empty()) json["weights"] = plan.weights;
  json["format"] = plan.format;
  json["policy"] = writable(plan.policy);
  json["budget"] = writable(plan.budget);
  json["measurements_digest"] = plan.measurements_digest;
  json["budget_bytes"] = plan.budget_bytes;
  json["bytes"] = plan.bytes;
  json["bytes_all4"] = plan.bytes_all4;
  json["bytes_all16"] = plan.bytes_all16;
  json["fuse"] = plan.fuse;
  json["rounding"] = to_json(plan.rounding);
  json["data"] = writable(plan.data);
  json["window"] = plan.window;
  json["held_out"] = plan.held_out;
  json["compute"] = plan.compute;
  if (plan.predicted) json["predicted"] = by_modality(*plan.predicted, "plan");
  if (plan.verification) json["verification"] = verification_to_json(*plan.verification);
  json["curve"] = io::Json::array();
  for (const CurvePoint& point : plan.curve)
    json["curve"].push_back({{"bytes", point.bytes}, {"predicted", by_modality(point.predicted, "curve")}});
  json["decisions"] = io::Json::array();
  for (const auto& decision : plan.decisions) {
    io::Json item = io::Json::object();
    item["name"] = decision.name;
    item["keep"] = decision.keep;
    item["rounding"] = decision.rounding;
    item["reason"] = writable(decision.reason);
    item["score"] = writable(decision.score, decision.name, "score");
    json["decisions"].push_back(std::move(item));
  }
  return json;
}

Plan plan_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, kKind, Plan::kVersion, {"family",
                                               "model",
                                               "weights",
                                               "format",
                                               "policy",
                                               "budget",
                                               "measurements_digest",
                                               "budget_bytes",
                                               "bytes",
                                               "bytes_all4",
                                               "bytes_all16",
                                               "fuse",
                                               "rounding",
                                               "data",
                                               "window",
                                               "held_out",
                                               "compute",
                                               "predicted",
                                               "verification",
                                               "curve",
                                               "decisions"});
  Plan plan;
  plan.family = non_empty(fields, "family");
  plan.model = fields.string("model");
  if (fields.has("weights")) plan.weights = digest_field(fields, "weights");
  plan.format = fields.string("format");
  if (plan.format != "nf4" && plan.format != "int8")
    fail("{}: \"format\" is \"{}\"; \"nf4\" and \"int8\" are known", what, printable(plan.format));
  plan.policy = non_empty(fields, "policy");
  plan.budget = fields.string("budget");
  plan.measurements_digest = digest_field(fields, "measurements_digest");
  plan.budget_bytes = count(fields, "budget_bytes");
  plan.bytes = count(fields, "bytes");
  plan.bytes_all4 = count(fields, "bytes_all4");
  plan.bytes_all16 = count(fields, "bytes_all16");
  plan.fuse = fields.boolean("fuse");
  plan.rounding = rounding_field(fields, "rounding");
  plan.data = strings_field(fields, "data");
  plan.window = window_field(fields, "window", plan.rounding.plain());
  plan.held_out = fields.boolean("held_out");
  plan.compute = fields.string("compute");
  if (!plan.compute.empty()) compute_type(fields, "compute");
  if (fields.has("predicted")) plan.predicted = by_modality_field(fields, "predicted");
  if (fields.has("verification")) plan.verification = verification_from_json(fields.object("verification"));
  for (const io::Json& item : fields.array("curve")) {
    const io::Fields point(item, fmt::format("{}: curve[{}]", what, plan.curve.size()));
    check_keys(point, {"bytes", "predicted"});
    plan.curve.push_back({count(point, "bytes"), by_modality_field(point, "predicted")});
  }
  std::set<std::string> names;
  for (const auto& item : fields.array("decisions")) {
    const io::Fields element(item, fmt::format("{}: decisions[{}]", what, plan.decisions.size()));
    Decision decision = decision_from_json(element);
    if (!names.insert(decision.name).second)
      fail("{}: the name \"{}\" occurs twice", element.what(), printable(decision.name));
    if (decision.rounding != "plain" && decision.rounding != plan.rounding.kind)
      fail("{}: \"rounding\" is \"{}\", but the plan's is \"{}\"", element.what(), decision.rounding,
           plan.rounding.kind);
    plan.decisions.push_back(std::move(decision));
  }
  return plan;
}

Plan read_plan(const std::filesystem::path& path) {
  return plan_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
