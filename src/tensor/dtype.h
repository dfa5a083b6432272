// Element types of tensors as safetensors names them, and conversions between the float types.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

enum class DType { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean };

/// Bytes of one element.
int64_t dtype_size(DType type);

/// The safetensors name: "F64", "F32", "BF16", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL".
std::string_view dtype_name(DType type);

/// The type of a safetensors name, or nothing.
std::optional<DType> parse_dtype(std::string_view name);

/// The torch name ("float32", "bfloat16", "float16", "int8", "uint8", ...), as config.json spells it.
std::string_view torch_name(DType type);

/// The type of a torch name (with or without "torch."), or nothing.
std::optional<DType> parse_torch_name(std::string_view name);

/// True for f64, f32, bf16 and f16.
bool is_float(DType type);

inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// Rounds to nearest even; a NaN stays a (quiet) NaN.
inline uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_float(uint16_t bits);

/// Rounds to nearest even; too large becomes infinity, a NaN stays a NaN.
uint16_t float_to_f16(float value);

}  // namespace nibble
