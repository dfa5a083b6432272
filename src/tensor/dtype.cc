#include "tensor/dtype.h"

#include <array>

#include "base/error.h"

namespace nibble {
namespace {

struct Names {
  DType type;
  int64_t size;
  std::string_view safetensors, torch;
};

constexpr std::array<Names, 10> kTypes = {{{DType::f64, 8, "F64", "float64"},
                                           {DType::f32, 4, "F32", "float32"},
                                           {DType::bf16, 2, "BF16", "bfloat16"},
                                           {DType::f16, 2, "F16", "float16"},
                                           {DType::i64, 8, "I64", "int64"},
                                           {DType::i32, 4, "I32", "int32"},
                                           {DType::i16, 2, "I16", "int16"},
                                           {DType::i8, 1, "I8", "int8"},
                                           {DType::u8, 1, "U8", "uint8"},
                                           {DType::boolean, 1, "BOOL", "bool"}}};

const Names& names_of(DType type) {
  for (const auto& t : kTypes)
    if (t.type == type) return t;
  NIBBLE_CHECK(false, "dtype {}", static_cast<int>(type));
  return kTypes[0];
}

}  // namespace

int64_t dtype_size(DType type) {
  return names_of(type).size;
}

std::string_view dtype_name(DType type) {
  return names_of(type).safetensors;
}

std::string_view torch_name(DType type) {
  return names_of(type).torch;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const auto& t : kTypes)
    if (t.safetensors == name) return t.type;
  return std::nullopt;
}

std::optional<DType> parse_torch_name(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  for (const auto& t : kTypes)
    if (t.torch == name) return t.type;
  return std::nullopt;
}

bool is_float(DType type) {
  return type == DType::f64 || type == DType::f32 || type == DType::bf16 || type == DType::f16;
}

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

uint16_t float_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u)
    return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {  // below the smallest normal: the sum aligns the mantissa and rounds to even
    const float scaled = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(scaled) - 0x3f000000u));
  }
  const uint32_t rebased = magnitude - (112u << 23);
  return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
}

}  // namespace nibble
