#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "report/views.h"

namespace nibble::app {
namespace {

/// How each linear is stored, and the skip list of a quantized checkpoint.
io::Json storage_json(const model::Binding& binding) {
  io::Json linears = io::Json::object();
  for (const model::Linear* l : model::linears(binding.spec())) {
    const model::BoundLinear& bound = binding.linear(*l);
    linears[l->name] = {{"stored", model::storage_text(bound)}, {"bytes", bound.bytes}};
  }
  io::Json out = {{"tensor_bytes", binding.tensor_bytes()}, {"linears", linears}};
  const io::Json& config = binding.checkpoint().config();
  if (config.contains("quantization_config")) out["quantization_config"] = config["quantization_config"];
  return out;
}

std::string storage_table(const model::Binding& binding) {
  report::Table table(
      {{"linear"}, {"shape", report::Align::right}, {"stored"}, {"bytes", report::Align::right}});
  for (const model::Linear* l : model::linears(binding.spec())) {
    const model::BoundLinear& bound = binding.linear(*l);
    table.add_row({l->name, fmt::format("{} x {}", l->out, l->in), model::storage_text(bound),
                   bytes_text(bound.bytes)});
  }
  std::string out = table.to_text();
  out += fmt::format("\ntensor data {}\n", bytes_text(binding.tensor_bytes()));
  const io::Json& config = binding.checkpoint().config();
  if (!config.contains("quantization_config")) return out;
  const io::Json& section = config["quantization_config"];
  if (!section.is_object() || !section.contains("llm_int8_skip_modules")) return out;
  const io::Json& list = section["llm_int8_skip_modules"];
  if (!list.is_array()) return out + "skip list: the reader's default\n";
  out += fmt::format("skip list ({} names)\n", list.size());
  for (const io::Json& name : list)
    out += fmt::format("  {}\n", name.is_string() ? name.get<std::string>() : name.dump());
  return out;
}

}  // namespace

void add_inspect(CLI::App& app, Common& common) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = add_command(
      app, common, "inspect",
      "Show a model's linears with groups, taps, shapes and sizes, or how a quantized one is stored",
      "nibble inspect models/qwen2-vl-tiny", [name, &common] {
        const model::Binding binding(io::resolve_model(*name));
        const bool quantized = binding.quantized();
        const records::Inventory inventory = binding.inventory(*name);
        if (common.json) {
          io::Json out = records::to_json(inventory);
          if (quantized) out["storage"] = storage_json(binding);
          print_json(out);
        } else {
          print(quantized ? fmt::format("{} ({})\n", *name, binding.family().title) + storage_table(binding)
                          : report::inventory_text(inventory));
        }
      });
  add_model(command, *name);
  add_json_flag(command, common);
}

}  // namespace nibble::app
