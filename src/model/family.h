// Families: one record answers everything about an architecture. Adding one touches one file under families/
// and one line of the registry.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "model/spec.h"

namespace nibble::model {

/// A module name of the published spelling that starts with `published` starts with `other` for some reader.
struct Rename {
  std::string_view published, other;
};

/// How a kind of readers names modules that the files name otherwise. The first rename that fits is taken.
using Spelling = std::span<const Rename>;

/// `name` in another spelling; unchanged when no rename fits.
std::string respell(std::string_view name, Spelling spelling);

/// How pictures are made into patches.
enum class ImageFormat { none, qwen2_vl, mllama, pixtral };

struct Family {
  std::string_view model_type;   // of config.json
  std::string_view title;        // for people
  std::string_view model_class;  // of transformers, which loads a checkpoint

  /// The model that a config.json describes, published or transformers-5 style. Throws Error naming the
  /// field.
  Spec (*describe)(const io::Fields& config);

  /// config.json so that readers of both styles compute the same: each style's keys beside the other's.
  io::Json (*config_for_both)(const io::Json& config);

  Spelling module_tree;  // of transformers since 4.52
  Spelling vllm;         // of vLLM

  /// vLLM's fused module (its last name part) of a role, "" where it keeps the linear as it is.
  std::string_view (*vllm_fused)(Role role);

  /// The chat format (Jinja) where a checkpoint brings none. A message's content is a list of parts for
  /// families that take pictures, and a text for others.
  std::string_view chat_template;

  ImageFormat image = ImageFormat::none;
};

/// All families, in order of their model_type.
std::span<const Family* const> families();

/// The family of a config.json. Throws Error that lists the families known.
const Family& find_family(const io::Fields& config);

/// The model that a config.json of this family describes. Throws Error naming the field, also where the sizes
/// give a tensor, or all tensors together, more than kMaxParameters elements.
Spec describe(const Family& family, const io::Fields& config);
/// With so many elements, in whatever storage, no sum of bytes overflows.
inline constexpr int64_t kMaxParameters = (int64_t{1} << 53) - 1;

}  // namespace nibble::model
