#include "app/commands.h"
#include "base/error.h"
#include "base/text.h"
#include "model/config.h"
#include "model/sizes.h"
#include "plan/plan.h"
#include "plan/published.h"
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

/// Bytes with the codes of every linear that is not kept, scales not counted, as published sizes are.
int64_t codes_bytes(const records::Inventory& inventory, const std::vector<bool>& kept) {
  int64_t out = inventory.other_bytes;
  for (size_t i = 0; i < kept.size(); ++i) {
    const records::LinearRecord& l = inventory.linears[i];
    out += kept[i] ? l.bytes16 : (l.out * l.in + 1) / 2;
  }
  return out;
}

/// Sizes from a config.json alone.
void inspect_config(const std::string& path, const Common& common) {
  const io::Json json = io::read_json(path);
  const io::Fields config(json, path);
  const model::Spec spec = model::describe(model::find_family(config), config);
  const records::Inventory inventory = model::inventory_of(spec, model::config_dtype(config), path);
  const int64_t ten_percent = plan::parse_budget("10%", inventory);
  std::vector<std::pair<std::string, int64_t>> published;
  for (const auto& list :
       plan::published_lists(share_folder() / "lists", inventory,
                             static_cast<int64_t>(spec.text.stack.blocks.size()), spec.text.stack.hidden))
    published.emplace_back("published for " + list.model, codes_bytes(inventory, list.kept));
  if (!common.json) return print(report::sizes_text(inventory, ten_percent, published));
  io::Json out = records::to_json(inventory);
  out["sizes"] = {{"bytes_16", inventory.bytes_all16()},
                  {"bytes_int8", inventory.bytes_all8()},
                  {"bytes_4_codes", codes_bytes(inventory, std::vector<bool>(inventory.linears.size()))},
                  {"bytes_4", inventory.bytes_all4()},
                  {"bytes_10_percent", ten_percent}};
  out["published"] = io::Json::object();
  for (const auto& [name, bytes] : published) out["published"][name] = bytes;
  print_json(out);
}

}  // namespace

void add_inspect(CLI::App& app, Common& common) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = add_command(
      app, common, "inspect",
      "Show a model's linears with groups, taps, shapes and sizes, or how a quantized one is stored; of a "
      "config.json alone, the sizes",
      "nibble inspect models/qwen2-vl-tiny", [name, &common] {
        std::error_code ignored;
        if (name->ends_with(".json") && !std::filesystem::is_directory(*name, ignored))
          return inspect_config(*name, common);
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
  add_model(command, *name, "; or a config.json alone");
  add_json_flag(command, common);
}

}  // namespace nibble::app
