#include "report/chart_parts.h"

#include <algorithm>

#include "base/error.h"
#include "report/assets.h"

namespace nibble::report {
namespace {

/// The element of a list of objects that has this name.
io::Json& named(io::Json& list, std::string_view name) {
  const auto it = std::find_if(list.begin(), list.end(), [&](const io::Json& item) {
    return item.at("name").get<std::string>() == name;
  });
  NIBBLE_CHECK(it != list.end(), "the chart has no {}", name);
  return *it;
}

}  // namespace

io::Json chart_spec(std::string_view name) {
  const std::string file = fmt::format("charts/{}.json", name);
  return io::parse_json(asset(file), file);
}

void set_signal(io::Json& spec, std::string_view name, io::Json value) {
  named(spec["signals"], name)["value"] = std::move(value);
}

void set_data(io::Json& spec, std::string_view name, io::Json values) {
  named(spec["data"], name)["values"] = std::move(values);
}

void set_axis(io::Json& spec, const std::string& axis, const LogAxis& scale, const std::string& title) {
  named(spec["scales"], axis)["type"] = "log";
  set_signal(spec, axis + "Domain", scale.domain());
  set_signal(spec, axis + "Ticks", scale.ticks());
  // Half a percent: a tick at the end of the decades is not beyond it.
  set_signal(spec, axis + "Low", scale.low() * 0.995);
  set_signal(spec, axis + "High", scale.high() * 1.005);
  set_signal(spec, axis + "Title", title);
}

std::string part_title(records::Part part) {
  switch (part) {
    case records::Part::vision:
      return "Vision tower";
    case records::Part::projector:
      return "Projector";
    case records::Part::text:
      return "Language model";
  }
  return "";
}

std::string role_title(records::Role role) {
  std::string name(records::role_name(role));
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string inputs_title(records::Modality modality) {
  return modality == records::Modality::vision ? "inputs with pictures" : "plain texts";
}

std::map<std::string_view, const records::Decision*> decisions_by_name(const records::Plan* plan) {
  std::map<std::string_view, const records::Decision*> out;
  if (plan)
    for (const records::Decision& decision : plan->decisions) out[decision.name] = &decision;
  return out;
}

Depths depths_of(const records::Inventory& inventory) {
  Depths out;
  for (const records::LinearRecord& linear : inventory.linears) {
    if (linear.part == records::Part::vision) out.vision = std::max(out.vision, linear.depth + 1);
    if (linear.part == records::Part::text) out.text = std::max(out.text, linear.depth + 1);
  }
  for (const records::LinearRecord& linear : inventory.linears)
    out.of.push_back(linear.part == records::Part::projector ? out.vision + out.projector++ : linear.depth);
  return out;
}

}  // namespace nibble::report
