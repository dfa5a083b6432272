#include "records/measurements.h"

#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "records/fields.h"
#include "records/groups.h"

namespace nibble::records {
namespace {

constexpr std::string_view kKind = "measurements";

size_t index_of(Modality modality) {
  return static_cast<size_t>(modality);
}

io::Json activation_to_json(const std::array<ActivationError, 2>& activation, const std::string& name) {
  io::Json json = io::Json::object();
  for (const Modality modality : kModalities) {
    const ActivationError& error = activation[index_of(modality)];
    json[std::string(modality_name(modality))] = {{"rows", error.rows},
                                                  {"noise", writable(error.noise, name, "noise")},
                                                  {"signal", writable(error.signal, name, "signal")}};
  }
  return json;
}

io::Json errors_to_json(const LinearErrors& errors) {
  io::Json json = io::Json::object();
  json["name"] = errors.name;
  json["weight"] = writable(errors.weight, errors.name, "weight");
  json["largest_block"] = writable(errors.largest_block, errors.name, "largest_block");
  json["activation"] = activation_to_json(errors.activation, errors.name);
  if (errors.rounded)
    json["rounded"] = {{"bytes4", errors.rounded->bytes4},
                       {"weight", writable(errors.rounded->weight, errors.name, "weight")},
                       {"activation", activation_to_json(errors.rounded->activation, errors.name)}};
  if (errors.slices.empty()) return json;
  json["slices"] = io::Json::array();
  for (const SliceErrors& slice : errors.slices)
    json["slices"].push_back({{"role", role_name(slice.role)},
                              {"weight", writable(slice.weight, errors.name, "weight")},
                              {"activation", activation_to_json(slice.activation, errors.name)}});
  return json;
}

std::array<ActivationError, 2> activation_from_json(const io::Fields& activation) {
  check_keys(activation, {modality_name(Modality::vision), modality_name(Modality::text)});
  std::array<ActivationError, 2> out;
  for (const Modality modality : kModalities) {
    const io::Fields part = activation.object(modality_name(modality));
    check_keys(part, {"rows", "noise", "signal"});
    ActivationError& error = out[index_of(modality)];
    error.rows = count(part, "rows");
    error.noise = non_negative(part, "noise");
    error.signal = non_negative(part, "signal");
    if (error.rows == 0 && (error.noise != 0 || error.signal != 0))
      fail("{}: \"noise\" and \"signal\" of 0 rows must be 0", part.what());
  }
  return out;
}

LinearErrors errors_from_json(const io::Fields& fields, const LinearRecord& linear) {
  check_keys(fields, {"name", "weight", "largest_block", "activation", "rounded", "slices"});
  LinearErrors errors;
  errors.name = non_empty(fields, "name");
  errors.weight = non_negative(fields, "weight");
  errors.largest_block = non_negative(fields, "largest_block");
  errors.activation = activation_from_json(fields.object("activation"));
  if (fields.has("rounded")) {
    const io::Fields rounded = fields.object("rounded");
    check_keys(rounded, {"bytes4", "weight", "activation"});
    errors.rounded = {.bytes4 = bytes4_field(rounded, "bytes4", linear.bytes16),
                      .weight = non_negative(rounded, "weight"),
                      .activation = activation_from_json(rounded.object("activation"))};
  }
  if (!fields.has("slices")) return errors;
  for (const io::Json& item : fields.array("slices")) {
    const io::Fields slice(item, fmt::format("{}: slices[{}]", fields.what(), errors.slices.size()));
    check_keys(slice, {"role", "weight", "activation"});
    errors.slices.push_back({.role = role_field(slice, "role"),
                             .weight = non_negative(slice, "weight"),
                             .activation = activation_from_json(slice.object("activation"))});
  }
  return errors;
}

std::vector<MeasuredInput> inputs_from_json(const io::Fields& fields) {
  std::vector<MeasuredInput> out;
  for (const io::Json& item : fields.array("inputs")) {
    const io::Fields input(item, fmt::format("{}: inputs[{}]", fields.what(), out.size()));
    check_keys(input, {"id", "modality", "positions"});
    out.push_back({.id = input.string("id"),
                   .modality = modality_field(input, "modality"),
                   .positions = positive(input, "positions")});
  }
  return out;
}

/// The fields "rounding" and "kl" of a run, and that its groups are of the inventory.
template <typename Run>
void read_run(const io::Fields& fields, const std::vector<std::string>& names,
              const std::set<std::string>& groups, const Measurements& measurements, Run& run) {
  for (const std::string& name : names)
    if (!groups.contains(name)) fail("{}: the inventory has no group \"{}\"", fields.what(), printable(name));
  run.rounding = rounding_kind(fields, "rounding");
  if (run.rounding != "plain" && run.rounding != measurements.rounding.kind)
    fail("{}: \"rounding\" is \"{}\", but the measurements were made with \"{}\"", fields.what(),
         run.rounding, measurements.rounding.kind);
  for (const io::Json& value : fields.array("kl")) {
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= kLargestKl))
      fail("{}: \"kl\" holds something that is no number from 0 to {}", fields.what(), kLargestKl);
    run.kl.push_back(value.get<double>());
  }
  if (run.kl.size() != measurements.inputs.size())
    fail("{}: \"kl\" has {} entries for {} inputs", fields.what(), run.kl.size(), measurements.inputs.size());
}

void read_runs(const io::Fields& fields, Measurements& measurements) {
  std::set<std::string> groups;
  for (const Group& group : group_linears(measurements.inventory, measurements.fuse))
    groups.insert(group.name);
  std::set<std::pair<std::string, std::string>> seen;
  for (const io::Json& item : fields.array("solo")) {
    const io::Fields run(item, fmt::format("{}: solo[{}]", fields.what(), measurements.solo.size()));
    check_keys(run, {"group", "rounding", "kl"});
    SoloRun solo{.group = non_empty(run, "group"), .rounding = {}, .kl = {}};
    read_run(run, {solo.group}, groups, measurements, solo);
    if (!seen.emplace(solo.group, solo.rounding).second)
      fail("{}: \"{}\" with {} rounding occurs twice", run.what(), printable(solo.group), solo.rounding);
    measurements.solo.push_back(std::move(solo));
  }
  if (!fields.has("joint")) return;
  std::set<std::string> joined;
  for (const io::Json& item : fields.array("joint")) {
    const io::Fields run(item, fmt::format("{}: joint[{}]", fields.what(), measurements.joint.size()));
    check_keys(run, {"groups", "rounding", "kl"});
    JointRun joint{.groups = strings_field(run, "groups"), .rounding = {}, .kl = {}};
    read_run(run, joint.groups, groups, measurements, joint);
    if (joint.groups.size() < 2) fail("{}: \"groups\" holds fewer than two", run.what());
    for (const std::string& group : joint.groups)
      if (!joined.insert(group).second) fail("{}: \"{}\" is in two joint runs", run.what(), printable(group));
    measurements.joint.push_back(std::move(joint));
  }
}

}  // namespace

double mean_kl(const Measurements& measurements, std::span<const double> kl, Modality modality) {
  NIBBLE_CHECK(kl.size() == measurements.inputs.size());
  double sum = 0, positions = 0;
  for (size_t i = 0; i < kl.size(); ++i) {
    const MeasuredInput& input = measurements.inputs[i];
    if (input.modality != modality) continue;
    sum += kl[i] * static_cast<double>(input.positions);
    positions += static_cast<double>(input.positions);
  }
  return positions > 0 ? sum / positions : 0;
}

double typical_kl(std::span<const MeasuredInput> inputs, std::span<const double> kl, Modality modality) {
  double sum = 0, positions = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].modality != modality) continue;
    const auto weight = static_cast<double>(inputs[i].positions);
    sum += std::cbrt(kl[i]) * weight;
    positions += weight;
  }
  const double root = positions > 0 ? sum / positions : 0;
  return root * root * root;
}

double ActivationError::relative() const {
  if (rows == 0 || noise == 0) return 0;
  if (signal == 0) return std::numeric_limits<double>::infinity();
  return std::sqrt(noise / signal);
}

io::Json to_json(const Measurements& measurements) {
  io::Json json = make_header(kKind, Measurements::kVersion);
  json["data"] = writable(measurements.data);
  json["samples"] = measurements.samples;
  for (const Modality modality : kModalities)
    json["rows"][std::string(modality_name(modality))] = measurements.rows[index_of(modality)];
  json["compute"] = measurements.compute;
  json["window"] = measurements.window;
  json["rounding"] = to_json(measurements.rounding);
  json["fuse"] = measurements.fuse;
  json["effort"] = measurements.effort;
  json["inventory"] = to_json(measurements.inventory);
  json["errors"] = io::Json::array();
  for (const auto& errors : measurements.errors) json["errors"].push_back(errors_to_json(errors));
  json["inputs"] = io::Json::array();
  for (const MeasuredInput& input : measurements.inputs)
    json["inputs"].push_back({{"id", writable(input.id)},
                              {"modality", modality_name(input.modality)},
                              {"positions", input.positions}});
  if (measurements.noise) json["noise"] = by_modality(*measurements.noise, "measurements");
  const auto kl_of = [](const auto& run, const std::string& name) {
    io::Json kl = io::Json::array();
    for (const double value : run.kl) kl.push_back(writable(value, name, "kl"));
    return kl;
  };
  json["solo"] = io::Json::array();
  for (const SoloRun& run : measurements.solo)
    json["solo"].push_back({{"group", run.group}, {"rounding", run.rounding}, {"kl", kl_of(run, run.group)}});
  for (const JointRun& run : measurements.joint)
    json["joint"].push_back(
        {{"groups", run.groups}, {"rounding", run.rounding}, {"kl", kl_of(run, run.groups.front())}});
  return json;
}

Measurements measurements_from_json(const io::Json& json, const std::string& what) {
  const io::Fields fields(json, what);
  check_record(fields, kKind, Measurements::kVersion,
               {"data", "samples", "rows", "compute", "window", "rounding", "fuse", "effort", "inventory",
                "errors", "inputs", "noise", "solo", "joint"});
  Measurements measurements;
  measurements.data = strings_field(fields, "data");
  measurements.samples = count(fields, "samples");
  const io::Fields rows = fields.object("rows");
  check_keys(rows, {modality_name(Modality::vision), modality_name(Modality::text)});
  for (const Modality modality : kModalities)
    measurements.rows[index_of(modality)] = count(rows, modality_name(modality));
  measurements.compute = compute_type(fields, "compute");
  measurements.window = window_field(fields, "window", measurements.data.empty());
  measurements.rounding = rounding_field(fields, "rounding");
  measurements.fuse = fields.boolean("fuse");
  measurements.effort = fields.string("effort");
  if (measurements.effort != "none" && measurements.effort != "auto" && measurements.effort != "full")
    fail("{}: \"effort\" is \"{}\"; \"none\", \"auto\" and \"full\" are known", what,
         printable(measurements.effort));
  const io::Fields inventory = fields.object("inventory");
  measurements.inventory = inventory_from_json(inventory.json(), inventory.what());

  const auto& linears = measurements.inventory.linears;
  const io::Json& list = fields.array("errors");
  if (list.size() != linears.size())
    fail("{}: \"errors\" has {} entries, but the inventory has {} linears", what, list.size(),
         linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    const io::Fields element(list[i], fmt::format("{}: errors[{}]", what, i));
    LinearErrors errors = errors_from_json(element, linears[i]);
    if (errors.name != linears[i].name)
      fail("{}: \"name\" is \"{}\", but the inventory has \"{}\" there", element.what(),
           printable(errors.name), printable(linears[i].name));
    if (errors.rounded.has_value() == measurements.rounding.plain())
      fail("{}: \"rounded\" {}, but the measurements' rounding is \"{}\"", element.what(),
           errors.rounded ? "is there" : "is missing", measurements.rounding.kind);
    measurements.errors.push_back(std::move(errors));
  }
  measurements.inputs = inputs_from_json(fields);
  if (!measurements.inputs.empty() && std::ssize(measurements.inputs) != measurements.samples)
    fail("{}: \"samples\" is {}, but \"inputs\" lists {}", what, measurements.samples,
         measurements.inputs.size());
  if (fields.has("noise")) measurements.noise = kl_by_modality_field(fields, "noise");
  read_runs(fields, measurements);
  return measurements;
}

Measurements read_measurements(const std::filesystem::path& path) {
  return measurements_from_json(io::read_json(path, io::DuplicateKeys::refuse), path.string());
}

}  // namespace nibble::records
