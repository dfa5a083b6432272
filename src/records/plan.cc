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
  check_keys(fields, {"name", "keep", "reason", "score"});
  Decision decision;
  decision.name = non_empty(fields, "name");
  decision.keep = fields.boolean("keep");
  decision.reason = fields.string("reason");
  decision.score = finite(fields, "score");
  return decision;
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

int64_t Plan::kept() const {
  return std::count_if(decisions.begin(), decisions.end(), [](const Decision& d) { return d.keep; });
}

io::Json to_json(const Plan& plan) {
  io::Json json = make_header(kKind, Plan::kVersion);
  json["family"] = plan.family;
  json["model"] = writable(plan.model);
  json["format"] = plan.format;
  json["policy"] = writable(plan.policy);
  json["budget"] = writable(plan.budget);
  json["measurements_digest"] = plan.measurements_digest;
  json["budget_bytes"] = plan.budget_bytes;
  json["bytes"] = plan.bytes;
  json["bytes_all4"] = plan.bytes_all4;
  json["bytes_all16"] = plan.bytes_all16;
  json["decisions"] = io::Json::array();
  for (const auto& decision : plan.decisions) {
    io::Json item = io::Json::object();
    item["name"] = decision.name;
    item["keep"] = decision.keep;
    item["reason"] = writable(decision.reason);
    item["score"] = writable(decision.score, decision.name, "score");
    json["decisions"].push_back(std::move(item));
  }
  return json;
}

Plan plan_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, kKind, Plan::kVersion,
               {"family", "model", "format", "policy", "budget", "measurements_digest", "budget_bytes", "bytes",
                "bytes_all4", "bytes_all16", "decisions"});
  Plan plan;
  plan.family = non_empty(fields, "family");
  plan.model = fields.string("model");
  plan.format = fields.string("format");
  if (plan.format != "nf4" && plan.format != "int8")
    fail("{}: \"format\" is \"{}\"; \"nf4\" and \"int8\" are known", what, printable(plan.format));
  plan.policy = non_empty(fields, "policy");
  plan.budget = fields.string("budget");
  plan.measurements_digest = fields.string("measurements_digest");
  if (!plan.measurements_digest.empty() && !is_sha256(plan.measurements_digest))
    fail("{}: \"measurements_digest\" is neither empty nor 64 lower-case hex digits", what);
  plan.budget_bytes = count(fields, "budget_bytes");
  plan.bytes = count(fields, "bytes");
  plan.bytes_all4 = count(fields, "bytes_all4");
  plan.bytes_all16 = count(fields, "bytes_all16");
  std::set<std::string> names;
  for (const auto& item : fields.array("decisions")) {
    const io::Fields element(item, fmt::format("{}: decisions[{}]", what, plan.decisions.size()));
    Decision decision = decision_from_json(element);
    if (!names.insert(decision.name).second)
      fail("{}: the name \"{}\" occurs twice", element.what(), printable(decision.name));
    plan.decisions.push_back(std::move(decision));
  }
  return plan;
}

Plan read_plan(const std::filesystem::path& path) {
  return plan_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
