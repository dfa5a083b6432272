#include "report/views.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "records/groups.h"
#include "report/numbers.h"

namespace nibble::report {
namespace {

using records::Decision;
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

double worst_activation(const records::LinearErrors& errors) {
  return std::max(errors.activation[0].relative(), errors.activation[1].relative());
}

void add_answers(const records::Evaluation& evaluation, Table& table) {
  int64_t samples = 0, generated = 0, exact = 0, positions = 0;
  for (const auto& sample : evaluation.samples) {
    if (sample.plain) continue;
    ++samples;
    generated += sample.generated ? 1 : 0;
    exact += sample.exact ? 1 : 0;
    positions += sample.positions;
  }
  const records::AnswerTotals& totals = *evaluation.answers;
  table.add_row({"samples", fmt::format("{} ({})", samples, counted(positions, "position", "positions"))});
  if (generated > 0)
    table.add_row({"exact", fmt::format("{} of {} ({}, {})", exact, generated, percent(totals.exact.mean),
                                        percent_range(totals.exact))});
  table.add_row({"loss", with_interval(totals.loss)});
  if (evaluation.against.empty()) return;
  table.add_row({"KL", with_interval(totals.kl)});
  if (evaluation.picture_answers && evaluation.prompt_answers) {
    table.add_row({"KL, pictures", with_interval(evaluation.picture_answers->kl)});
    table.add_row({"KL, text prompts", with_interval(evaluation.prompt_answers->kl)});
  }
  table.add_row({"agreement", share_text(totals.agreement)});
}

void add_texts(const records::Evaluation& evaluation, Table& table) {
  int64_t windows = 0, tokens = 0, bytes = 0;
  for (const auto& sample : evaluation.samples) {
    if (!sample.plain) continue;
    ++windows;
    tokens += sample.positions;
    bytes += sample.bytes;
  }
  const records::TextTotals& totals = *evaluation.texts;
  table.add_row({"text", fmt::format("{} ({} predicted, {})", counted(windows, "window", "windows"),
                                     counted(tokens, "token", "tokens"), counted(bytes, "byte", "bytes"))});
  table.add_row({"text loss", loss_text(totals.loss)});
  table.add_row({"perplexity", perplexity_text(totals.perplexity)});
  table.add_row({"loss per byte", loss_text(totals.loss_per_byte)});
  if (evaluation.against.empty()) return;
  table.add_row({"text KL", with_interval(totals.kl)});
  table.add_row({"text agreement", share_text(totals.agreement)});
}

/// The facts that a model's results begin with.
template <typename Record>
Table facts_of(const Record& record) {
  Table table = facts();
  table.add_row({"model", record.model});
  if (!record.against.empty()) table.add_row({"against", record.against});
  table.add_row({"compute", record.compute});
  table.add_row({"tensor data", size_text(record.tensor_bytes)});
  return table;
}

/// "0.0012 on pictures, 3.1e-05 on texts", without what was not seen.
std::string kl_text(const std::array<double, 2>& kl) {
  if (kl[0] > 0 && kl[1] > 0) return fmt::format("{:#.3g} on pictures, {:#.3g} on texts", kl[0], kl[1]);
  return fmt::format("{:#.3g}", kl[0] + kl[1]);
}

/// Every plan that was run for real, the written one marked, with the typical KL by which it was chosen.
std::string verification_text(const records::Verification& verification) {
  const bool pictures = verification.inputs[0] > 0, texts = verification.inputs[1] > 0;
  const bool typical = std::any_of(verification.runs.begin(), verification.runs.end(),
                                   [](const records::VerifiedRun& run) { return run.typical.has_value(); });
  std::vector<Column> columns = {
      {"plans that were run"}, {"tensor data", Align::right}, {"kept", Align::right}};
  for (const auto& [there, name] : {std::pair{pictures, "pictures"}, std::pair{texts, "texts"}})
    if (there) {
      columns.push_back({fmt::format("predicted KL, {}", name), Align::right});
      if (typical) columns.push_back({"typical, all of them", Align::right});
      columns.push_back({fmt::format("real, held-out {}", name), Align::right});
    }
  Table table(std::move(columns));
  for (size_t i = 0; i < verification.runs.size(); ++i) {
    const records::VerifiedRun& run = verification.runs[i];
    std::vector<std::string> row = {
        run.label + (static_cast<int64_t>(i) == verification.chosen ? " (written)" : ""),
        bytes_text(run.bytes), std::to_string(run.kept)};
    for (size_t m = 0; m < 2; ++m)
      if (verification.inputs[m] > 0) {
        row.push_back(fmt::format("{:#.3g}", run.predicted[m]));
        if (typical) row.push_back(run.typical ? fmt::format("{:#.3g}", (*run.typical)[m]) : "");
        row.push_back(with_interval(run.kl[m]));
      }
    table.add_row(std::move(row));
  }
  return table.to_text();
}

/// A group of a plan with what its 16 bits cost and buy.
struct ExplainedGroup {
  std::string name;
  int64_t extra = 0;
  double score = 0, per_mib = 0;
  bool kept = false;
};

std::vector<ExplainedGroup> explained_groups(const records::Plan& plan,
                                             const records::Measurements& measurements) {
  std::vector<ExplainedGroup> out;
  for (const records::Group& group : records::group_linears(measurements.inventory, plan.fuse)) {
    const Decision& decision = plan.decisions.at(group.members[0]);
    ExplainedGroup& e =
        out.emplace_back(ExplainedGroup{group.name, group.extra_bytes(), decision.score, 0, decision.keep});
    e.per_mib = decision.score / (static_cast<double>(std::max<int64_t>(1, e.extra)) / (1 << 20));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.per_mib > b.per_mib; });
  return out;
}

template <records::KlKind kind>
std::string kl_cell(const ComparisonRow& row) {
  const auto& kl = row.kl[static_cast<size_t>(kind)];
  return kl ? with_interval(*kl) : "";
}

template <records::KlKind kind>
std::string spread_cell(const ComparisonRow& row) {
  if (!row.spread) return "";
  const auto& range = row.spread->kl[static_cast<size_t>(kind)];
  return range ? fmt::format("{:#.3g} to {:#.3g}", range->low, range->high) : "";
}

/// A name without the parents that it has in common with another, a dot before the rest: ".qkv"; "-" where
/// nothing is left.
std::string beside(const std::string& name, const std::string& other) {
  const auto [end, ignored] = std::mismatch(name.begin(), name.end(), other.begin(), other.end());
  if (end == name.end()) return "-";
  const auto common = static_cast<size_t>(end - name.begin());
  const size_t dot = std::string_view(name).substr(0, common + 1).rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot);
}

}  // namespace

std::string plan_explained(const records::Plan& plan, const records::Measurements& measurements) {
  constexpr int kLeftOut = 8;
  Table table({{"group"},
               {"stored", Align::left},
               {"extra", Align::right},
               {"together", Align::right},
               {"costs in 4 bits", Align::right},
               {"per MiB", Align::right}});
  int64_t together = 0;
  int left_out = 0;
  for (const ExplainedGroup& e : explained_groups(plan, measurements)) {
    if (!e.kept && ++left_out > kLeftOut) continue;
    if (e.kept) together += e.extra;
    table.add_row({e.name, e.kept ? "16 bit" : "4 bit", bytes_text(e.extra),
                   e.kept ? bytes_text(together) : "", fmt::format("{:.3g}", e.score),
                   fmt::format("{:.3g}", e.per_mib)});
  }
  std::string text = table.to_text();
  if (left_out > kLeftOut) text += fmt::format("and {} more groups in 4 bits\n", left_out - kLeftOut);
  return text + fmt::format("\n{}: {}, {} over all-4-bit\n", plan.policy, size_text(plan.bytes),
                            over_all4(plan.bytes, plan.bytes_all4));
}

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
    table.add_row({linear.name, beside(linear.group, linear.name), beside(linear.tap, linear.name),
                   std::string(part_name(linear.part)), modality_of(linear.part, sees),
                   std::string(role_name(linear.role)), fmt::format("{} x {}", linear.out, linear.in),
                   bytes_text(linear.bytes16), bytes_text(linear.bytes4)});
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
  const std::string guard = measurements.rounding.guard > 0
                                ? fmt::format(", with {} of nibble's texts",
                                              counted(measurements.rounding.guard, "window", "windows"))
                                : "";
  head.add_row({"samples", fmt::format("{}{} ({} vision rows, {} text rows)", measurements.samples, guard,
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
  if (!plan.rounding.plain())
    head.add_row({"rounding", plan.rounding.kind + (plan.rounding.in_order ? ", in order" : "")});
  if (plan.predicted)
    head.add_row(
        {"predicted KL", kl_text(*plan.predicted) + (plan.verification ? "" : "; the plan was not run")});
  std::string text = head.to_text();
  if (plan.verification) text += "\n" + verification_text(*plan.verification);
  if (plan.kept() == 0) return text;
  Table table({{"kept"}, {"reason"}});
  for (const auto& line : kept_lines(plan)) table.add_row({line.linears(), line.reason});
  return text + "\n" + table.to_text();
}

std::string evaluation_text(const records::Evaluation& evaluation) {
  Table table = facts_of(evaluation);
  if (evaluation.answers) add_answers(evaluation, table);
  if (evaluation.texts) add_texts(evaluation, table);
  return table.to_text();
}

std::string multiple_choice_text(const records::MultipleChoice& result) {
  int64_t fewer = 0;
  for (const auto& subject : result.subjects)
    fewer += std::count_if(subject.questions.begin(), subject.questions.end(),
                           [&](const auto& question) { return question.shots < result.shots; });
  Table head = facts_of(result);
  head.add_row({"data", result.data});
  head.add_row({"shots", fewer == 0 ? fmt::format("{}", result.shots)
                                    : fmt::format("{}, fewer for {}", result.shots,
                                                  counted(fewer, "question", "questions"))});
  head.add_row({"special tokens", result.special_tokens ? "yes" : "no"});
  head.add_row({"right", fmt::format("{} ({})", hits_text(result.accuracy), share_text(result.accuracy))});
  if (result.agreement)
    head.add_row(
        {"same choice", fmt::format("{} ({})", hits_text(*result.agreement), share_text(*result.agreement))});
  std::string text = head.to_text();
  const auto add = [&text](const std::string& header, const auto& parts) {
    if (parts.empty()) return;
    Table table({{header}, {"right", Align::right}, {"share, 95 %", Align::right}});
    for (const auto& part : parts)
      table.add_row({part.name, hits_text(part.accuracy), share_text(part.accuracy)});
    text += "\n" + table.to_text();
  };
  add("category", result.categories);
  add("subject", result.subjects);
  return text;
}

ComparisonRow comparison_row(const records::ComparedModel& model) {
  ComparisonRow row;
  row.description = model.description + (model.over_budget ? " (over the budget)" : "");
  row.bytes = model.bytes;
  row.rounding = model.rounding;
  row.spread = model.spread;
  row.unchanged = model.unchanged;
  row.result = model.result;
  if (model.choices) row.choices = model.choices->accuracy;
  if (!model.evaluation) return row;
  const records::Evaluation& evaluation = *model.evaluation;
  const bool compared = !evaluation.against.empty();
  for (const records::KlKind kind : records::kKlKinds)
    row.kl[static_cast<size_t>(kind)] = records::kl_of(evaluation, kind);
  const auto& samples = evaluation.samples;
  const bool asked = std::any_of(samples.begin(), samples.end(), [](const auto& s) { return s.generated; });
  if (evaluation.answers && asked) row.exact = evaluation.answers->exact.mean;
  if (evaluation.answers && compared) row.agreement = evaluation.answers->agreement.mean;
  row.texts = evaluation.texts;
  row.text_compared = compared;
  return row;
}

Table comparison(std::span<const ComparisonRow> rows) {
  using enum records::KlKind;
  constexpr int64_t widest_result = 48;
  struct Part {
    Column column;
    std::string (*cell)(const ComparisonRow&);  // "" for a missing value
    bool always = false;
  };
  using Row = const ComparisonRow&;
  const Part parts[] = {
      {{"Description"}, [](Row r) { return r.description; }, true},
      {{"Size", Align::right}, [](Row r) { return bytes_text(r.bytes); }, true},
      {{"Rounding"}, [](Row r) { return r.rounding; }},
      {{"KL, pictures", Align::right}, kl_cell<pictures>},
      {{"Spread, pictures", Align::right}, spread_cell<pictures>},
      {{"KL, prompts", Align::right}, kl_cell<prompts>},
      {{"Spread, prompts", Align::right}, spread_cell<prompts>},
      {{"KL, texts", Align::right}, kl_cell<texts>},
      {{"Spread, texts", Align::right}, spread_cell<texts>},
      {{"Agreement", Align::right}, [](Row r) { return r.agreement ? percent(*r.agreement) : ""; }},
      {{"Exact", Align::right}, [](Row r) { return r.exact ? percent(*r.exact) : ""; }},
      {{"Unchanged", Align::right}, [](Row r) { return r.unchanged; }},
      {{"Text loss", Align::right}, [](Row r) { return r.texts ? loss_text(r.texts->loss) : ""; }},
      {{"Perplexity", Align::right},
       [](Row r) { return r.texts ? perplexity_text(r.texts->perplexity) : ""; }},
      {{"Loss per byte", Align::right},
       [](Row r) { return r.texts ? loss_text(r.texts->loss_per_byte) : ""; }},
      {{"Text agreement", Align::right},
       [](Row r) { return r.texts && r.text_compared ? share_text(r.texts->agreement) : ""; }},
      {{"Right choices", Align::right}, [](Row r) { return r.choices ? hits_text(*r.choices) : ""; }},
      {{"Result", Align::left, widest_result}, [](Row r) { return r.result; }},
  };
  std::vector<Column> columns;
  std::vector<std::string (*)(Row)> cells;
  for (const Part& part : parts) {
    if (!part.always && std::all_of(rows.begin(), rows.end(), [&](Row r) { return part.cell(r).empty(); }))
      continue;
    columns.push_back(part.column);
    cells.push_back(part.cell);
  }
  Table table(std::move(columns));
  for (const ComparisonRow& row : rows) {
    std::vector<std::string> texts;
    for (const auto cell : cells) {
      texts.push_back(cell(row));
      if (texts.back().empty()) texts.back() = "-";
    }
    table.add_row(std::move(texts));
  }
  return table;
}

std::string comparison_table(std::span<const ComparisonRow> rows) {
  return comparison(rows).to_text();
}

}  // namespace nibble::report
