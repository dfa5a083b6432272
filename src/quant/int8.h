// LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339) as bitsandbytes stores it: a linear (out, in) in 8-bit
// codes with one fp32 scale per row. All functions are thread-safe and use nibble's threads inside; the bytes
// do not depend on their number, nor on the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/format.h"
#include "quant/state.h"
#include "tensor/tensor.h"

namespace nibble::quant {

/// The factor of decoding: 1 / 127 as bitsandbytes writes it, in fp32.
inline constexpr float kInverse127 = 7.874015718698502e-3f;

/// An 8-bit weight as it lies in a file.
struct Packed8 {
  Shape shape;                // (out, in)
  DType dtype = DType::f16;   // of the decoded weight; a file does not tell it
  std::vector<int8_t> codes;  // (out, in)
  std::vector<float> scb;     // (out): the absmax of each row
};

/// Rounds to 8 bits as bitsandbytes does on a CPU. Per row: every element is rounded to fp16, scb = max |x|,
/// and the code is x * (1 / scb * 127), three roundings of fp32 (so torch divides 127 by a tensor), then to
/// the nearest whole number, between two to the even one; a row of zeros has codes and scale 0. weight: (out,
/// in) of f32, bf16 or f16, of any alignment (InternalError otherwise). Elements should be within fp16 (see
/// find_beyond_f16): a row with others gets an infinite or NaN scale and codes 0, as there.
Packed8 encode8(const TensorView& weight);

/// code * scb * kInverse127, from left to right in fp32, rounded to nearest even to `dtype` (f32, bf16 or
/// f16): bitsandbytes' int8_vectorwise_dequant, and transformers' dequantize. InternalError when the sizes in
/// `packed` contradict each other.
Tensor decode8(const Packed8& packed, DType dtype);
/// The same in the weight's own dtype.
inline Tensor decode8(const Packed8& packed) {
  return decode8(packed, packed.dtype);
}

/// Flat index of the first element that fp16 does not hold: NaN, infinity, or a magnitude of 65520 or more,
/// which rounds to infinity. Nothing when there is none. weight: f32, bf16 or f16.
std::optional<int64_t> find_beyond_f16(const TensorView& weight);

/// Bytes of tensor data that a linear (out, in) takes in a file: codes, scales and the byte of weight_format.
constexpr int64_t packed8_bytes(int64_t out, int64_t in) {
  return out * in + out * 4 + 1;
}

/// The tensors of a linear X in the order ".weight", ".SCB", ".weight_format" (suffixes after X itself).
/// Their bytes add up to packed8_bytes. `packed` must outlive them.
std::vector<StoredTensor> to_tensors8(const Packed8& packed);

/// Reads the tensors of a linear X back; lookup takes suffixes after X, as to_tensors8 gives them.
/// weight_format may be missing, as in the oldest files. Error, beginning with `what` (file and name of the
/// linear) and the suffix, when another tensor is missing, one has another dtype or shape, weight_format is
/// not 0 (row-major), or a scale is negative, NaN or infinite. Views may have any alignment.
Packed8 from_tensors8(const TensorLookup& lookup, const std::string& what);

/// One row of x (f32, bf16 or f16) to 8 bits by the rule of encode8, as activations are rounded too: with a
/// threshold above 0, elements whose fp16 magnitude reaches it (outliers) get code 0, take no part in the
/// absmax and set outliers[i] to 1 (other entries are left as they are; may be null without threshold).
/// codes: (n). Returns the absmax; when it is not finite, all codes are 0. One thread. The threshold must be
/// a value of fp16.
float encode_row8(const std::byte* x, DType dtype, int64_t n, float threshold, int8_t* codes,
                  uint8_t* outliers);

}  // namespace nibble::quant
