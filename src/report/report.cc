#include "report/report.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "records/groups.h"
#include "report/assets.h"
#include "report/chart_parts.h"
#include "report/charts.h"
#include "report/html.h"
#include "report/numbers.h"
#include "report/views.h"

namespace nibble::report {
namespace {

using records::Modality;

struct Section {
  std::string id, title, html;
};

std::string paragraph(std::string_view text) {
  return fmt::format("<p>{}</p>\n", html_text(text));
}

/// A table in a frame of its own, so that a narrow page scrolls the table alone.
std::string table_html(const Table& table, std::string_view label) {
  return fmt::format("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">{}</div>\n",
                     html_text(label), table.to_html());
}

std::string folded(std::string_view summary, const Table& table) {
  return fmt::format("<details><summary>{}</summary>\n{}</details>\n", html_text(summary),
                     table_html(table, summary));
}

std::string charts_html(const Charts& charts) {
  std::string out;
  for (size_t i = 0; i < charts.charts.size(); ++i) {
    const Chart& chart = charts.charts[i];
    const bool first = i == 0 || chart.group != charts.charts[i - 1].group;
    if (first && i > 0) out += "</div>\n";
    if (first && !chart.group.empty()) out += fmt::format("<h3>{}</h3>\n", html_text(chart.group));
    if (first) out += charts.charts.size() > 1 ? "<div class=\"grid\">\n" : "<div>\n";
    out += fmt::format(
        "<figure class=\"chart\"><h4>{}</h4><div class=\"plot\" role=\"img\" aria-label=\"{}\"></div>\n"
        "<script type=\"application/json\">{}</script></figure>\n",
        html_text(chart.title), html_text(chart.spec.at("description").get<std::string>()),
        script_json(chart.spec));
  }
  out += "</div>\n";
  if (!charts.note.empty()) out += fmt::format("<p class=\"muted\">{}</p>\n", html_text(charts.note));
  return out;
}

/// A symbol of Vega's in a box of 16 by 16.
std::string symbol_svg(std::string_view shape, std::string_view color, bool filled) {
  std::string_view path = "M8 3a5 5 0 1 0 .01 0z";
  if (shape == "square") path = "M3.5 3.5h9v9h-9z";
  if (shape == "triangle-up") path = "M8 3l5.5 9.5h-11z";
  if (shape == "diamond") path = "M8 2l5 6-5 6-5-6z";
  if (shape == "cross") path = "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z";
  return fmt::format(
      "<svg viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path d=\"{}\" fill=\"{}\" stroke=\"{}\" "
      "stroke-width=\"1.5\"/></svg>",
      path, filled ? color : "var(--paper)", color);
}

std::string legend_item(const std::string& svg, std::string_view text) {
  return fmt::format("<li>{}{}</li>\n", svg, html_text(text));
}

/// The roles of a model; `kept`: filled symbols stand for kept linears.
std::string role_legend(const records::Inventory& inventory, bool kept, bool filled) {
  std::set<records::Role> used;
  for (const records::LinearRecord& linear : inventory.linears) used.insert(linear.role);
  std::string out = "<ul class=\"legend\">\n";
  for (const RoleStyle& style : role_styles()) {
    if (!used.contains(style.role)) continue;
    out += legend_item(symbol_svg(style.shape, style.color, filled), role_title(style.role));
  }
  if (kept) {
    out += legend_item(symbol_svg("circle", "var(--muted)", true), "filled: stays in 16 bits");
    out += legend_item(symbol_svg("circle", "var(--muted)", false), "hollow: goes to 4 bits");
  }
  return out + "</ul>\n";
}

std::string modality_legend(const std::vector<Modality>& modalities, bool curve) {
  std::string out = "<ul class=\"legend\">\n";
  for (const Modality m : modalities) {
    const bool vision = m == Modality::vision;
    out +=
        legend_item(symbol_svg(vision ? "circle" : "square", vision ? "var(--vision)" : "var(--text)", false),
                    vision ? "inputs with pictures" : "plain texts");
  }
  out += legend_item(symbol_svg("circle", "var(--muted)", true), "filled: the chosen plan");
  out += legend_item("", curve ? "bars: 95 % intervals; dotted: the budget"
                               : "bars: 95 % intervals; dotted: prediction and reality are equal");
  return out + "</ul>\n";
}

void add_fact(std::string& out, std::string_view name, const std::string& value) {
  if (!value.empty()) out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", html_text(name), html_text(value));
}

std::string rounding_text(const records::Rounding& rounding) {
  if (rounding.plain()) return "plain";
  std::string out = fmt::format("{} (damping {:g} of vision rows, {:g} of text rows; mix {:g}", rounding.kind,
                                rounding.damping[0], rounding.damping[1], rounding.mix);
  if (rounding.in_order) out += "; in order";
  if (rounding.widest > 0)
    out += fmt::format("; inputs wider than {} by sums of squares alone", rounding.widest);
  if (rounding.guard > 0) out += "; guard of " + counted(rounding.guard, "window", "windows");
  return out + ")";
}

std::string facts_html(const Records& records) {
  std::string out = "<dl class=\"facts\">\n";
  if (const auto& plan = records.plan) {
    add_fact(out, "family", plan->family);
    add_fact(out, "policy",
             plan->budget.empty() ? plan->policy : fmt::format("{}, budget {}", plan->policy, plan->budget));
    add_fact(out, "kept in 16 bits",
             fmt::format("{} of {}", plan->kept(),
                         counted(static_cast<int64_t>(plan->decisions.size()), "linear", "linears")));
    add_fact(out, "format of the others", plan->format);
    add_fact(out, "rounding", rounding_text(plan->rounding));
    if (const auto& verification = plan->verification; verification && !verification->runs.empty())
      for (const Modality m : verified_modalities(*verification))
        add_fact(
            out, m == Modality::vision ? "KL with pictures, verified" : "KL on texts, verified",
            with_interval(
                verification->runs[static_cast<size_t>(verification->chosen)].kl[static_cast<size_t>(m)]));
  }
  if (const auto& m = records.measurements) {
    if (!records.plan) add_fact(out, "family", m->inventory.family);
    add_fact(out, "parameters", fmt::format("{}", m->inventory.parameters));
    add_fact(out, "measured on",
             fmt::format("{} ({}; {} vision rows, {} text rows)", fmt::join(m->data, ", "),
                         counted(m->samples, "sample", "samples"), m->rows[0], m->rows[1]));
    add_fact(out, "computed in", m->compute);
  }
  return out + "</dl>\n";
}

/// Sizes as bars: 16 bit, all 4 bit, this plan.
std::string sizes_html(const records::Plan& plan) {
  if (plan.bytes_all16 <= 0) return "";
  std::string out = "<div class=\"sizes\">\n";
  const auto add = [&](std::string_view name, int64_t bytes, bool ours) {
    const double share = static_cast<double>(bytes) / static_cast<double>(plan.bytes_all16);
    const std::string over = ours ? over_all4(bytes, plan.bytes_all4) : "";
    out += fmt::format(
        "<div{}><span>{}</span><span>{}</span><i style=\"width:{:.2f}%\"></i></div>\n",
        ours ? " class=\"this\"" : "", html_text(name),
        html_text(bytes_text(bytes) + (over.empty() ? "" : fmt::format(" ({} over all 4 bit)", over))),
        100 * std::min(1.0, share));
  };
  add("16 bit", plan.bytes_all16, false);
  add(plan.format == "int8" ? "all 8 bit" : "all 4 bit", plan.bytes_all4, false);
  add("this plan", plan.bytes, true);
  return out + "</div>\n";
}

Section comparison_section(const Records& records) {
  std::vector<ComparisonRow> rows;
  for (const records::ComparedModel& model : records.models) rows.push_back(comparison_row(model));
  std::string text =
      "KL is the divergence of the next-token distribution from the 16-bit model's, in nats, with its 95 % "
      "interval; agreement is the share of positions with the same most probable token.";
  const auto spread =
      std::find_if(rows.begin(), rows.end(), [](const ComparisonRow& row) { return row.spread.has_value(); });
  if (spread != rows.end())
    text += fmt::format(" Spread is the lowest and the highest KL with the calibration data and {} of it.",
                        counted(spread->spread->seeds, "resample", "resamples"));
  return {"table", "The models compared",
          paragraph(text) + table_html(comparison(rows), "The models compared")};
}

Table errors_table(const records::Measurements& measurements) {
  const bool rounded = std::any_of(measurements.errors.begin(), measurements.errors.end(),
                                   [](const auto& errors) { return errors.rounded.has_value(); });
  std::vector<Column> columns = {{"linear"},
                                 {"shape", Align::right},
                                 {"weight error", Align::right},
                                 {"worst block", Align::right},
                                 {"output, vision", Align::right},
                                 {"output, text", Align::right}};
  if (rounded)
    for (const char* name : {"vision", "text"})
      columns.push_back({fmt::format("{}, {}", measurements.rounding.kind, name), Align::right});
  Table table(std::move(columns));
  for (size_t i = 0; i < measurements.errors.size(); ++i) {
    const records::LinearErrors& errors = measurements.errors[i];
    const records::LinearRecord& linear = measurements.inventory.linears[i];
    std::vector<std::string> cells = {errors.name,
                                      fmt::format("{} x {}", linear.out, linear.in),
                                      error_text(errors.weight),
                                      error_text(errors.largest_block),
                                      activation_text(errors.activation[0]),
                                      activation_text(errors.activation[1])};
    if (rounded)
      for (size_t m = 0; m < 2; ++m)
        cells.push_back(errors.rounded ? activation_text(errors.rounded->activation[m]) : "-");
    table.add_row(std::move(cells));
  }
  return table;
}

void add_measured(const Records& records, std::vector<Section>& sections) {
  const records::Measurements& measurements = *records.measurements;
  const records::Plan* plan = records.plan ? &*records.plan : nullptr;
  if (!measurements.errors.empty())
    sections.push_back({"errors", "What four bits do to each linear",
                        paragraph("Weight error is |W - Q(W)| / |W|: nearly the same everywhere. Output "
                                  "error is |XW' - XQ(W)'| / |XW'| on "
                                  "the measured inputs X: it shows which linears four bits harm.") +
                            role_legend(measurements.inventory, plan != nullptr, plan == nullptr) +
                            charts_html(error_charts(measurements, plan)) +
                            folded("All linears as a table", errors_table(measurements))});
  if (const Charts charts = rounding_charts(measurements); !charts.charts.empty())
    sections.push_back({"rounding", "Plain rounding against " + measurements.rounding.kind,
                        paragraph(fmt::format(
                            "The output error of {} rounding over that of plain rounding. Below the dashed "
                            "line it is smaller. Readers see ordinary NF4 either way.",
                            measurements.rounding.kind)) +
                            role_legend(measurements.inventory, false, true) + charts_html(charts)});
}

Table solo_table(const records::Measurements& measurements) {
  Table table({{"group"}, {"rounding"}, {"KL, pictures", Align::right}, {"KL, texts", Align::right}});
  std::vector<const records::SoloRun*> runs;
  for (const records::SoloRun& run : measurements.solo) runs.push_back(&run);
  const auto worst = [&](const records::SoloRun* run) {
    return std::max(mean_kl(measurements, run->kl, Modality::vision),
                    mean_kl(measurements, run->kl, Modality::text));
  };
  std::stable_sort(runs.begin(), runs.end(), [&](auto* a, auto* b) { return worst(a) > worst(b); });
  const auto text = [&](const records::SoloRun& run, Modality m) -> std::string {
    const bool any = std::any_of(measurements.inputs.begin(), measurements.inputs.end(),
                                 [m](const auto& input) { return input.modality == m; });
    return any ? fmt::format("{:.3g}", mean_kl(measurements, run.kl, m)) : "-";
  };
  for (const records::SoloRun* run : runs)
    table.add_row({run->group, run->rounding, text(*run, Modality::vision), text(*run, Modality::text)});
  return table;
}

Section solo_section(const Records& records) {
  const records::Measurements& measurements = *records.measurements;
  const records::Plan* plan = records.plan ? &*records.plan : nullptr;
  std::map<std::string_view, int> runs;
  for (const records::SoloRun& run : measurements.solo) ++runs[run.group];
  const bool both = std::any_of(runs.begin(), runs.end(), [](const auto& group) { return group.second > 1; });
  const size_t groups = group_linears(measurements.inventory, measurements.fuse).size();
  std::string text =
      "The model was run with one group in 4 bits and everything else in 16: the KL that this group causes "
      "by itself.";
  if (both)
    text += fmt::format(" A line leads from plain rounding to {}, the short bar at its end.",
                        measurements.rounding.kind);
  if (runs.size() < groups) text += fmt::format(" {} of {} groups were run.", runs.size(), groups);
  return {"solo", "Each group alone in four bits",
          paragraph(text) + role_legend(measurements.inventory, plan != nullptr, plan == nullptr) +
              charts_html(solo_charts(measurements, plan)) +
              folded("All groups that were run as a table, the worst first", solo_table(measurements))};
}

Section plan_section(const Records& records) {
  const records::Plan& plan = *records.plan;
  std::string html;
  if (records.measurements) {
    const bool rounded = std::any_of(plan.decisions.begin(), plan.decisions.end(),
                                     [](const auto& d) { return !d.keep && d.rounding != "plain"; });
    html += "<ul class=\"legend\">\n" +
            legend_item(symbol_svg("square", "var(--sixteen)", true), "16 bit, with a dot");
    html += legend_item(symbol_svg("square", "var(--four)", true), plan.format == "int8" ? "8 bit" : "4 bit");
    if (rounded)
      html += legend_item(symbol_svg("square", "var(--rounded)", true),
                          "4 bit, " + plan.rounding.kind + " rounding");
    html += "</ul>\n" + charts_html(map_charts(*records.measurements, plan));
  }
  Table table({{"kept in 16 bits"}, {"reason"}});
  for (const KeptLine& line : kept_lines(plan)) table.add_row({line.linears(), line.reason});
  if (plan.kept() == 0)
    html += paragraph("Nothing is kept in 16 bits.");
  else if (records.measurements)
    html += folded("What is kept, and why", table);
  else
    html += table_html(table, "What is kept, and why");
  return {"plan", "The plan", std::move(html)};
}

Table runs_table(const records::Verification& verification) {
  const std::vector<Modality> modalities = verified_modalities(verification);
  const bool decided = ran_where_decided(verification);
  std::vector<Column> columns = {
      {"", Align::right}, {"plan"}, {"size", Align::right}, {"kept", Align::right}};
  for (const Modality m : modalities) {
    const std::string name = m == Modality::vision ? "pictures" : "texts";
    columns.push_back({"predicted KL, " + name, Align::right});
    if (decided) columns.push_back({"real KL, the same " + name, Align::right});
    columns.push_back({"real KL, other " + name, Align::right});
    columns.push_back({"typical KL, all " + name, Align::right});
  }
  Table table(std::move(columns));
  for (size_t i = 0; i < verification.runs.size(); ++i) {
    const records::VerifiedRun& run = verification.runs[i];
    const bool chosen = static_cast<int64_t>(i) == verification.chosen;
    std::vector<std::string> cells = {std::to_string(i + 1), run.label + (chosen ? " (chosen)" : ""),
                                      bytes_text(run.bytes), std::to_string(run.kept)};
    for (const Modality m : modalities) {
      cells.push_back(fmt::format("{:#.3g}", run.predicted[static_cast<size_t>(m)]));
      if (decided)
        cells.push_back(run.decided ? fmt::format("{:#.3g}", (*run.decided)[static_cast<size_t>(m)]) : "");
      cells.push_back(with_interval(run.kl[static_cast<size_t>(m)]));
      cells.push_back(run.typical ? fmt::format("{:#.3g}", (*run.typical)[static_cast<size_t>(m)]) : "");
    }
    table.add_row(std::move(cells));
  }
  return table;
}

Table curve_table(const records::Plan& plan) {
  Table table({{"size", Align::right},
               {"predicted KL, pictures", Align::right},
               {"predicted KL, texts", Align::right}});
  for (const records::CurvePoint& point : plan.curve)
    table.add_row({bytes_text(point.bytes), fmt::format("{:#.3g}", point.predicted[0]),
                   fmt::format("{:#.3g}", point.predicted[1])});
  return table;
}

void add_verified(const records::Plan& plan, std::vector<Section>& sections) {
  std::vector<Modality> modalities(records::kModalities.begin(), records::kModalities.end());
  if (const Charts charts = predicted_charts(plan); !charts.charts.empty()) {
    const records::Verification& verification = *plan.verification;
    modalities = verified_modalities(verification);
    sections.push_back(
        {"verified", "Predicted and real",
         paragraph(fmt::format(
             "Plans were run on inputs that they were not made from: {} with pictures, {} from {}.",
             verification.inputs[0], counted(verification.inputs[1], "plain text", "plain texts"),
             fmt::join(verification.data, ", "))) +
             modality_legend(modalities, false) + charts_html(charts) +
             table_html(runs_table(verification), "The verified plans")});
  }
  if (const Charts charts = curve_charts(plan); !charts.charts.empty())
    sections.push_back(
        {"curve", "KL by size",
         paragraph("The best plan of each size as predicted, from all 4 bit to 16 bit, and the plans that "
                   "were run for real.") +
             modality_legend(modalities, true) + charts_html(charts) +
             (plan.curve.empty() ? "" : folded("The curve as a table", curve_table(plan)))});
}

std::vector<Section> sections_of(const Records& records, const PictureFinder& pictures) {
  std::vector<Section> out;
  if (!records.models.empty()) out.push_back(comparison_section(records));
  if (records.plan) out.push_back(plan_section(records));
  if (records.measurements) add_measured(records, out);
  if (records.measurements && !records.measurements->solo.empty()) out.push_back(solo_section(records));
  if (records.plan) add_verified(*records.plan, out);
  if (std::string html = captions_html(records.models, pictures); !html.empty())
    out.push_back({"answers", "Answers side by side", std::move(html)});
  return out;
}

/// Vega's modules and the page's own script, each an element of its own.
std::string scripts_html() {
  std::string out = fmt::format("<!--\n{}-->\n<script>\n{}", asset("licenses.txt"), asset("modules.js"));
  for (const Asset& file : assets()) {
    constexpr std::string_view kEnd = ".min.js";
    if (!file.name.starts_with("vega-") || !file.name.ends_with(kEnd)) continue;
    std::string_view text = file.text;
    if (const size_t map = text.rfind("//# sourceMappingURL="); map != std::string_view::npos)
      text = text.substr(0, map);
    NIBBLE_CHECK(text.find("</script") == std::string_view::npos, "{} would end its element", file.name);
    out += fmt::format("vegaModules[\"{}\"] = function (exports, module, require) {{\n{}\n}};\n",
                       file.name.substr(0, file.name.size() - kEnd.size()), text);
  }
  return out + fmt::format("</script>\n<script>\n{}</script>\n", asset("page.js"));
}

}  // namespace

std::string report_html(const Records& records, const PictureFinder& pictures) {
  const std::string model = records.plan           ? records.plan->model
                            : records.measurements ? records.measurements->inventory.model
                                                   : "";
  const std::string title = model.empty() ? "nibble report" : "nibble report: " + model;
  const std::vector<Section> sections = sections_of(records, pictures);
  std::string body, links;
  bool charts = false;
  for (const Section& section : sections) {
    links += fmt::format("<a href=\"#{}\">{}</a>\n", section.id, html_text(section.title));
    body += fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", section.id,
                        html_text(section.title), section.html);
    charts = charts || section.html.find("<figure class=\"chart\">") != std::string::npos;
  }
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
      "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<header>\n<h1>{}</h1>\n",
      html_text(title), asset("style.css"), html_text(title));
  if (records.plan) out += sizes_html(*records.plan);
  out += facts_html(records);
  if (sections.size() > 1) out += fmt::format("<nav aria-label=\"Sections\">\n{}</nav>\n", links);
  if (charts)
    out +=
        "<noscript><p>The charts need scripts, which this page carries with itself; the tables do "
        "not.</p></noscript>\n";
  out += fmt::format(
      "</header>\n<main>\n{}</main>\n<footer>Made by nibble {} from its records. {}</footer>\n", body,
      html_text(records.version),
      charts ? "Charts by Vega (BSD-3-Clause; its licence stands in the source of this page)." : "");
  out += "<div id=\"tip\" role=\"tooltip\" hidden></div>\n";
  if (charts) out += scripts_html();
  return out + "</body>\n</html>\n";
}

bool is_report(std::string_view start) {
  return start.starts_with("<!doctype html>") && start.find("<title>nibble report") != std::string_view::npos;
}

}  // namespace nibble::report
