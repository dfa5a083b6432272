#include "records/comparison.h"

#include "base/error.h"
#include "records/fields.h"

namespace nibble::records {
namespace {

io::Json spread_to_json(const Spread& spread) {
  io::Json json = {{"seeds", spread.seeds}};
  for (const KlKind kind : kKlKinds)
    if (const auto& range = spread.kl[static_cast<size_t>(kind)])
      json[std::string(kl_kind_name(kind))] = {{"low", writable(range->low, "spread", "low")},
                                               {"high", writable(range->high, "spread", "high")}};
  return json;
}

Spread spread_from_json(const io::Fields& fields) {
  check_keys(fields, {"seeds", "pictures", "prompts", "texts"});
  Spread spread;
  spread.seeds = count(fields, "seeds");
  for (const KlKind kind : kKlKinds) {
    if (!fields.has(kl_kind_name(kind))) continue;
    const io::Fields range = fields.object(kl_kind_name(kind));
    check_keys(range, {"low", "high"});
    const Spread::Range read{finite(range, "low"), finite(range, "high")};
    if (read.low > read.high) fail("{}: \"low\" is above \"high\"", range.what());
    spread.kl[static_cast<size_t>(kind)] = read;
  }
  return spread;
}

io::Json model_to_json(const ComparedModel& model) {
  io::Json json = io::Json::object();
  json["description"] = writable(model.description);
  json["result"] = writable(model.result);
  json["unchanged"] = model.unchanged;
  json["bytes"] = model.bytes;
  if (model.evaluation) json["evaluation"] = to_json(*model.evaluation);
  if (model.choices) json["multiple_choice"] = to_json(*model.choices);
  if (model.policy.empty()) return json;
  json["policy"] = writable(model.policy);
  json["rounding"] = model.rounding;
  json["over_budget"] = model.over_budget;
  if (model.plan) json["plan"] = to_json(*model.plan);
  if (model.spread) json["spread"] = spread_to_json(*model.spread);
  return json;
}

ComparedModel model_from_json(const io::Fields& fields) {
  check_keys(fields, {"description", "result", "unchanged", "bytes", "evaluation", "multiple_choice",
                      "policy", "rounding", "over_budget", "plan", "spread"});
  ComparedModel model;
  model.description = fields.string("description");
  model.result = fields.string("result");
  model.unchanged = fields.string("unchanged");
  model.bytes = count(fields, "bytes");
  const io::Json& json = fields.json();
  if (fields.has("evaluation")) model.evaluation = evaluation_from_json(json.at("evaluation"), fields.what());
  if (fields.has("multiple_choice"))
    model.choices = multiple_choice_from_json(json.at("multiple_choice"), fields.what());
  if (!fields.has("policy")) return model;
  model.policy = non_empty(fields, "policy");
  model.rounding = fields.string("rounding");
  model.over_budget = fields.boolean("over_budget");
  if (fields.has("plan")) model.plan = plan_from_json(json.at("plan"), fields.what());
  if (fields.has("spread")) model.spread = spread_from_json(fields.object("spread"));
  return model;
}

}  // namespace

std::string_view kl_kind_name(KlKind kind) {
  constexpr std::array<std::string_view, 3> names = {"pictures", "prompts", "texts"};
  return names[static_cast<size_t>(kind)];
}

std::optional<Interval> kl_of(const Evaluation& evaluation, KlKind kind) {
  if (evaluation.against.empty()) return std::nullopt;
  const auto of = [](const auto& totals) {
    return totals ? std::optional<Interval>(totals->kl) : std::nullopt;
  };
  if (kind == KlKind::pictures) return of(evaluation.picture_answers);
  return kind == KlKind::prompts ? of(evaluation.prompt_answers) : of(evaluation.texts);
}

io::Json to_json(std::span<const ComparedModel> models) {
  io::Json out = io::Json::array();
  for (const ComparedModel& model : models) out.push_back(model_to_json(model));
  return out;
}

std::vector<ComparedModel> comparison_from_json(const io::Json& json, const std::string& what) {
  if (!json.is_array()) fail("{}: is no list of models; give what nibble compare --json printed", what);
  std::vector<ComparedModel> out;
  for (const io::Json& item : json)
    out.push_back(model_from_json(io::Fields(item, fmt::format("{}: [{}]", what, out.size()))));
  return out;
}

std::vector<ComparedModel> read_comparison(const std::filesystem::path& path) {
  return comparison_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
