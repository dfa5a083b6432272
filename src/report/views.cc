#include "report/views.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/text.h"

namespace nibble::report {
namespace {

using records::Decision;
using records::Interval;
using records::Modality;

/// The tokens whose activations a linear reads; `sees`: the model has a vision tower.
std::string modality_of(records::Part part, bool sees) {
  if (part != records::Part::text) return "vision";
  return sees ? "vision, text" : "text";
}

/// Two columns without a head: names and values.
Table facts() {
  return Table({{"", Align::left}, {"", Align::left}});
}

std::string counted(int64_t n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

std::string size_text(int64_t bytes) {
  return bytes < 1024 ? bytes_text(bytes) : fmt::format("{} ({} bytes)", bytes_text(bytes), bytes);
}

std::string error_text(double error) {
  return std::isfinite(error) ? fmt::format("{:.4f}", error) : "inf";
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

/// "85.6 to 96.4", in percent.
std::string percent_range(const Interval& share) {
  return fmt::format("{:.1f} to {:.1f}", 100 * share.low, 100 * share.high);
}

/// "0.0123 (0.0100 to 0.0151)": three significant digits, since divergences range over decades.
std::string with_interval(const Interval& value) {
  return fmt::format("{:#.3g} ({:#.3g} to {:#.3g})", value.mean, value.low, value.high);
}

/// "+10.0 %" of the bytes over those of all-4-bit.
std::string over_all4(int64_t bytes, int64_t all4) {
  if (all4 == 0) return "";
  return fmt::format("{:+.1f} %", 100 * (static_cast<double>(bytes) - static_cast<double>(all4)) /
                                      static_cast<double>(all4));
}

/// The name up to its last dot, and the rest.
std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {{}, name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

/// Neighbouring linears of one parent that are kept for one reason.
struct KeptLine {
  std::string parent, names, reason;
  double score = 0;
};

std::vector<KeptLine> kept_lines(const records::Plan& plan) {
  std::vector<KeptLine> lines;
  bool neighbour = false;  // the linear before was kept
  for (const auto& decision : plan.decisions) {
    const bool after = std::exchange(neighbour, decision.keep);
    if (!decision.keep) continue;
    const auto [parent, name] = split_name(decision.name);
    if (after && lines.back().parent == parent && lines.back().reason == decision.reason &&
        lines.back().score == decision.score) {
      lines.back().names += fmt::format(", {}", name);
    } else {
      lines.push_back({std::string(parent), std::string(name), decision.reason, decision.score});
    }
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.score > b.score; });
  return lines;
}

double worst_activation(const records::LinearErrors& errors) {
  return std::max(errors.activation[0].relative(), errors.activation[1].relative());
}

std::string activation_text(const records::ActivationError& error) {
  return error.rows == 0 ? "-" : error_text(error.relative());
}

}  // namespace

std::string inventory_text(const records::Inventory& inventory) {
  const bool sees = std::any_of(inventory.linears.begin(), inventory.linears.end(),
                                [](const auto& linear) { return linear.part == records::Part::vision; });
  Table table({{"linear"},
               {"group"},
               {"tap"},
               {"part"},
               {"modality"},
               {"role"},
               {"shape", Align::right},
               {"16 bit", Align::right},
               {"4 bit", Align::right}});
  for (const auto& linear : inventory.linears)
    table.add_row({linear.name, linear.group, linear.tap, std::string(part_name(linear.part)),
                   modality_of(linear.part, sees), std::string(role_name(linear.role)),
                   fmt::format("{} x {}", linear.out, linear.in), bytes_text(linear.bytes16),
                   bytes_text(linear.bytes4)});
  Table totals = facts();
  totals.add_row({"model", inventory.model});
  totals.add_row({"family", inventory.family});
  totals.add_row({"parameters", fmt::format("{}", inventory.parameters)});
  totals.add_row({"linears", fmt::format("{}", inventory.linears.size())});
  totals.add_row({"tensor data, 16 bit", size_text(inventory.bytes_all16())});
  totals.add_row({"tensor data, all 4 bit", "about " + size_text(inventory.bytes_all4())});
  return table.to_text() + "\n" + totals.to_text();
}

std::string sizes_text(const records::Inventory& inventory, int64_t ten_percent,
                       std::span<const std::pair<std::string, int64_t>> published) {
  const auto gib = [](int64_t bytes) {
    return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
  };
  int64_t codes = inventory.other_bytes;
  for (const records::LinearRecord& linear : inventory.linears) codes += (linear.out * linear.in + 1) / 2;
  Table table = facts();
  table.add_row({"model", inventory.model});
  table.add_row({"parameters", fmt::format("{:.3f} B ({})", static_cast<double>(inventory.parameters) / 1e9,
                                           inventory.parameters)});
  table.add_row({"linears", std::to_string(inventory.linears.size())});
  table.add_row({"16 bit", gib(inventory.bytes_all16())});
  table.add_row({"int8", gib(inventory.bytes_all8())});
  table.add_row({"4 bit, codes alone", gib(codes)});
  table.add_row({"4 bit", gib(inventory.bytes_all4())});
  table.add_row({"4 bit, budget 10%", gib(ten_percent)});
  for (const auto& [name, bytes] : published) table.add_row({name + ", codes alone", gib(bytes)});
  return table.to_text();
}

std::string measurements_text(const records::Measurements& measurements, int top) {
  Table head = facts();
  head.add_row({"model", measurements.inventory.model});
  head.add_row({"data", fmt::format("{}", fmt::join(measurements.data, ", "))});
  head.add_row({"samples", fmt::format("{} ({} vision rows, {} text rows)", measurements.samples,
                                       measurements.rows[0], measurements.rows[1])});
  head.add_row({"compute", measurements.compute});

  std::vector<size_t> order(measurements.errors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return worst_activation(measurements.errors[a]) > worst_activation(measurements.errors[b]);
  });
  const size_t all = order.size();
  if (top > 0) order.resize(std::min(all, static_cast<size_t>(top)));
  Table table({{"linear"},
               {"weight error", Align::right},
               {"vision error", Align::right},
               {"text error", Align::right}});
  for (const size_t i : order) {
    const auto& errors = measurements.errors[i];
    table.add_row({errors.name, error_text(errors.weight),
                   activation_text(errors.activation[static_cast<size_t>(Modality::vision)]),
                   activation_text(errors.activation[static_cast<size_t>(Modality::text)])});
  }
  return fmt::format("{}\nThe {} of {} with the largest activation errors in 4 bits:\n{}", head.to_text(),
                     order.size(), counted(static_cast<int64_t>(all), "linear", "linears"), table.to_text());
}

std::string plan_text(const records::Plan& plan) {
  const std::string over = over_all4(plan.bytes, plan.bytes_all4);
  Table head = facts();
  head.add_row({"model", plan.model});
  head.add_row({"policy", plan.policy});
  if (!plan.budget.empty())
    head.add_row({"budget", fmt::format("{}: {}", plan.budget, size_text(plan.budget_bytes))});
  head.add_row({"tensor data", over.empty()
                                   ? size_text(plan.bytes)
                                   : fmt::format("{}, {} over all-4-bit", size_text(plan.bytes), over)});
  head.add_row({"all 4 bit", size_text(plan.bytes_all4)});
  head.add_row({"16 bit", size_text(plan.bytes_all16)});
  head.add_row({"kept in 16 bits",
                fmt::format("{} of {}", plan.kept(),
                            counted(static_cast<int64_t>(plan.decisions.size()), "linear", "linears"))});
  std::string text = head.to_text();
  if (plan.kept() == 0) return text;
  Table table({{"kept"}, {"reason"}});
  for (const auto& line : kept_lines(plan))
    table.add_row({line.parent.empty()                          ? line.names
                   : line.names.find(", ") == std::string::npos ? line.parent + "." + line.names
                                                                : line.parent + ": " + line.names,
                   line.reason});
  return text + "\n" + table.to_text();
}

std::string evaluation_text(const records::Evaluation& evaluation) {
  int64_t generated = 0, exact = 0, positions = 0;
  for (const auto& sample : evaluation.samples) {
    generated += sample.generated ? 1 : 0;
    exact += sample.exact ? 1 : 0;
    positions += sample.positions;
  }
  Table table = facts();
  table.add_row({"model", evaluation.model});
  if (!evaluation.against.empty()) table.add_row({"against", evaluation.against});
  table.add_row({"compute", evaluation.compute});
  table.add_row({"tensor data", size_text(evaluation.tensor_bytes)});
  table.add_row({"samples", fmt::format("{} ({})", evaluation.samples.size(),
                                        counted(positions, "position", "positions"))});
  if (generated > 0)
    table.add_row({"exact", fmt::format("{} of {} ({}, {})", exact, generated, percent(evaluation.exact.mean),
                                        percent_range(evaluation.exact))});
  if (!evaluation.samples.empty()) {
    table.add_row({"loss", with_interval(evaluation.loss)});
    if (!evaluation.against.empty()) {
      table.add_row({"KL", with_interval(evaluation.kl)});
      table.add_row({"agreement", fmt::format("{} ({})", percent(evaluation.agreement.mean),
                                              percent_range(evaluation.agreement))});
    }
  }
  return table.to_text();
}

Table comparison(std::span<const ComparisonRow> rows) {
  constexpr int64_t widest_result = 48;
  const auto any = [rows](auto has) { return std::any_of(rows.begin(), rows.end(), has); };
  const bool unchanged = any([](const ComparisonRow& row) { return !row.unchanged.empty(); });
  const bool kl = any([](const ComparisonRow& row) { return row.kl.has_value(); });
  const bool agreement = any([](const ComparisonRow& row) { return row.agreement.has_value(); });
  std::vector<Column> columns = {{"Description"},
                                 {"Size", Align::right},
                                 {"Result", Align::left, widest_result},
                                 {"Exact", Align::right}};
  if (unchanged) columns.push_back({"Unchanged", Align::right});
  if (kl) columns.push_back({"KL", Align::right});
  if (agreement) columns.push_back({"Agreement", Align::right});
  Table table(std::move(columns));
  for (const auto& row : rows) {
    std::vector<std::string> cells = {row.description, bytes_text(row.bytes), row.result, percent(row.exact)};
    if (unchanged) cells.push_back(row.unchanged.empty() ? "-" : row.unchanged);
    if (kl) cells.push_back(row.kl ? with_interval(*row.kl) : "-");
    if (agreement) cells.push_back(row.agreement ? percent(*row.agreement) : "-");
    table.add_row(std::move(cells));
  }
  return table;
}

std::string comparison_table(std::span<const ComparisonRow> rows) {
  return comparison(rows).to_text();
}

}  // namespace nibble::report
