// The plain reference of every format function: straight loops by the definitions in format.h, one thread, no
// instruction sets. It stays beside the fast versions, which give the same bits and are tested against it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quant/format.h"
#include "quant/int8.h"

namespace nibble::quant::ref {

/// The 4-bit code of y = x * (1 / absmax).
uint8_t code_of(float y, Format format);

/// Codes of one block of elements to codes[0 .. (n + 1) / 2); returns its absmax. Used by the fast versions
/// too, for tail blocks and for blocks with elements that are not finite or whose reciprocal is infinite.
float encode_block(std::span<const float> x, Format format, uint8_t* codes);

/// The index in the dynamic map that is nearest to y, between two the even one; NaN gives 0.
uint8_t dynamic_index(float y);

/// Indices of one double-quantization block to q[0 .. n); returns its scale.
float encode_nested_block(std::span<const float> absmax, float offset, uint8_t* q);

/// weight_error adds up the sums of this many blocks, then the results (so that threads can share the work).
inline constexpr int64_t kErrorRange = 1024;

// As in format.h.
Packed4 encode4(const TensorView& weight, Format format, bool double_quant, int64_t block = kBlock);
NestedAbsmax encode_absmax(std::span<const float> absmax, std::optional<float> offset = std::nullopt);
std::vector<float> decode_absmax(const Packed4& packed);
Tensor decode4(const Packed4& packed, DType dtype);
std::optional<int64_t> find_nonfinite(const TensorView& tensor);
WeightError weight_error(const TensorView& original, const TensorView& decoded, int64_t block = kBlock);

// As in int8.h.
Packed8 encode8(const TensorView& weight);
Tensor decode8(const Packed8& packed, DType dtype);
std::optional<int64_t> find_beyond_f16(const TensorView& weight);
float encode_row8(std::span<const float> x, float threshold, int8_t* codes, uint8_t* outliers);

/// Element i of an f32, bf16 or f16 tensor, of any alignment.
float element(const TensorView& tensor, int64_t i);

}  // namespace nibble::quant::ref
