// The inner loops, written once with Highway and compiled for every instruction set; the best one that the
// machine has is called. One thread. Pointers may have any alignment unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant::simd {

/// Encodes `blocks` full blocks of `block` elements: codes (blocks * block / 2 bytes), absmax (blocks).
void encode_blocks(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t blocks,
                   uint8_t* codes, float* absmax);

/// Encodes `count` elements of which the last block may be cut short: codes ((count + 1) / 2 bytes), absmax.
void encode_range(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t count,
                  uint8_t* codes, float* absmax);

/// One block by the reference: for what the loops do not cover (elements that are not finite, a reciprocal
/// that is infinite, blocks left over). Returns the absmax. Compiled once, for no instruction set in
/// particular.
float encode_plain_block(const std::byte* x, DType dtype, Format format, int64_t block, uint8_t* codes);

/// Decodes `blocks` full blocks to elements of `dtype`; code: the 16 code values. Target: 16-byte aligned.
void decode_blocks(const uint8_t* codes, const float* absmax, const float* code, int64_t block,
                   int64_t blocks, DType dtype, std::byte* target);

/// Decodes `count` elements of which the last block may be cut short.
void decode_range(const uint8_t* codes, const float* absmax, const float* code, int64_t block, int64_t count,
                  DType dtype, std::byte* target);

/// The largest bit pattern without its sign among n values of f32, bf16 or f16: any NaN or infinity is at
/// least the infinity of the type.
uint32_t largest_magnitude(const std::byte* data, DType dtype, int64_t n);

/// What weight_error adds up: |W - Q|^2, |W|^2, and the largest ratio of a block.
struct Norms {
  double error = 0, original = 0, largest_block = 0;
};

/// The sums over n elements, block by block; n and the order are those of one range of ref::weight_error.
Norms block_norms(const std::byte* original, DType original_type, const std::byte* decoded,
                  DType decoded_type, int64_t block, int64_t n);

/// One row to 8 bits: quant::encode_row8 (int8.h).
float encode_row8(const std::byte* x, DType dtype, int64_t n, float threshold, int8_t* codes,
                  uint8_t* outliers);

/// Highway's name of the instruction set that the calls above are made for.
const char* target_name();

}  // namespace nibble::quant::simd
