// A weight rounded to 4 bits piece by piece, so that it never lies in memory as a whole: only its codes and
// absmax values do.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/format.h"

namespace nibble::quant {

/// Elements of a piece; the last one of a tensor may be shorter. A multiple of every block size.
inline constexpr int64_t kPiece = 1 << 16;

/// encode4 with double quantization, byte for byte.
class PieceEncoder {
 public:
  /// Gets ready for a weight (f32, bf16 or f16); buffers are used again where they are large enough.
  void start(const Shape& shape, DType dtype, Format format);
  int64_t pieces() const;
  /// Rounds piece i, whose elements may have any alignment. Thread-safe for different pieces.
  void encode(int64_t i, const std::byte* elements);
  /// Double quantization, when all pieces are there. Error like encode4's.
  const Packed4& finish();

 private:
  Packed4 packed_;
  std::vector<float> absmax_;
  int64_t count_ = 0;
};

/// The offset of a weight's double quantization (NestedAbsmax) without its codes.
class PieceOffset {
 public:
  explicit PieceOffset(int64_t count);
  int64_t pieces() const { return block_count(count_, kPiece); }
  /// Looks at piece i, whose elements (f32, bf16 or f16) may have any alignment. Thread-safe for different
  /// pieces.
  void add(int64_t i, DType dtype, const std::byte* elements);
  /// When all pieces are there. Not finite exactly where an element is not.
  float offset() const { return mean_absmax(absmax_); }

 private:
  int64_t count_;
  std::vector<float> absmax_;
};

/// weight_error of a packed tensor against the weight that it was made of, to the same bits.
class PieceError {
 public:
  /// `packed` must outlive the object.
  explicit PieceError(const Packed4& packed);
  int64_t pieces() const { return static_cast<int64_t>(sums_.size()); }
  /// Compares piece i, whose elements of type `dtype` may have any alignment. Thread-safe for different
  /// pieces.
  void add(int64_t i, DType dtype, const std::byte* elements);
  /// When all pieces are there.
  WeightError error() const;

 private:
  struct Sums {
    double error = 0, original = 0, largest_block = 0;
  };

  const Packed4& packed_;
  std::vector<float> absmax_;
  int64_t count_;
  std::vector<Sums> sums_;
};

}  // namespace nibble::quant
