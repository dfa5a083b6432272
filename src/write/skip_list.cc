#include "write/skip_list.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"

namespace nibble::write {
namespace {

/// Python's re.match(key, name): keys hold no special characters but the point, which fits any one character.
/// Returns the length of the match, or npos.
size_t regex_match(std::string_view key, std::string_view name) {
  if (key.size() > name.size()) return std::string_view::npos;
  for (size_t i = 0; i < key.size(); ++i)
    if (key[i] != '.' && key[i] != name[i]) return std::string_view::npos;
  return key.size();
}

bool transformers_4(std::string_view key, std::string_view name) {
  const size_t point = name.rfind('.');
  const std::string_view last = point == std::string_view::npos ? name : name.substr(point + 1);
  return last == key || name == key || name.find(std::string(key) + ".") != std::string_view::npos;
}

bool transformers_5(std::string_view key, std::string_view name) {
  return regex_match(key, name) != std::string_view::npos || name.ends_with(key);
}

bool transformers_5_23(std::string_view key, std::string_view name) {
  const size_t length = regex_match(key, name);
  const bool whole = length != std::string_view::npos && (length == name.size() || name[length] == '.');
  return whole || name.ends_with(key);
}

bool vllm(std::string_view key, std::string_view name) {
  if (name == key || name.starts_with(std::string(key) + ".")) return true;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    if (name.substr(at, end - at) == key) return true;
    at = end + 1;
  }
  return false;
}

std::string parent(const std::string& name) {
  return name.substr(0, name.rfind('.') + 1);
}

/// The module of vLLM that holds a linear: its own, or the one it is fused into.
std::string vllm_module(const model::Linear& linear, const model::Family& family) {
  const std::string_view fused = family.vllm_fused(linear.role);
  return model::respell(fused.empty() ? linear.name : parent(linear.name) + std::string(fused), family.vllm);
}

/// The name of a module in a reader's tree.
std::string reader_name(const std::string& published, const model::Family& family, ReaderRule::Tree tree) {
  switch (tree) {
    case ReaderRule::Tree::published:
      return published;
    case ReaderRule::Tree::module_tree:
      return model::respell(published, family.module_tree);
    case ReaderRule::Tree::vllm:
      return model::respell(published, family.vllm);
  }
  return published;
}

std::string reader_name(const model::Linear& linear, const model::Family& family, ReaderRule::Tree tree) {
  return tree == ReaderRule::Tree::vllm ? vllm_module(linear, family)
                                        : reader_name(linear.name, family, tree);
}

/// Modules of vLLM whose members do not all have one format.
std::set<std::string> mixed_modules(const model::Spec& spec, const model::Family& family,
                                    const std::set<std::string>& kept) {
  std::set<std::string> with, without, out;
  for (const model::Linear* l : model::linears(spec))
    (kept.contains(l->name) ? with : without).insert(vllm_module(*l, family));
  std::set_intersection(with.begin(), with.end(), without.begin(), without.end(),
                        std::inserter(out, out.end()));
  return out;
}

std::set<std::string> names_of(const std::vector<const model::Linear*>& kept) {
  std::set<std::string> out;
  for (const model::Linear* l : kept) out.insert(l->name);
  return out;
}

}  // namespace

std::span<const ReaderRule> reader_rules() {
  using Tree = ReaderRule::Tree;
  static constexpr std::array rules = {
      ReaderRule{"transformers before 4.52", transformers_4, Tree::published},
      ReaderRule{"transformers 4.52 to 4.57", transformers_4, Tree::module_tree},
      ReaderRule{"transformers 5 before 5.23", transformers_5, Tree::module_tree},
      ReaderRule{"transformers 5.23", transformers_5_23, Tree::module_tree},
      ReaderRule{"vLLM 0.10 to 0.27", vllm, Tree::vllm},
  };
  return rules;
}

std::vector<std::string> skip_list(const model::Spec& spec, const model::Family& family,
                                   const std::vector<const model::Linear*>& kept) {
  const auto mixed = mixed_modules(spec, family, names_of(kept));
  std::vector<std::string> out;
  std::set<std::string> seen;
  const auto add = [&](const std::string& key) {
    if (seen.insert(key).second) out.push_back(key);
  };
  using Tree = ReaderRule::Tree;
  for (const Tree tree : {Tree::module_tree, Tree::published}) add(reader_name(spec.text.head, family, tree));
  for (const model::Linear* l : kept) {
    add(model::respell(l->name, family.module_tree));
    add(l->name);
    if (const std::string module = vllm_module(*l, family); !mixed.contains(module)) add(module);
  }
  return out;
}

std::vector<std::string> check_skip_list(const std::vector<std::string>& list, const model::Spec& spec,
                                         const model::Family& family,
                                         const std::vector<const model::Linear*>& kept) {
  const std::set<std::string> names = names_of(kept);
  const auto mixed = mixed_modules(spec, family, names);
  std::vector<std::string> out;
  const auto ask = [&](const ReaderRule& rule, const std::string& name, bool wanted) {
    const bool skips =
        std::any_of(list.begin(), list.end(), [&](const auto& key) { return rule.skips(key, name); });
    if (skips != wanted)
      out.push_back(fmt::format("{} would {} {}", rule.reader, skips ? "skip" : "quantize", name));
  };
  for (const ReaderRule& rule : reader_rules()) {
    for (const model::Linear* l : model::linears(spec)) {
      const std::string name = reader_name(*l, family, rule.tree);
      if (rule.tree == ReaderRule::Tree::vllm && mixed.contains(name)) continue;
      ask(rule, name, names.contains(l->name));
    }
    ask(rule, reader_name(spec.text.head, family, rule.tree), true);
  }
  return out;
}

}  // namespace nibble::write
