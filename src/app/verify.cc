#include "write/verify.h"

#include <algorithm>

#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "report/table.h"

namespace nibble::app {
namespace {

struct Options {
  std::string model, source;
};

io::Json to_json(const std::vector<write::FileCheck>& files) {
  io::Json out = io::Json::array();
  for (const write::FileCheck& f : files)
    out.push_back({{"file", f.file},
                   {"tensors", f.tensors},
                   {"bytes", f.bytes},
                   {"kept", f.kept},
                   {"rounded", f.rounded},
                   {"largest_error", f.largest_error},
                   {"problems", f.problems}});
  return out;
}

/// Weight errors that plain rounding stays below.
constexpr double kPlainErrors = 0.2;

std::string table_text(const std::vector<write::FileCheck>& files, bool against_source) {
  using report::Align;
  std::vector<report::Column> columns = {
      {"file"}, {"tensors", Align::right}, {"bytes", Align::right}, {"as written", Align::right}};
  if (against_source)
    columns.insert(
        columns.end(),
        {{"like source", Align::right}, {"rounded", Align::right}, {"largest weight error", Align::right}});
  report::Table table(columns);
  for (const write::FileCheck& f : files) {
    std::vector<std::string> row = {f.file, f.tensors > 0 ? std::to_string(f.tensors) : "-",
                                    bytes_text(f.bytes), f.problems.empty() ? "yes" : "NO"};
    if (against_source)
      row.insert(row.end(), {f.tensors > 0 ? std::to_string(f.kept) : "-",
                             f.tensors > 0 ? std::to_string(f.rounded) : "-",
                             f.rounded > 0 ? fmt::format("{:.4g}", f.largest_error) : "-"});
    table.add_row(row);
  }
  std::string text = table.to_text();
  const bool far =
      std::any_of(files.begin(), files.end(), [](const auto& f) { return f.largest_error > kPlainErrors; });
  if (against_source && far)
    text +=
        "\nCodes that are rounded by statistics may lie far from weights whose inputs are small: it is the "
        "outputs "
        "that they keep.\n";
  return text;
}

void verify(const Options& o, const Common& common) {
  const model::Binding written(io::resolve_model(o.model));
  std::optional<model::Binding> source;
  if (!o.source.empty()) source.emplace(io::resolve_model(o.source));
  const auto [files, sides_recorded] = write::verify(written, source ? &*source : nullptr);
  if (common.json)
    print_json(to_json(files));
  else
    print(table_text(files, source.has_value()));
  if (!sides_recorded)
    tell(
        fmt::format("{}: does not record the files beside the weights (an older nibble wrote it): of these, "
                    "config.json's quantization_config alone was checked",
                    (written.checkpoint().folder() / "nibble.json").string()));
  std::vector<std::string> problems;
  for (const write::FileCheck& f : files)
    problems.insert(problems.end(), f.problems.begin(), f.problems.end());
  if (problems.empty()) return;
  for (size_t i = 1; i < problems.size(); ++i) tell("nibble: " + problems[i]);
  fail("{}", problems.front());
}

}  // namespace

void add_verify(CLI::App& app, Common& common) {
  auto o = std::make_shared<Options>();
  CLI::App* command = add_command(app, common, "verify",
                                  "Read a written checkpoint again: every tensor and file against "
                                  "nibble.json, and against the 16-bit source",
                                  "nibble verify qwen2-vl-tiny-dynamic --against models/qwen2-vl-tiny",
                                  [o, &common] { verify(*o, common); });
  add_model(command, o->model);
  command->add_option("--against", o->source, "The 16-bit checkpoint that it was made of")
      ->type_name("MODEL");
  add_json_flag(command, common);
}

}  // namespace nibble::app
