#include "kernels/cpu/panels8.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/weight.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panels8.cc"
// foreach_target.h compiles this file once for each instruction set; it must come before highway.h.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace nibble::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void Multiply8(const int16_t* x, int64_t rows, int64_t pairs, const int8_t* panel, int32_t* sums) {
  std::fill_n(sums, rows * kPanel, 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < 2 * pairs; ++i) {
      const int8_t* w = panel + i / 2 * 2 * kPanel + i % 2;
      for (int64_t c = 0; c < kPanel; ++c) sums[r * kPanel + c] += x[r * 2 * pairs + i] * w[2 * c];
    }
  }
}

#else

using I32 = hn::CappedTag<int32_t, kPanel>;
using I16 = hn::Repartition<int16_t, I32>;
using I8 = hn::Rebind<int8_t, I16>;
using Sums = hn::Vec<I32>;

// Pairs of a block: its part of a panel (64 KiB) stays in the second-level cache while the rows pass.
constexpr int64_t kBlock = 512;

/// Pairs [begin, end) of kRows rows times kVectors vectors of columns from `c`, added to the sums unless
/// begin is 0. All sums stay in registers.
template <int kRows, int kVectors>
HWY_INLINE void multiply_columns(const int16_t* x, int64_t stride, int64_t begin, int64_t end,
                                 const int8_t* panel, int64_t c, int32_t* sums) {
  const I32 d32;
  const I16 d16;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d32));
  // Where an instruction set multiplies halves of vectors, the other halves gather in `odd`.
  Sums sum[kRows][kVectors], odd[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = odd[r][v] = hn::Zero(d32);
  }
  for (int64_t k = begin; k < end; ++k) {
    hn::Vec<I16> w[kVectors];
    for (int v = 0; v < kVectors; ++v)
      w[v] = hn::PromoteTo(d16, hn::LoadU(I8(), panel + 2 * (k * kPanel + c + v * lanes)));
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * stride + 2 * k, sizeof(pair));
      const auto xk = hn::BitCast(d16, hn::Set(d32, pair));
      for (int v = 0; v < kVectors; ++v)
        sum[r][v] = hn::ReorderWidenMulAccumulate(d32, xk, w[v], sum[r][v], odd[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      int32_t* place = sums + r * kPanel + c + v * lanes;
      const Sums total = hn::RearrangeToOddPlusEven(sum[r][v], odd[r][v]);
      hn::StoreU(begin == 0 ? total : hn::Add(hn::LoadU(d32, place), total), d32, place);
    }
  }
}

// Rows of a register tile, and its vectors where there are 32 registers and where there are 16.
constexpr int kTileRows = 6;
constexpr int kTileVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

template <int kRows>
HWY_INLINE void multiply_block(const int16_t* x, int64_t stride, int64_t begin, int64_t end,
                               const int8_t* panel, int32_t* sums) {
  constexpr int kVectors = kRows <= 2 ? 4 : kTileVectors;
  const auto step = static_cast<int64_t>(hn::Lanes(I32())) * kVectors;
  for (int64_t c = 0; c < kPanel; c += step)
    multiply_columns<kRows, kVectors>(x, stride, begin, end, panel, c, sums);
}

/// The last rows, at most kRows.
template <int kRows>
HWY_INLINE void multiply_rest(int64_t rows, const int16_t* x, int64_t stride, int64_t begin, int64_t end,
                              const int8_t* panel, int32_t* sums) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return multiply_block<kRows>(x, stride, begin, end, panel, sums);
    multiply_rest<kRows - 1>(rows, x, stride, begin, end, panel, sums);
  }
}

void Multiply8(const int16_t* x, int64_t rows, int64_t pairs, const int8_t* panel, int32_t* sums) {
  const int64_t stride = 2 * pairs;
  if (pairs == 0) std::fill_n(sums, rows * kPanel, 0);
  for (int64_t k = 0; k < pairs; k += kBlock) {
    const int64_t end = std::min(pairs, k + kBlock);
    int64_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows)
      multiply_block<kTileRows>(x + r * stride, stride, k, end, panel, sums + r * kPanel);
    const int16_t* rest = x + r * stride;
    int32_t* rest_sums = sums + r * kPanel;
    multiply_rest<kTileRows - 1>(rows - r, rest, stride, k, end, panel, rest_sums);
  }
}

#endif  // HWY_SCALAR

}  // namespace nibble::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::kernels {

HWY_EXPORT(Multiply8);

void multiply_panel8(const int16_t* x, int64_t rows, int64_t pairs, const int8_t* panel, int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(Multiply8)(x, rows, pairs, panel, sums);
}

}  // namespace nibble::kernels
#endif
