// Products of bf16 rows with bf16 panels on Intel's matrix tiles (AMX). oneDNN 2.6 would use them too, but
// stops with an illegal instruction under hypervisors that hide the CPUID leaf of the tile sizes, which are
// fixed anyway.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::kernels {

/// True if this CPU and kernel let the process use AMX-BF16 tiles.
bool amx_usable();

/// Which instructions for bf16 products may be used where the CPU has them.
enum class Bf16Units { all, no_amx, none };

/// Limits them (or, with `all`, no longer), so that tests reach what other machines run.
void allow_for_test(Bf16Units units);
Bf16Units allowed_units();

/// Rows rounded to bf16 (to nearest even) and cut into tiles of 16 rows by 32 columns, padded with zeros:
/// [row / 16][column / 32][16][32].
class TiledRows {
 public:
  static constexpr int64_t kRows = 16, kCols = 32;

  explicit TiledRows(ConstMatrix x);

  /// Tiles in a row of tiles.
  int64_t col_tiles() const { return col_tiles_; }
  const uint16_t* row_tile(int64_t t) const { return tiles_.as<uint16_t>() + t * col_tiles_ * kRows * kCols; }
  /// The elements of a row in the first of its tiles; those in the next lie kRows * kCols further on.
  const uint16_t* row(int64_t r) const { return row_tile(r / kRows) + r % kRows * kCols; }

 private:
  int64_t col_tiles_;
  Tensor tiles_;
};

/// sums (rows up to a multiple of 16, kPanel) = rows [first, first + rows) of x times inputs [begin, begin +
/// depth) of a bf16 panel (weight.h), which start at `piece`; from begin > 0 on, added to `sums`. `first` is
/// a multiple of 16, begin and depth are of kDepth. Sums run in fp32 in ascending order of inputs, so that a
/// row gives the same bits whatever other rows are computed with it and however the panel is cut; bf16 and
/// fp32 values below the normal range count as zero.
void amx_multiply_piece(const TiledRows& x, int64_t first, int64_t rows, int64_t begin, int64_t depth,
                        const uint16_t* piece, float* sums);

}  // namespace nibble::kernels
