#include "report/card.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "report/numbers.h"
#include "report/table.h"
#include "report/views.h"

namespace nibble::report {
namespace {

using records::Modality;

constexpr std::string_view kMark = "<!-- Written by nibble. -->";

/// A text without the folders of the absolute names in it: a card is for others.
std::string without_folders(std::string_view text) {
  constexpr std::string_view kBefore = " ['\"`=:(,\n", kQuotes = "'\"`", kEnds = " \t\n,;:)'\"`";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const bool begins = text[at] == '/' && text.substr(at, 2) != "//" &&
                        (at == 0 || kBefore.find(text[at - 1]) != kBefore.npos);
    if (!begins) {
      out += text[at++];
      continue;
    }
    const bool quoted = at > 0 && kQuotes.find(text[at - 1]) != kQuotes.npos;
    const size_t end =
        std::min(quoted ? text.find(text[at - 1], at) : text.find_first_of(kEnds, at), text.size());
    const std::string_view name = text.substr(at, end - at);
    const size_t last = name.find_last_not_of('/');
    out += last == name.npos ? name : name.substr(name.find_last_of('/', last) + 1);
    at = end;
  }
  return out;
}

/// An owner or a name on the hub.
bool is_hub_part(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return !text.empty() && text[0] != '.' && text[0] != '-' && std::all_of(text.begin(), text.end(), fits);
}

std::string front_matter(const Card& card) {
  const records::Plan& plan = card.made.plan;
  std::string out = "---\n";
  if (!card.base_model.empty())
    out += fmt::format("base_model: {}\nbase_model_relation: quantized\n", card.base_model);
  out += fmt::format("library_name: transformers\npipeline_tag: {}\ntags:\n- nibble\n",
                     card.takes_pictures ? "image-text-to-text" : "text-generation");
  if (plan.kept() < std::ssize(plan.decisions))
    out += plan.format == "int8" ? "- bitsandbytes\n- 8-bit\n" : "- bitsandbytes\n- 4-bit\n- nf4\n";
  return out + "---\n\n";
}

std::string low_format(const records::Plan& plan) {
  return plan.format == "int8" ? "8 bits (LLM.int8)" : "4 bits (NF4 with double quantization)";
}

std::string summary(const Card& card) {
  const records::Plan& plan = card.made.plan;
  const std::string base = card.base_model.empty()
                               ? markdown_text(plan.model)
                               : fmt::format("[{0}](https://huggingface.co/{0})", card.base_model);
  if (plan.kept() == std::ssize(plan.decisions))
    return fmt::format("A {} checkpoint made of {}: every linear stays as it was.\n\n", card.family, base);
  return fmt::format(
      "A {} checkpoint made of {}: {} of {} stay as they were, the others are stored in {}. It is an "
      "ordinary "
      "bitsandbytes checkpoint, which transformers and PEFT load as it is.\n\n",
      card.family, base, plan.kept(), counted(std::ssize(plan.decisions), "linear", "linears"),
      low_format(plan));
}

std::string sizes(const Card& card) {
  const records::Plan& plan = card.made.plan;
  Table table({{""}, {"tensor data", Align::right}, {"bytes", Align::right}, {"of 16 bit", Align::right}});
  const auto add = [&](std::string name, int64_t bytes) {
    const double all = static_cast<double>(plan.bytes_all16);
    table.add_row({std::move(name), bytes_text(bytes), std::to_string(bytes),
                   all > 0 ? percent(static_cast<double>(bytes) / all) : "-"});
  };
  add("16 bit", plan.bytes_all16);
  add(plan.format == "int8" ? "all 8 bit" : "all 4 bit", plan.bytes_all4);
  add("this checkpoint", card.made.tensor_bytes);
  std::string out = "## Size\n\n" + table.to_markdown();
  if (!plan.budget.empty())
    out +=
        fmt::format("\nThe budget was {}: {}.\n", markdown_text(plan.budget), size_text(plan.budget_bytes));
  return out + "\n";
}

std::string kept(const records::Plan& plan) {
  std::string out = "## What stays in 16 bits\n\n";
  if (plan.kept() == 0) return out + "Nothing: every linear is quantized.\n\n";
  if (plan.kept() == std::ssize(plan.decisions)) return out + "Everything.\n\n";
  Table table({{"linears"}, {"reason"}});
  for (const KeptLine& line : kept_lines(plan)) table.add_row({line.linears(), line.reason});
  return out +
         fmt::format("Chosen by the policy {}. Embeddings, head and norms stay in 16 bits in any case.\n\n",
                     markdown_text(plan.policy)) +
         table.to_markdown() + "\n";
}

std::string verified(const records::Plan& plan) {
  if (!plan.verification || plan.verification->runs.empty()) return "";
  const records::Verification& verification = *plan.verification;
  const records::VerifiedRun& run = verification.runs[static_cast<size_t>(verification.chosen)];
  Table table({{"inputs"},
               {"number", Align::right},
               {"KL (95 % interval)", Align::right},
               {"predicted", Align::right}});
  for (const Modality m : records::kModalities) {
    const auto i = static_cast<size_t>(m);
    if (verification.inputs[i] == 0) continue;
    table.add_row({m == Modality::vision ? "with pictures" : "plain texts",
                   std::to_string(verification.inputs[i]), with_interval(run.kl[i]),
                   fmt::format("{:#.3g}", run.predicted[i])});
  }
  return fmt::format(
             "## Verified\n\nKL divergence of the next-token distribution from the 16-bit model's, in nats, "
             "on inputs that "
             "the plan was not made from ({}; {}):\n\n",
             markdown_text(fmt::format("{}", fmt::join(verification.data, ", "))),
             counted(std::ssize(verification.runs), "plan was run", "plans were run")) +
         table.to_markdown() + "\n";
}

std::string evaluated(const Card& card) {
  if (card.models.empty()) return "";
  std::vector<ComparisonRow> rows;
  for (const records::ComparedModel& model : card.models) rows.push_back(comparison_row(model));
  return "## Evaluated\n\n" + comparison(rows).to_markdown() + "\n";
}

/// How to load it, and to train an adapter on it.
std::string use(const Card& card) {
  const std::string maker = card.takes_pictures ? "AutoProcessor" : "AutoTokenizer";
  const std::string content = card.takes_pictures ? "[{\"type\": \"image\", \"path\": \"picture.jpg\"}, "
                                                    "{\"type\": \"text\", \"text\": \"Describe this "
                                                    "image.\"}]"
                                                  : "\"Why is the sky blue?\"";
  return fmt::format(
      "## Use\n\n```python\n"
      "from transformers import {2}, {1}\n\n"
      "folder = {0}  # or its name on the hub\n"
      "model = {1}.from_pretrained(folder, dtype=\"auto\", device_map=\"auto\")\n"
      "{3} = {2}.from_pretrained(folder)\n"
      "messages = [{{\"role\": \"user\", \"content\": {4}}}]\n"
      "inputs = {3}.apply_chat_template(\n"
      "    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors=\"pt\"\n"
      ").to(model.device)\n"
      "output = model.generate(**inputs, max_new_tokens=128)\n"
      "print({3}.decode(output[0, inputs[\"input_ids\"].shape[1]:], skip_special_tokens=True))\n"
      "```\n\n"
      "An adapter on top, with PEFT:\n\n```python\n"
      "from peft import LoraConfig, get_peft_model\n\n"
      "model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=\"all-linear\"))\n"
      "```\n\n",
      io::json_string(one_line(card.name)), card.model_class, maker,
      card.takes_pictures ? "processor" : "tokenizer", content);
}

}  // namespace

std::string hub_name(std::string_view model) {
  const std::string_view name = model.substr(0, model.find('@'));
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos || !is_hub_part(name.substr(0, slash)) ||
      !is_hub_part(name.substr(slash + 1)))
    return "";
  return std::string(name);
}

bool is_model_card(std::string_view text) {
  return text.find(kMark) != std::string_view::npos;
}

std::string model_card(const Card& card) {
  const records::Plan& plan = card.made.plan;
  std::string out = front_matter(card) + fmt::format("# {}\n\n{}\n\n", markdown_text(card.name), kMark);
  out += summary(card) + sizes(card) + kept(plan) + verified(plan) + evaluated(card) + use(card);
  out +=
      "Tested with transformers 4.57.6 and 5.23.0, bitsandbytes 0.48.2 and 0.50.2; older ones may not read "
      "it.\n\n"
      "## How it was made\n\n";
  out += fmt::format(
      "With nibble {}:\n\n    {}\n\n`nibble.json` beside this file holds every decision with its reason.\n",
      markdown_text(card.made.version), one_line(card.made.command));
  return without_folders(out);
}

}  // namespace nibble::report
