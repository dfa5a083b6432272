#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "records/groups.h"
#include "report/chart_parts.h"
#include "report/charts.h"
#include "report/numbers.h"

namespace nibble::report {
namespace {

using records::Modality;
using records::Part;

size_t index_of(Modality modality) {
  return static_cast<size_t>(modality);
}

/// What a cell of the map says.
std::string cell_tip(const records::Measurements& measurements, size_t linear,
                     const records::Decision& decision) {
  const records::LinearErrors& errors = measurements.errors[linear];
  std::string tip = fmt::format("{}\n{}", errors.name, decision.keep ? "16 bit" : "4 bit");
  if (!decision.keep && decision.rounding != "plain") tip += fmt::format(", {} rounding", decision.rounding);
  if (!decision.reason.empty()) tip += "\n" + decision.reason;
  for (const Modality m : records::kModalities) {
    const auto& error = errors.activation[index_of(m)];
    if (error.rows > 0)
      tip += fmt::format("\noutput error on {} {}", modality_name(m), activation_text(error));
  }
  for (const records::SoloRun& run : measurements.solo) {
    if (run.group != measurements.inventory.linears[linear].group && run.group != errors.name) continue;
    for (const Modality m : records::kModalities)
      if (std::any_of(measurements.inputs.begin(), measurements.inputs.end(),
                      [m](const auto& input) { return input.modality == m; }))
        tip += fmt::format("\nKL of its group alone, {}, {}: {:.3g}", run.rounding, inputs_title(m),
                           mean_kl(measurements, run.kl, m));
  }
  return tip;
}

/// The map of one part; null where it has no linears.
io::Json part_map(const records::Measurements& measurements, Part part,
                  const std::map<std::string_view, const records::Decision*>& decisions) {
  const auto& linears = measurements.inventory.linears;
  const Depths depths = depths_of(measurements.inventory);
  std::vector<std::string> roles;  // in the order of the forward pass
  io::Json cells = io::Json::array();
  const int64_t first = part == Part::projector ? 1 : 0;  // projector linears are numbered
  int64_t columns = 0, kept = 0;
  for (size_t i = 0; i < linears.size(); ++i) {
    const auto it = decisions.find(linears[i].name);
    if (linears[i].part != part || it == decisions.end()) continue;
    const records::Decision& decision = *it->second;
    const std::string role = role_title(linears[i].role);
    if (std::find(roles.begin(), roles.end(), role) == roles.end()) roles.push_back(role);
    const int64_t column = depths.of[i] - (part == Part::projector ? depths.vision : 0) + first;
    columns = std::max(columns, column + 1);
    kept += decision.keep;
    const std::string low = decision.rounding == "plain" ? "4 bit" : "4 bit, rounded";
    cells.push_back({{"column", column},
                     {"row", role},
                     {"state", decision.keep ? "16 bit" : low},
                     {"tip", cell_tip(measurements, i, decision)}});
  }
  if (cells.empty()) return nullptr;
  io::Json spec = chart_spec("map");
  io::Json all = io::Json::array(), ticks = io::Json::array();
  for (int64_t i = first; i < columns; ++i) {
    all.push_back(i);
    if (columns <= 16 || i % 4 == 0) ticks.push_back(i);
  }
  spec["height"] = 24 * roles.size();
  spec["description"] = fmt::format("{}: {} of {} stay in 16 bits, by role and depth.", part_title(part),
                                    kept, counted(static_cast<int64_t>(cells.size()), "linear", "linears"));
  set_signal(spec, "columns", std::move(all));
  set_signal(spec, "ticks", std::move(ticks));
  set_signal(spec, "rows", roles);
  if (part == Part::projector) set_signal(spec, "xTitle", "number");
  set_data(spec, "cells", std::move(cells));
  return spec;
}

/// The unit that sizes of this many bytes are told in.
std::pair<double, std::string> size_unit(int64_t bytes) {
  if (bytes >= int64_t{1} << 30) return {1.0 / (1 << 30), "GiB"};
  if (bytes >= 1 << 20) return {1.0 / (1 << 20), "MiB"};
  return {1.0 / 1024, "KiB"};
}

std::string run_tip(const records::VerifiedRun& run, size_t number, Modality m) {
  return fmt::format("{}. {}\n{}, {} kept\nKL on {}: {}\npredicted {:.3g}", number, run.label,
                     bytes_text(run.bytes), counted(run.kept, "linear", "linears"), inputs_title(m),
                     with_interval(run.kl[index_of(m)]), run.predicted[index_of(m)]);
}

/// A run as a point at `x`.
io::Json run_point(const records::Verification& verification, size_t i, Modality m, double x,
                   const LogAxis& y) {
  const records::Interval& kl = verification.runs[i].kl[index_of(m)];
  return {{"x", x},
          {"y", y.place(kl.mean)},
          {"low", y.place(kl.low)},
          {"high", y.place(kl.high)},
          {"kind", modality_name(m)},
          {"label", std::to_string(i + 1)},
          {"chosen", static_cast<int64_t>(i) == verification.chosen},
          {"tip", run_tip(verification.runs[i], i + 1, m)}};
}

void add_ends(std::vector<double>& values, const records::Interval& interval) {
  for (const double end : {interval.mean, interval.low, interval.high}) values.push_back(end);
}

}  // namespace

std::vector<Modality> verified_modalities(const records::Verification& verification) {
  std::vector<Modality> out;
  for (const Modality m : records::kModalities)
    if (verification.inputs[index_of(m)] > 0) out.push_back(m);
  return out;
}

Charts map_charts(const records::Measurements& measurements, const records::Plan& plan) {
  Charts out;
  const auto decisions = decisions_by_name(&plan);
  for (const Part part : {Part::vision, Part::projector, Part::text}) {
    io::Json spec = part_map(measurements, part, decisions);
    if (!spec.is_null()) out.charts.push_back({"", part_title(part), std::move(spec)});
  }
  return out;
}

Charts predicted_charts(const records::Plan& plan) {
  if (!plan.verification || plan.verification->runs.empty()) return {};
  const records::Verification& verification = *plan.verification;
  std::vector<double> xs, ys;
  for (const records::VerifiedRun& run : verification.runs)
    for (const Modality m : verified_modalities(verification)) {
      xs.push_back(run.predicted[index_of(m)]);
      add_ends(ys, run.kl[index_of(m)]);
    }
  const LogAxis x(xs), y(ys);
  io::Json points = io::Json::array(), lines = io::Json::array();
  for (size_t i = 0; i < verification.runs.size(); ++i)
    for (const Modality m : verified_modalities(verification))
      points.push_back(
          run_point(verification, i, m, x.place(verification.runs[i].predicted[index_of(m)]), y));
  // Where prediction and reality are equal.
  if (const double from = std::max(x.low(), y.low()), to = std::min(x.high(), y.high()); from < to)
    for (const double end : {from, to})
      lines.push_back({{"series", "equal"}, {"kind", "guide"}, {"x", end}, {"y", end}});
  Charts out;
  out.note = (x.has_zero() ? x : y).note();
  Chart& chart = out.charts.emplace_back();
  chart.title = "Predicted against real KL";
  chart.spec = chart_spec("intervals");
  chart.spec["description"] =
      fmt::format("Predicted against real KL of {}; on the dotted line both are equal.",
                  counted(static_cast<int64_t>(verification.runs.size()), "verified plan", "verified plans"));
  set_axis(chart.spec, "x", x, "predicted KL, nats");
  set_axis(chart.spec, "y", y, "real KL, nats");
  set_data(chart.spec, "points", std::move(points));
  set_data(chart.spec, "lines", std::move(lines));
  return out;
}

Charts curve_charts(const records::Plan& plan) {
  const bool verified = plan.verification && !plan.verification->runs.empty();
  if (plan.curve.empty() && !verified) return {};
  std::vector<double> ys;
  std::vector<int64_t> sizes = {plan.bytes_all4};
  std::vector<Modality> shown(records::kModalities.begin(), records::kModalities.end());
  if (verified) {
    shown = verified_modalities(*plan.verification);
  } else {
    // A modality that nothing was predicted for is 0 all along.
    std::erase_if(shown, [&](Modality m) {
      return std::all_of(plan.curve.begin(), plan.curve.end(),
                         [m](const auto& point) { return point.predicted[index_of(m)] == 0; });
    });
  }
  for (const records::CurvePoint& point : plan.curve) {
    sizes.push_back(point.bytes);
    for (const Modality m : shown) ys.push_back(point.predicted[index_of(m)]);
  }
  if (verified)
    for (const records::VerifiedRun& run : plan.verification->runs) {
      sizes.push_back(run.bytes);
      for (const Modality m : shown) add_ends(ys, run.kl[index_of(m)]);
    }
  const LogAxis y(ys);
  const auto [unit, name] = size_unit(*std::max_element(sizes.begin(), sizes.end()));
  const auto x_of = [unit = unit](int64_t bytes) { return static_cast<double>(bytes) * unit; };
  io::Json points = io::Json::array(), lines = io::Json::array();
  for (const Modality m : shown)
    for (const records::CurvePoint& point : plan.curve)
      lines.push_back({{"series", "curve"},
                       {"kind", modality_name(m)},
                       {"x", x_of(point.bytes)},
                       {"y", y.place(point.predicted[index_of(m)])}});
  if (plan.budget_bytes > 0)
    for (const io::Json& end : y.domain())
      lines.push_back({{"series", "budget"}, {"kind", "guide"}, {"x", x_of(plan.budget_bytes)}, {"y", end}});
  if (verified)
    for (size_t i = 0; i < plan.verification->runs.size(); ++i)
      for (const Modality m : shown)
        points.push_back(run_point(*plan.verification, i, m, x_of(plan.verification->runs[i].bytes), y));
  Charts out;
  out.note = y.note();
  const auto add = [&, &name = name](const std::string& title, double from, double to) {
    const double margin = std::max(0.03 * (to - from), 1e-3 * to);
    Chart& chart = out.charts.emplace_back();
    chart.title = title;
    chart.spec = chart_spec("intervals");
    chart.spec["description"] = fmt::format(
        "KL by size of the checkpoint, {}: the curve is predicted, the points were run for real; {} on the "
        "curve, {} "
        "verified.",
        title, counted(std::ssize(plan.curve), "plan", "plans"),
        verified ? plan.verification->runs.size() : 0);
    set_signal(chart.spec, "xDomain", {from - margin, to + margin});
    set_signal(chart.spec, "xTitle", fmt::format("tensor data, {}", name));
    set_axis(chart.spec, "y", y, "KL, nats");
    set_data(chart.spec, "points", points);
    set_data(chart.spec, "lines", lines);
  };
  const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
  const double from = x_of(*least), to = x_of(*most);
  add("All sizes", from, to);
  if (!verified) return out;
  int64_t largest = plan.budget_bytes;
  for (const records::VerifiedRun& run : plan.verification->runs) largest = std::max(largest, run.bytes);
  // What was run often lies close together at the left end.
  if (const double near = from + 1.5 * (x_of(largest) - from); near > from && near < from + (to - from) / 2)
    add("Around the verified plans", from, near);
  return out;
}

}  // namespace nibble::report
