#include "quant/pieces.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "quant/ref.h"
#include "quant/simd.h"

namespace nibble::quant {

static_assert(kPiece == ref::kErrorRange * kBlock);

namespace simd {

void encode_range(const std::byte* weight, DType dtype, Format format, int64_t block, int64_t count,
                  uint8_t* codes, float* absmax) {
  const int64_t blocks = count / block, whole = blocks * block;
  encode_blocks(weight, dtype, format, block, blocks, codes, absmax);
  if (whole == count) return;
  const TensorView tail{dtype, {count - whole}, weight + whole * dtype_size(dtype)};
  std::vector<float> rest;
  for (int64_t i = 0; i < tail.count(); ++i) rest.push_back(ref::element(tail, i));
  absmax[blocks] = ref::encode_block(rest, format, codes + whole / 2);
}

void decode_range(const uint8_t* codes, const float* absmax, const float* code, int64_t block, int64_t count,
                  DType dtype, std::byte* target) {
  const int64_t blocks = count / block;
  decode_blocks(codes, absmax, code, block, blocks, dtype, target);
  for (int64_t i = blocks * block; i < count; ++i) {
    const float value = code[i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15] * absmax[blocks];
    from_float({&value, 1}, dtype, target + i * dtype_size(dtype));
  }
}

}  // namespace simd

void PieceEncoder::start(const Shape& shape, DType dtype, Format format) {
  count_ = TensorView{dtype, shape, nullptr}.count();
  packed_.format = format;
  packed_.shape = shape;
  packed_.dtype = dtype;
  packed_.block = kBlock;
  packed_.code = code_values(format);
  packed_.codes.resize(static_cast<size_t>(count_ / 2 + count_ % 2));
  packed_.nested.reset();
  absmax_.resize(static_cast<size_t>(block_count(count_, kBlock)));
}

int64_t PieceEncoder::pieces() const {
  return block_count(count_, kPiece);
}

void PieceEncoder::encode(int64_t i, const std::byte* elements) {
  const int64_t begin = i * kPiece;
  simd::encode_range(elements, packed_.dtype, packed_.format, kBlock, std::min(kPiece, count_ - begin),
                     packed_.codes.data() + begin / 2, absmax_.data() + begin / kBlock);
}

const Packed4& PieceEncoder::finish() {
  packed_.nested = encode_absmax(absmax_);
  return packed_;
}

PieceOffset::PieceOffset(int64_t count)
    : count_(count), absmax_(static_cast<size_t>(block_count(count, kBlock))) {}

void PieceOffset::add(int64_t i, DType dtype, const std::byte* elements) {
  const int64_t begin = i * kPiece, n = std::min(kPiece, count_ - begin), size = dtype_size(dtype);
  std::array<std::byte, kPiece / kBlock * 4> largest;  // of each block, in the weight's own type
  for (int64_t at = 0; at < n; at += kBlock) {
    const uint32_t bits = simd::largest_magnitude(elements + at * size, dtype, std::min(kBlock, n - at));
    std::memcpy(largest.data() + at / kBlock * size, &bits, static_cast<size_t>(size));
  }
  to_float({dtype, {block_count(n, kBlock)}, largest.data()}, absmax_.data() + begin / kBlock);
}

PieceError::PieceError(const Packed4& packed)
    : packed_(packed),
      absmax_(decode_absmax(packed)),
      count_(TensorView{packed.dtype, packed.shape, nullptr}.count()),
      sums_(static_cast<size_t>(block_count(count_, kPiece))) {
  NIBBLE_CHECK(packed.block == kBlock && std::ssize(absmax_) == block_count(count_, kBlock) &&
               std::ssize(packed.codes) == count_ / 2 + count_ % 2);
}

void PieceError::add(int64_t i, DType dtype, const std::byte* elements) {
  const int64_t begin = i * kPiece, n = std::min(kPiece, count_ - begin);
  alignas(64) thread_local std::byte decoded[kPiece * 4];
  simd::decode_range(packed_.codes.data() + begin / 2, absmax_.data() + begin / kBlock, packed_.code.data(),
                     kBlock, n, packed_.dtype, decoded);
  const simd::Norms sums = simd::block_norms(elements, dtype, decoded, packed_.dtype, kBlock, n);
  sums_[static_cast<size_t>(i)] = {sums.error, sums.original, sums.largest_block};
}

WeightError PieceError::error() const {
  Sums total;
  for (const Sums& s : sums_) {
    total.error += s.error;
    total.original += s.original;
    total.largest_block = std::max(total.largest_block, s.largest_block);
  }
  return {total.error == 0 ? 0 : std::sqrt(total.error / total.original), total.largest_block};
}

}  // namespace nibble::quant
