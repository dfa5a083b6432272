#include "report/charts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>

#include "base/error.h"
#include "records/groups.h"
#include "report/chart_parts.h"
#include "report/numbers.h"

namespace nibble::report {
namespace {

using records::Modality;
using records::Part;
using records::Role;

constexpr std::array kRoleStyles = {
    RoleStyle{Role::qkv, "var(--attention-in)", "circle"},
    RoleStyle{Role::q, "var(--attention-in)", "square"},
    RoleStyle{Role::k, "var(--attention-in)", "triangle-up"},
    RoleStyle{Role::v, "var(--attention-in)", "diamond"},
    RoleStyle{Role::attention_out, "var(--attention-out)", "circle"},
    RoleStyle{Role::gate_up, "var(--mlp-in)", "circle"},
    RoleStyle{Role::gate, "var(--mlp-in)", "square"},
    RoleStyle{Role::up, "var(--mlp-in)", "triangle-up"},
    RoleStyle{Role::fc1, "var(--mlp-in)", "diamond"},
    RoleStyle{Role::down, "var(--mlp-out)", "circle"},
    RoleStyle{Role::fc2, "var(--mlp-out)", "diamond"},
    RoleStyle{Role::projector, "var(--projector)", "cross"},
};

/// A linear or group on a chart of depth.
struct Point {
  size_t linear = 0;  // index into the inventory: its place, part and role
  double value = 0;
  std::optional<double> to;  // a second value that a line leads to
  bool kept = false;
  std::string tip;
};

/// Which parts share a chart: the projector stands behind the vision tower.
enum class Side { vision, text };
constexpr std::array kSides = {Side::vision, Side::text};

Side side_of(Part part) {
  return part == Part::text ? Side::text : Side::vision;
}

std::string side_title(Side side, const Depths& depths) {
  if (side == Side::text) return part_title(Part::text);
  return depths.projector > 0 ? "Vision tower and projector (P)" : part_title(Part::vision);
}

/// Whole numbers at round steps, at most about eight, then the first place of the projector where it has
/// some.
io::Json depth_ticks(int64_t blocks, bool projector) {
  io::Json out = io::Json::array();
  int64_t step = 1;
  for (const int64_t next : {2, 4, 5, 10, 20, 50, 100, 1000})
    if (blocks > 8 * step) step = next;
  for (int64_t i = 0; i < blocks; i += step) out.push_back(i);
  if (projector) out.push_back(blocks);
  return out;
}

/// The specification of one chart without its vertical axis, which the caller knows.
io::Json points_spec(const records::Inventory& inventory, const Depths& depths, Side side,
                     const std::vector<Point>& points, const std::function<double(double)>& place) {
  io::Json spec = chart_spec("points");
  io::Json roles = io::Json::array(), colors = io::Json::array(), shapes = io::Json::array();
  for (const RoleStyle& style : kRoleStyles) {
    roles.push_back(records::role_name(style.role));
    colors.push_back(style.color);
    shapes.push_back(style.shape);
  }
  set_signal(spec, "roles", std::move(roles));
  set_signal(spec, "colors", std::move(colors));
  set_signal(spec, "shapes", std::move(shapes));

  const bool vision = side == Side::vision;
  const int64_t blocks = vision ? depths.vision : depths.text, after = vision ? depths.projector : 0;
  set_signal(spec, "xDomain", {-0.5, std::max<double>(0.5, static_cast<double>(blocks + after) - 0.5)});
  set_signal(spec, "xTicks", depth_ticks(blocks, after > 0));
  if (after > 0) set_signal(spec, "projector", blocks);

  io::Json values = io::Json::array();
  std::map<Role, std::pair<int64_t, int64_t>> last;  // depth and stretch: a line leads over neighbours alone
  for (const Point& point : points) {
    const records::LinearRecord& linear = inventory.linears[point.linear];
    const int64_t x = depths.of[point.linear];
    const auto [it, first] = last.try_emplace(linear.role, x, 0);
    if (!first) it->second = {x, it->second.second + (x > it->second.first + 1 ? 1 : 0)};
    io::Json& value = values.emplace_back(io::Json::object());
    value["x"] = x;
    value["y"] = place(point.value);
    if (point.to) value["to"] = place(*point.to);
    value["role"] = records::role_name(linear.role);
    value["stretch"] = it->second.second;
    value["kept"] = point.kept;
    value["tip"] = point.tip;
  }
  set_data(spec, "points", std::move(values));
  return spec;
}

/// A chart to be: its points, before the scale that all share is known.
struct Panel {
  Side side;
  std::string what;  // "weight error"
  std::vector<Point> points;
};

/// "the largest is model.layers.3.mlp.down_proj with 0.41".
std::string largest_text(const records::Inventory& inventory, const std::vector<Point>& points) {
  const auto it = std::max_element(points.begin(), points.end(),
                                   [](const Point& a, const Point& b) { return a.value < b.value; });
  return fmt::format("the largest of {} is {:.3g}, at {}", points.size(), it->value,
                     inventory.linears[it->linear].name);
}

/// Charts with one logarithmic scale.
Charts log_charts(const records::Inventory& inventory, const std::vector<Panel>& panels,
                  const std::string& title) {
  std::vector<double> values;
  for (const Panel& panel : panels)
    for (const Point& point : panel.points) {
      values.push_back(point.value);
      if (point.to) values.push_back(*point.to);
    }
  const LogAxis axis(values);
  const Depths depths = depths_of(inventory);
  Charts out;
  out.note = axis.note();
  for (const Panel& panel : panels) {
    Chart& chart = out.charts.emplace_back();
    chart.group = side_title(panel.side, depths);
    chart.title = panel.what;
    chart.spec =
        points_spec(inventory, depths, panel.side, panel.points, [&](double v) { return axis.place(v); });
    set_axis(chart.spec, "y", axis, title);
    chart.spec["description"] = fmt::format("{}: {} by depth and role; {}.", chart.group, chart.title,
                                            largest_text(inventory, panel.points));
  }
  return out;
}

/// What all tips of a linear say.
std::string linear_tip(const records::LinearErrors& errors, const records::Decision* decision) {
  std::string tip = fmt::format("{}\nweight error {}", errors.name, error_text(errors.weight));
  for (const Modality m : records::kModalities) {
    const records::ActivationError& error = errors.activation[static_cast<size_t>(m)];
    if (error.rows > 0)
      tip += fmt::format("\noutput error on {} {}", modality_name(m), activation_text(error));
  }
  if (decision) tip += fmt::format("\n{}: {}", decision->keep ? "16 bit" : "4 bit", decision->reason);
  return tip;
}

void add_panel(std::vector<Panel>& panels, Panel panel) {
  if (!panel.points.empty()) panels.push_back(std::move(panel));
}

}  // namespace

std::span<const RoleStyle> role_styles() {
  return kRoleStyles;
}

Charts error_charts(const records::Measurements& measurements, const records::Plan* plan) {
  const auto& linears = measurements.inventory.linears;
  const auto decisions = decisions_by_name(plan);
  std::vector<Panel> panels;
  for (const Side side : kSides) {
    Panel weight{side, "Weight error", {}};
    std::array<Panel, 2> outputs = {Panel{side, "Output error on vision", {}},
                                    Panel{side, "Output error on text", {}}};
    for (size_t i = 0; i < measurements.errors.size(); ++i) {
      if (side_of(linears[i].part) != side) continue;
      const records::LinearErrors& errors = measurements.errors[i];
      const auto it = decisions.find(errors.name);
      const records::Decision* decision = it == decisions.end() ? nullptr : it->second;
      const Point point{.linear = i,
                        .value = errors.weight,
                        .to = {},
                        .kept = decision && decision->keep,
                        .tip = linear_tip(errors, decision)};
      weight.points.push_back(point);
      for (const Modality m : records::kModalities) {
        const records::ActivationError& error = errors.activation[static_cast<size_t>(m)];
        if (error.rows == 0) continue;
        Panel& panel = outputs[static_cast<size_t>(m)];
        panel.points.push_back(point);
        panel.points.back().value = error.relative();
      }
    }
    add_panel(panels, std::move(weight));
    for (Panel& panel : outputs) add_panel(panels, std::move(panel));
  }
  return log_charts(measurements.inventory, panels, "relative error");
}

Charts rounding_charts(const records::Measurements& measurements) {
  const auto& linears = measurements.inventory.linears;
  const Depths depths = depths_of(measurements.inventory);
  std::vector<Panel> panels;
  double most = 1;
  for (const Side side : kSides)
    for (const Modality m : records::kModalities) {
      Panel panel{side, fmt::format("Output error on {}", modality_name(m)), {}};
      for (size_t i = 0; i < measurements.errors.size(); ++i) {
        const records::LinearErrors& errors = measurements.errors[i];
        if (side_of(linears[i].part) != side || !errors.rounded) continue;
        const auto& plain = errors.activation[static_cast<size_t>(m)];
        const auto& other = errors.rounded->activation[static_cast<size_t>(m)];
        const double before = plain.relative(), after = other.relative();
        // A ratio needs two errors that can be compared.
        if (plain.rows == 0 || other.rows == 0 || !(before > 0) || !std::isfinite(before) ||
            !std::isfinite(after))
          continue;
        most = std::max(most, after / before);
        panel.points.push_back(
            {.linear = i,
             .value = after / before,
             .to = {},
             .kept = true,
             .tip = fmt::format("{}\nplain {}\n{} {}\nratio {:.3f}", errors.name, error_text(before),
                                measurements.rounding.kind, error_text(after), after / before)});
      }
      add_panel(panels, std::move(panel));
    }
  Charts out;
  for (const Panel& panel : panels) {
    Chart& chart = out.charts.emplace_back();
    chart.group = side_title(panel.side, depths);
    chart.title = panel.what;
    chart.spec =
        points_spec(measurements.inventory, depths, panel.side, panel.points, [](double v) { return v; });
    for (io::Json& scale : chart.spec["scales"])
      if (scale["name"] == "y") scale["type"] = "linear";
    set_signal(chart.spec, "yDomain", {0, 1.05 * most});
    set_signal(chart.spec, "yTicks", nullptr);
    set_signal(chart.spec, "yHigh", 2 * most);
    set_signal(chart.spec, "yTitle", fmt::format("{} / plain", measurements.rounding.kind));
    set_signal(chart.spec, "reference", 1);
    chart.spec["description"] = fmt::format(
        "{}: {}, {} rounding over plain rounding, by depth and role: below 1 it is better; {}.", chart.group,
        chart.title, measurements.rounding.kind, largest_text(measurements.inventory, panel.points));
  }
  return out;
}

Charts solo_charts(const records::Measurements& measurements, const records::Plan* plan) {
  if (measurements.solo.empty()) return {};
  const auto& linears = measurements.inventory.linears;
  const auto decisions = decisions_by_name(plan);
  std::map<std::string_view, const records::SoloRun*> plain, other;
  for (const records::SoloRun& run : measurements.solo)
    (run.rounding == "plain" ? plain : other)[run.group] = &run;
  std::vector<Panel> panels;
  for (const Side side : kSides)
    for (const Modality m : records::kModalities) {
      if (std::none_of(measurements.inputs.begin(), measurements.inputs.end(),
                       [m](const records::MeasuredInput& input) { return input.modality == m; }))
        continue;
      Panel panel{side, fmt::format("KL on {}", inputs_title(m)), {}};
      for (const records::Group& group : records::group_linears(measurements.inventory, measurements.fuse)) {
        if (side_of(linears[group.members[0]].part) != side) continue;
        const auto p = plain.find(group.name), o = other.find(group.name);
        if (p == plain.end() && o == other.end()) continue;
        const records::SoloRun& first = p != plain.end() ? *p->second : *o->second;
        const auto decision = decisions.find(linears[group.members[0]].name);
        Point point{.linear = group.members[0],
                    .value = mean_kl(measurements, first.kl, m),
                    .to = {},
                    .kept = decision != decisions.end() && decision->second->keep,
                    .tip = {}};
        point.tip = fmt::format("{}\n{}: KL {:.3g}", group.name, first.rounding, point.value);
        if (p != plain.end() && o != other.end()) {
          point.to = mean_kl(measurements, o->second->kl, m);
          point.tip += fmt::format("\n{}: KL {:.3g}", o->second->rounding, *point.to);
        }
        if (decision != decisions.end())
          point.tip += fmt::format("\n{}: {}", point.kept ? "16 bit" : "4 bit", decision->second->reason);
        panel.points.push_back(std::move(point));
      }
      add_panel(panels, std::move(panel));
    }
  return log_charts(measurements.inventory, panels, "KL, nats");
}

}  // namespace nibble::report
