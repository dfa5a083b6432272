// The list of modules that readers must leave in 16 bits, spelled so that each reader skips exactly those.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/family.h"
#include "model/spec.h"

namespace nibble::write {

/// A reader's rule: does `key` of llm_int8_skip_modules make it skip the module `name` of its own module
/// tree?
struct ReaderRule {
  std::string_view reader;
  bool (*skips)(std::string_view key, std::string_view name);
  enum class Tree { published, module_tree, vllm } tree;
};

/// The rules of transformers 4.x (both module trees), 5.x before and from 5.23, and vLLM 0.10 to 0.27.
std::span<const ReaderRule> reader_rules();

/// llm_int8_skip_modules for the linears that stay in 16 bits, the head first. Each linear is spelled as in
/// the module tree, as published, and as vLLM names the module that it is fused into (when all of it stays).
std::vector<std::string> skip_list(const model::Spec& spec, const model::Family& family,
                                   const std::vector<const model::Linear*>& kept);

/// Checks the list against every rule over all linears and the head. Returns one line for each linear that a
/// reader would treat otherwise than planned; empty when all agree. vLLM is not asked about linears that it
/// fuses with one of another format.
std::vector<std::string> check_skip_list(const std::vector<std::string>& list, const model::Spec& spec,
                                         const model::Family& family,
                                         const std::vector<const model::Linear*>& kept);

}  // namespace nibble::write
