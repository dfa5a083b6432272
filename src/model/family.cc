#include "model/family.h"

#include <array>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "model/families/registry.h"

namespace nibble::model {

std::string respell(std::string_view name, Spelling spelling) {
  for (const Rename& r : spelling)
    if (name.starts_with(r.published))
      return std::string(r.other) + std::string(name.substr(r.published.size()));
  return std::string(name);
}

std::span<const Family* const> families() {
  static constexpr std::array all = {&kLlama, &kLlava, &kMllama, &kPhi3, &kQwen2Vl};
  return all;
}

const Family& find_family(const io::Fields& config) {
  const std::string model_type = config.string("model_type", "");
  for (const Family* family : families())
    if (family->model_type == model_type) return *family;
  std::string known;
  for (const Family* family : families())
    known += fmt::format("{}{}", known.empty() ? "" : ", ", family->model_type);
  if (!config.has("model_type"))
    fail("{}: model_type is missing; it must be a family that nibble knows: {}", config.what(), known);
  fail("{}: model_type \"{}\" is not a family that nibble knows; known: {}", config.what(),
       printable(model_type), known);
}

Spec describe(const Family& family, const io::Fields& config) {
  Spec spec = family.describe(config);
  int64_t total = 0;
  for (const TensorSpec& tensor : tensor_table(spec)) {
    const auto count = checked_product(tensor.shape);
    const auto sum = count ? checked_add(total, *count) : std::nullopt;
    if (!sum || *sum > kMaxParameters)
      fail("{}: its sizes give tensor {} of shape {}, more elements than there can be", config.what(),
           tensor.name, shape_text(tensor.shape));
    total = *sum;
  }
  return spec;
}

}  // namespace nibble::model
