// How a linear is stored: the 4-bit codes of bitsandbytes, exactly (NF4: Dettmers et al. 2023,
// arXiv:2305.14314). A tensor is flattened row-major and cut into blocks of 64; each block has its own
// absmax; two codes a byte, the first element in the high nibble. All functions are thread-safe and use
// nibble's threads inside; the bytes do not depend on their number, nor on the instruction set.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::quant {

enum class Format { bf16, nf4, fp4 };  // bf16 stands for "stored in the source's 16-bit (or 32-bit) type"

/// "bf16", "nf4", "fp4".
std::string_view format_name(Format format);
std::optional<Format> parse_format(std::string_view name);

inline constexpr int64_t kBlock = 64;         // elements of a 4-bit block
inline constexpr int64_t kNestedBlock = 256;  // absmax values of a double-quantization block

/// True for the block sizes that bitsandbytes knows: powers of two from 32 to 4096.
constexpr bool valid_block(int64_t block) {
  return block >= 32 && block <= 4096 && (block & (block - 1)) == 0;
}

/// Number of blocks of `block` elements that `count` elements make; the last one may be shorter.
constexpr int64_t block_count(int64_t count, int64_t block) {
  return count / block + (count % block != 0);
}

/// The value of each of the 16 codes. Format must be nf4 or fp4.
const std::array<float, 16>& code_values(Format format);

/// The signed dynamic 8-bit map of double quantization, ascending.
const std::array<float, 256>& dynamic_map();

/// absmax values of all blocks, quantized again: q indexes map; absmax = fl(map[q] * nested_absmax) + offset.
struct NestedAbsmax {
  std::vector<uint8_t> q;      // (blocks)
  std::vector<float> absmax;   // (ceil(blocks / nested_block))
  std::array<float, 256> map;  // as stored in the file
  float offset = 0;            // mean of the absmax values
  int64_t nested_block = kNestedBlock;
};

/// A 4-bit tensor as it lies in a file.
struct Packed4 {
  Format format = Format::nf4;
  Shape shape;                // of the decoded weight
  DType dtype = DType::bf16;  // of the decoded weight
  int64_t block = kBlock;
  std::array<float, 16> code;          // the quant_map as stored
  std::vector<uint8_t> codes;          // ((count + 1) / 2)
  std::vector<float> absmax;           // (blocks), the exact ones; empty when nested
  std::optional<NestedAbsmax> nested;  // double quantization
};

/// Rounds to 4 bits as the CUDA kernels of bitsandbytes do, with IEEE division: y = x * (1 / absmax) in fp32,
/// code by strict > against the thresholds (FP4: on |y|, sign bit where y < 0); a zero block gives bytes
/// 0x00; an odd count pads with the code of 0. Below 2^-128 the reciprocal of an absmax is infinite: elements
/// of such a block take the outermost codes, and zeros, like every NaN y, code 0. weight: f32, bf16 or f16,
/// of any alignment; block: see valid_block (InternalError otherwise). Elements should be finite (see
/// find_nonfinite); a NaN takes code 0 and no part in its block's absmax. With double_quant, Error when the
/// mean of the absmax values is not finite.
Packed4 encode4(const TensorView& weight, Format format, bool double_quant, int64_t block = kBlock);

/// The same into `packed`, whose buffers are used again where they are large enough.
void encode4_into(const TensorView& weight, Format format, bool double_quant, int64_t block, Packed4& packed);

/// Double quantization of absmax values: per nested block of differences d = absmax - offset, the nearest map
/// value to d * (1 / max|d|) in fp32, between two the one of even index; NaN (a block of zeros) takes index
/// 0. With `offset`, that mean is used instead of the computed one (the last bit of a mean depends on the
/// order of summing; ours is the fp64 mean rounded to fp32, and 0 for no values). Error when the offset is
/// not finite.
NestedAbsmax encode_absmax(std::span<const float> absmax, std::optional<float> offset = std::nullopt);

/// The mean of absmax values that double quantization takes off them: the fp64 mean rounded to fp32, 0 for no
/// values. Not finite where one of them is not.
float mean_absmax(std::span<const float> absmax);

/// The absmax of each block as a reader decodes it.
std::vector<float> decode_absmax(const Packed4& packed);

/// code * absmax in fp32, rounded to nearest even to `dtype` (f32, bf16 or f16). InternalError when the sizes
/// in `packed` contradict each other (from_tensors has checked those of a file).
Tensor decode4(const Packed4& packed, DType dtype);
/// The same in the tensor's own dtype.
inline Tensor decode4(const Packed4& packed) {
  return decode4(packed, packed.dtype);
}
/// The same to `target`, which takes the count of elements of `dtype`; 16-byte alignment is enough.
void decode4_into(const Packed4& packed, DType dtype, std::byte* target);

/// Flat index of the first NaN or infinity, or nothing (always nothing for integers).
std::optional<int64_t> find_nonfinite(const TensorView& tensor);

/// Bytes of tensor data that a 4-bit tensor of `count` elements takes in a file, side tensors (absmax, maps)
/// and the quant_state JSON (its text depends on the values: `state_bytes`) included.
int64_t packed_bytes(int64_t count, bool double_quant, int64_t state_bytes, int64_t block = kBlock);

/// The weight error of a decoded tensor: |W - Q| / |W| (Frobenius), and the largest |W - Q|_block / |W|_block
/// over blocks of `block` elements. A zero W with a zero Q has error 0, a zero W with another Q an infinite
/// one.
struct WeightError {
  double relative = 0;
  double largest_block = 0;
};

/// Both f32, bf16 or f16 (they may differ), of equal count, all finite. Sums in fp64 in an order fixed by
/// `block` (any positive number).
WeightError weight_error(const TensorView& original, const TensorView& decoded, int64_t block = kBlock);

/// The instruction set that the fast versions run on ("AVX3", "AVX2", ...; Highway's names).
const char* instruction_set();

}  // namespace nibble::quant
