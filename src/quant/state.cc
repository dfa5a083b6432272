#include "quant/state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"

namespace nibble::quant {
namespace {

using nlohmann::json;

constexpr std::string_view kStatePrefix = ".quant_state.bitsandbytes__";
constexpr int64_t kLongestState = 1 << 16;  // bytes of JSON; real ones have less than 300
constexpr std::array<std::string_view, 7> kFields = {
    "quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"};

std::string state_suffix(Format format) {
  return std::string(kStatePrefix) + std::string(format_name(format));
}

/// The field `key`, which must be there.
const json& field(const json& state, std::string_view key, const std::string& what) {
  const auto it = state.find(key);
  if (it == state.end()) fail("{}: the quant_state has no \"{}\"", what, key);
  return *it;
}

std::string string_field(const json& state, std::string_view key, const std::string& what) {
  const json& value = field(state, key, what);
  if (!value.is_string()) fail("{}: \"{}\" of the quant_state is no string", what, key);
  return value.get<std::string>();
}

/// A whole number from `least` to `most`.
int64_t integer(const json& value, std::string_view key, int64_t least, int64_t most,
                const std::string& what) {
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(most)
                                               : value.is_number_integer() && value.get<int64_t>() <= most;
  if (!fits || value.get<int64_t>() < least)
    fail("{}: \"{}\" of the quant_state is {}, not a whole number from {} to {}", what, key,
         printable(value.dump(-1, ' ', true, json::error_handler_t::replace), 40), least, most);
  return value.get<int64_t>();
}

QuantState::Nested nested_fields(const json& state, const std::string& what) {
  QuantState::Nested nested;
  nested.block = integer(field(state, "nested_blocksize", what), "nested_blocksize", 1,
                         std::numeric_limits<int32_t>::max(), what);
  const std::string dtype = string_field(state, "nested_dtype", what);
  if (dtype != "float32")
    fail("{}: nested_dtype of the quant_state is \"{}\"; nibble reads \"float32\"", what,
         printable(dtype, 40));
  const json& offset = field(state, "nested_offset", what);
  if (!offset.is_number() || !(std::fabs(offset.get<double>()) <= std::numeric_limits<float>::max()))
    fail("{}: nested_offset of the quant_state is no finite fp32 number", what);
  nested.offset = static_cast<float>(offset.get<double>());
  return nested;
}

TensorView needed(const TensorLookup& lookup, const std::string& suffix, const std::string& what) {
  const auto view = lookup(suffix);
  if (!view) fail("{}{} is missing; a 4-bit weight needs it", what, suffix);
  return *view;
}

void check_tensor(const TensorView& view, DType dtype, int64_t count, const std::string& what) {
  if (view.dtype != dtype)
    fail("{} is {}; a 4-bit weight needs {} here", what, dtype_name(view.dtype), dtype_name(dtype));
  if (checked_product(view.shape) != count)
    fail("{} has shape {}, but its quant_state asks for {} values", what, shape_text(view.shape), count);
}

/// Copies an F32 tensor of target.size() values, all finite.
void read_floats(const TensorView& view, std::span<float> target, const std::string& what) {
  check_tensor(view, DType::f32, std::ssize(target), what);
  if (!target.empty()) std::memcpy(target.data(), view.data, target.size_bytes());
  for (size_t i = 0; i < target.size(); ++i)
    if (!std::isfinite(target[i])) fail("{} holds {} at {}; the file is damaged", what, target[i], i);
}

std::vector<uint8_t> read_bytes(const TensorView& view, int64_t count, const std::string& what) {
  check_tensor(view, DType::u8, count, what);
  const auto* bytes = view.as<uint8_t>();
  return count == 0 ? std::vector<uint8_t>() : std::vector<uint8_t>(bytes, bytes + count);
}

/// The quant_state, found under the one of its two names that is there.
QuantState read_state(const TensorLookup& lookup, const std::string& what) {
  const auto nf4 = lookup(state_suffix(Format::nf4)), fp4 = lookup(state_suffix(Format::fp4));
  if (!nf4 && !fp4) fail("{}{}nf4 (or fp4) is missing; a 4-bit weight needs it", what, kStatePrefix);
  if (nf4 && fp4) fail("{} has a quant_state for nf4 and one for fp4", what);
  const Format named = nf4 ? Format::nf4 : Format::fp4;
  const TensorView& view = nf4 ? *nf4 : *fp4;
  const std::string name = what + state_suffix(named);
  const auto length = checked_product(view.shape);
  if (view.dtype != DType::u8 || !length || *length > kLongestState)
    fail("{} is {} of shape {}; it should be U8 with at most {} bytes of JSON", name, dtype_name(view.dtype),
         shape_text(view.shape), kLongestState);
  const QuantState state =
      parse_quant_state({reinterpret_cast<const char*>(view.data), static_cast<size_t>(*length)}, name);
  if (state.format != named) fail("{} says quant_type \"{}\"", name, format_name(state.format));
  return state;
}

}  // namespace

std::string quant_state_json(const Packed4& packed) {
  NIBBLE_CHECK(packed.format != Format::bf16);
  std::string text = fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": {})",
                                 format_name(packed.format), packed.block, torch_name(packed.dtype),
                                 shape_text(packed.shape));
  if (packed.nested) {
    NIBBLE_CHECK(std::isfinite(packed.nested->offset), "nested_offset {}", packed.nested->offset);
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                        packed.nested->nested_block, python_repr(packed.nested->offset));
  }
  return text + "}";
}

QuantState parse_quant_state(std::string_view text, const std::string& what) {
  // A list of numbers in an object is all that there is to nest.
  const auto check_depth = [&](int depth, json::parse_event_t, json&) {
    constexpr int kMaxDepth = 4;
    if (depth > kMaxDepth) fail("{}: the quant_state is nested deeper than {} levels", what, kMaxDepth);
    return true;
  };
  const json state = json::parse(text.begin(), text.end(), check_depth, /*allow_exceptions=*/false);
  if (!state.is_object()) fail("{}: the quant_state is no JSON object", what);
  for (const auto& [key, value] : state.items())
    if (std::find(kFields.begin(), kFields.end(), key) == kFields.end())
      fail("{}: the quant_state has an unknown field \"{}\"", what, printable(key, 40));
  QuantState out;
  const std::string type = string_field(state, "quant_type", what);
  const auto format = parse_format(type);
  if (!format || *format == Format::bf16)
    fail("{}: quant_type of the quant_state is \"{}\"; nibble reads \"nf4\" and \"fp4\"", what,
         printable(type, 40));
  out.format = *format;
  out.block = integer(field(state, "blocksize", what), "blocksize", 32, 4096, what);
  if (!valid_block(out.block))
    fail("{}: blocksize of the quant_state is {}, no power of two", what, out.block);
  const std::string dtype = string_field(state, "dtype", what);
  const auto parsed = parse_torch_name(dtype);
  if (!parsed || (*parsed != DType::f32 && *parsed != DType::bf16 && *parsed != DType::f16))
    fail("{}: dtype of the quant_state is \"{}\"; nibble reads float32, bfloat16 and float16", what,
         printable(dtype, 40));
  out.dtype = *parsed;
  const json& shape = field(state, "shape", what);
  if (!shape.is_array()) fail("{}: \"shape\" of the quant_state is no list", what);
  if (shape.size() > kMaxRank)
    fail("{}: \"shape\" of the quant_state has {} numbers, more than {}", what, shape.size(), kMaxRank);
  for (const json& d : shape)
    out.shape.push_back(integer(d, "shape", 0, std::numeric_limits<int64_t>::max(), what));
  // Sizes in bytes of fp32 must fit too.
  const auto count = checked_product(out.shape);
  if (!count || !checked_mul(*count, 4)) fail("{}: the shape of the quant_state is too large", what);
  if (std::any_of(kFields.begin() + 4, kFields.end(),
                  [&](std::string_view key) { return state.contains(key); }))
    out.nested = nested_fields(state, what);
  return out;
}

std::vector<StoredTensor> to_tensors(const Packed4& packed) {
  std::vector<StoredTensor> out;
  const auto add = [&](std::string suffix, DType dtype, Shape shape, const void* data) {
    out.push_back(
        {std::move(suffix), {dtype, std::move(shape), static_cast<const std::byte*>(data)}, nullptr});
  };
  add("", DType::u8, {std::ssize(packed.codes), 1}, packed.codes.data());
  if (packed.nested)
    add(".absmax", DType::u8, {std::ssize(packed.nested->q)}, packed.nested->q.data());
  else
    add(".absmax", DType::f32, {std::ssize(packed.absmax)}, packed.absmax.data());
  add(".quant_map", DType::f32, {std::ssize(packed.code)}, packed.code.data());
  if (packed.nested) {
    add(".nested_absmax", DType::f32, {std::ssize(packed.nested->absmax)}, packed.nested->absmax.data());
    add(".nested_quant_map", DType::f32, {std::ssize(packed.nested->map)}, packed.nested->map.data());
  }
  auto text = std::make_shared<const std::string>(quant_state_json(packed));
  add(state_suffix(packed.format), DType::u8, {std::ssize(*text)}, text->data());
  out.back().text = std::move(text);
  return out;
}

Packed4 from_tensors(const TensorLookup& lookup, const std::string& what) {
  const QuantState state = read_state(lookup, what);
  Packed4 out;
  out.format = state.format;
  out.shape = state.shape;
  out.dtype = state.dtype;
  out.block = state.block;
  const auto count = checked_product(state.shape);
  NIBBLE_CHECK(count);
  const int64_t blocks = block_count(*count, out.block);
  out.codes = read_bytes(needed(lookup, "", what), *count / 2 + *count % 2, what);
  read_floats(needed(lookup, ".quant_map", what), out.code, what + ".quant_map");
  const TensorView absmax = needed(lookup, ".absmax", what);
  if (!state.nested) {
    for (const std::string suffix : {".nested_absmax", ".nested_quant_map"})
      if (lookup(suffix)) fail("{}{} is there, but the quant_state has no nested_offset", what, suffix);
    check_tensor(absmax, DType::f32, blocks, what + ".absmax");
    out.absmax.resize(static_cast<size_t>(blocks));
    read_floats(absmax, out.absmax, what + ".absmax");
    return out;
  }
  NestedAbsmax& nested = out.nested.emplace();
  nested.nested_block = state.nested->block;
  nested.offset = state.nested->offset;
  nested.q = read_bytes(absmax, blocks, what + ".absmax");
  const TensorView scales = needed(lookup, ".nested_absmax", what);
  const int64_t scale_count = block_count(blocks, nested.nested_block);
  check_tensor(scales, DType::f32, scale_count, what + ".nested_absmax");
  nested.absmax.resize(static_cast<size_t>(scale_count));
  read_floats(scales, nested.absmax, what + ".nested_absmax");
  read_floats(needed(lookup, ".nested_quant_map", what), nested.map, what + ".nested_quant_map");
  return out;
}

}  // namespace nibble::quant
