// Arithmetic on sizes that come from files: overflow is an error, never a wrap.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace nibble {

/// a * b, or nothing when it does not fit in int64 or a factor is negative.
inline std::optional<int64_t> checked_mul(int64_t a, int64_t b) {
  int64_t r = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

/// a + b, or nothing when it does not fit in int64 or a term is negative.
inline std::optional<int64_t> checked_add(int64_t a, int64_t b) {
  int64_t r = 0;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

/// The product of all dimensions (1 for a scalar), or nothing on overflow or a negative dimension.
inline std::optional<int64_t> checked_product(std::span<const int64_t> dims) {
  int64_t r = 1;
  for (int64_t d : dims) {
    auto next = checked_mul(r, d);
    if (!next) return std::nullopt;
    r = *next;
  }
  return r;
}

}  // namespace nibble
