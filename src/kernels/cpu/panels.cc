#include "kernels/cpu/panels.h"

#include <algorithm>

#include "kernels/cpu/weight.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panels.cc"
// foreach_target.h compiles this file once for each instruction set; it must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace nibble::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, kPanel>;
using U = hn::RebindToUnsigned<F>;
using Floats = hn::Vec<F>;

/// The weight of input k for columns [c, c + Lanes). In a bf16 panel k must be even.
HWY_INLINE Floats load_one(const float* panel, int64_t k, int64_t c) {
  return hn::LoadU(F(), panel + k * kPanel + c);
}

HWY_INLINE Floats load_one(const uint16_t* panel, int64_t k, int64_t c) {
  const auto pair = hn::LoadU(U(), reinterpret_cast<const uint32_t*>(panel + k * kPanel) + c);
  return hn::BitCast(F(), hn::ShiftLeft<16>(pair));
}

/// The same for k (even) and k + 1.
HWY_INLINE void load_pair(const float* panel, int64_t k, int64_t c, Floats& even, Floats& odd) {
  even = hn::LoadU(F(), panel + k * kPanel + c);
  odd = hn::LoadU(F(), panel + (k + 1) * kPanel + c);
}

HWY_INLINE void load_pair(const uint16_t* panel, int64_t k, int64_t c, Floats& even, Floats& odd) {
  const auto pair = hn::LoadU(U(), reinterpret_cast<const uint32_t*>(panel + k * kPanel) + c);
  even = hn::BitCast(F(), hn::ShiftLeft<16>(pair));
  odd = hn::BitCast(F(), hn::And(pair, hn::Set(U(), 0xffff0000u)));
}

/// Inputs [begin, end) of kRows rows times kVectors vectors of columns from `c` of a piece that starts at
/// input `begin`, none across a multiple of kPanelBlock. All sums stay in registers; those of a block go on
/// from `block` and end there, or in `sums` when the block is done.
template <int kRows, int kVectors, typename T>
HWY_INLINE void multiply_columns(ConstMatrix x, int64_t begin, int64_t end, const T* piece, int64_t c,
                                 float* block, float* sums) {
  const F f;
  const auto lanes = static_cast<int64_t>(hn::Lanes(f));
  const float* rows[kRows];
  Floats sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    rows[r] = x.row(r) + begin;
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = begin % kPanelBlock == 0 ? hn::Zero(f) : hn::LoadU(f, block + r * kPanel + c + v * lanes);
  }
  const int64_t n = end - begin;
  int64_t k = 0;
  for (; k + 2 <= n; k += 2) {
    Floats even[kVectors], odd[kVectors];
    for (int v = 0; v < kVectors; ++v) load_pair(piece, k, c + v * lanes, even[v], odd[v]);
    for (int r = 0; r < kRows; ++r) {
      const Floats xe = hn::Set(f, rows[r][k]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(xe, even[v], sum[r][v]);
    }
    for (int r = 0; r < kRows; ++r) {
      const Floats xo = hn::Set(f, rows[r][k + 1]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(xo, odd[v], sum[r][v]);
    }
  }
  const bool done = end == x.cols || end % kPanelBlock == 0, first = end <= kPanelBlock;
  for (int v = 0; v < kVectors; ++v) {
    for (int r = 0; r < kRows; ++r) {
      if (k < n) sum[r][v] = hn::MulAdd(hn::Set(f, rows[r][k]), load_one(piece, k, c + v * lanes), sum[r][v]);
      float* place = (done ? sums : block) + r * kPanel + c + v * lanes;
      hn::StoreU(done && !first ? hn::Add(hn::LoadU(f, place), sum[r][v]) : sum[r][v], f, place);
    }
  }
}

// Rows of a register tile, and its vectors where there are 32 registers and where there are 16.
constexpr int kTileRows = 6;
constexpr int kTileVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

/// Inputs [begin, end) of kRows rows times all columns of a piece. Few rows take more vectors: enough sums to
/// hide the latency of an addition.
template <int kRows, typename T>
HWY_INLINE void multiply_block(ConstMatrix x, int64_t begin, int64_t end, const T* piece, float* block,
                               float* sums) {
  constexpr int kVectors = kRows <= 2 ? 4 : kTileVectors;
  const auto step = static_cast<int64_t>(hn::Lanes(F())) * kVectors;
  for (int64_t c = 0; c < kPanel; c += step)
    multiply_columns<kRows, kVectors>(x, begin, end, piece, c, block, sums);
}

template <typename T>
HWY_INLINE void multiply_rows(ConstMatrix x, int64_t begin, int64_t end, const T* piece, float* block,
                              float* sums) {
  int64_t r = 0;
  for (; r + kTileRows <= x.rows; r += kTileRows) {
    multiply_block<kTileRows>(x.row_range(r, kTileRows), begin, end, piece, block + r * kPanel,
                              sums + r * kPanel);
  }
  const ConstMatrix rest = x.row_range(r, x.rows - r);
  block += r * kPanel;
  sums += r * kPanel;
  if (rest.rows == 1) multiply_block<1>(rest, begin, end, piece, block, sums);
  if (rest.rows == 2) multiply_block<2>(rest, begin, end, piece, block, sums);
  if (rest.rows == 3) multiply_block<3>(rest, begin, end, piece, block, sums);
  if (rest.rows == 4) multiply_block<4>(rest, begin, end, piece, block, sums);
  if (rest.rows == 5) multiply_block<5>(rest, begin, end, piece, block, sums);
}

void MultiplyWide(ConstMatrix x, int64_t begin, int64_t end, const float* piece, float* block, float* sums) {
  multiply_rows(x, begin, end, piece, block, sums);
}

void MultiplyNarrow(ConstMatrix x, int64_t begin, int64_t end, const uint16_t* piece, float* block,
                    float* sums) {
  multiply_rows(x, begin, end, piece, block, sums);
}

bool Fuses() {
  return HWY_TARGET <= HWY_AVX2;  // newer ones have smaller numbers
}

/// To nearest even; a NaN stays a (quiet) NaN. The result is in the upper half of each lane.
HWY_INLINE hn::Vec<U> rounded_bits(Floats x) {
  const U u;
  const auto bits = hn::BitCast(u, x);
  const auto even = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto sum = hn::Add(bits, hn::Add(hn::Set(u, 0x7fff), even));
  const auto nan = hn::Or(bits, hn::Set(u, 0x400000));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)), nan, sum);
}

void RoundWide(const float* x, int64_t n, float* y) {
  const F f;
  const auto lanes = static_cast<int64_t>(hn::Lanes(f));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto upper = hn::And(rounded_bits(hn::LoadU(f, x + i)), hn::Set(U(), 0xffff0000u));
    hn::StoreU(hn::BitCast(f, upper), f, y + i);
  }
  for (; i < n; ++i) y[i] = bf16_to_float(float_to_bf16(x[i]));
}

void RoundNarrow(const float* x, int64_t n, uint16_t* y) {
  const F f;
  const hn::Rebind<uint16_t, F> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(f));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto upper = hn::ShiftRight<16>(rounded_bits(hn::LoadU(f, x + i)));
    hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(hn::RebindToSigned<F>(), upper)), narrow, y + i);
  }
  for (; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

}  // namespace nibble::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::kernels {

HWY_EXPORT(MultiplyWide);
HWY_EXPORT(MultiplyNarrow);
HWY_EXPORT(Fuses);
HWY_EXPORT(RoundWide);
HWY_EXPORT(RoundNarrow);

namespace {

/// A whole panel as pieces of one block each, whose sums need no keeping.
template <typename T>
void multiply_blocks(ConstMatrix x, const T* panel, float* sums) {
  for (int64_t k = 0; k < x.cols; k += kPanelBlock)
    multiply_piece(x, k, std::min(x.cols, k + kPanelBlock), panel + k * kPanel, sums, sums);
}

}  // namespace

void multiply_panel(ConstMatrix x, const float* panel, float* sums) {
  multiply_blocks(x, panel, sums);
}

void multiply_panel(ConstMatrix x, const uint16_t* panel, float* sums) {
  multiply_blocks(x, panel, sums);
}

void multiply_piece(ConstMatrix x, int64_t begin, int64_t end, const float* piece, float* block,
                    float* sums) {
  HWY_DYNAMIC_DISPATCH(MultiplyWide)(x, begin, end, piece, block, sums);
}

void multiply_piece(ConstMatrix x, int64_t begin, int64_t end, const uint16_t* piece, float* block,
                    float* sums) {
  HWY_DYNAMIC_DISPATCH(MultiplyNarrow)(x, begin, end, piece, block, sums);
}

bool panels_fuse() {
  return HWY_DYNAMIC_DISPATCH(Fuses)();
}

void round_to_bf16(const float* x, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(RoundWide)(x, n, y);
}

void round_to_bf16(const float* x, int64_t n, uint16_t* y) {
  HWY_DYNAMIC_DISPATCH(RoundNarrow)(x, n, y);
}

}  // namespace nibble::kernels
#endif
