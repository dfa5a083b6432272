#include "kernels/cpu/dot.h"

#include <cstring>

#include "base/error.h"
#include "kernels/cpu/weight.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nibble::kernels {
#if defined(__x86_64__)
namespace {

#define NIBBLE_DOT __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

constexpr int64_t kTile = TiledRows::kRows * TiledRows::kCols;
constexpr int kLanes = 16, kVectors = kPanel / kLanes;
// Rows of a register tile: 24 sums of the 32 registers.
constexpr int64_t kRegisterRows = 6;

template <int kRows>
NIBBLE_DOT void multiply(const TiledRows& x, int64_t first, int64_t begin, int64_t depth,
                         const uint16_t* piece, float* sums) {
  const uint16_t* rows[kRows];
  __m512 sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    rows[r] = x.row(first + r) + begin / TiledRows::kCols * kTile;
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = begin == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + r * kPanel + v * kLanes);
  }
  for (int64_t k = 0; k < depth; k += TiledRows::kCols) {
    for (int64_t i = 0; i < TiledRows::kCols; i += 2, piece += 2 * kPanel) {
      __m512bh weights[kVectors];
      for (int v = 0; v < kVectors; ++v) weights[v] = (__m512bh)_mm512_loadu_si512(piece + v * 2 * kLanes);
      for (int r = 0; r < kRows; ++r) {
        int pair;
        std::memcpy(&pair, rows[r] + i, sizeof(pair));
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], both, weights[v]);
      }
    }
    for (int r = 0; r < kRows; ++r) rows[r] += kTile;
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(sums + r * kPanel + v * kLanes, sum[r][v]);
}

}  // namespace

bool has_dots() {
  static const bool has = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl");
  return has && allowed_units() != Bf16Units::none;
}

void dot_multiply_piece(const TiledRows& x, int64_t first, int64_t rows, int64_t begin, int64_t depth,
                        const uint16_t* piece, float* sums) {
  int64_t r = 0;
  for (; r + kRegisterRows <= rows; r += kRegisterRows)
    multiply<kRegisterRows>(x, first + r, begin, depth, piece, sums + r * kPanel);
  first += r;
  sums += r * kPanel;
  switch (rows - r) {
    case 1:
      return multiply<1>(x, first, begin, depth, piece, sums);
    case 2:
      return multiply<2>(x, first, begin, depth, piece, sums);
    case 3:
      return multiply<3>(x, first, begin, depth, piece, sums);
    case 4:
      return multiply<4>(x, first, begin, depth, piece, sums);
    case 5:
      return multiply<5>(x, first, begin, depth, piece, sums);
  }
}

#else

bool has_dots() {
  return false;
}

void dot_multiply_piece(const TiledRows&, int64_t, int64_t, int64_t, int64_t, const uint16_t*, float*) {
  NIBBLE_CHECK(false, "no AVX512-BF16 on this architecture");
}

#endif

bool dot_usable() {
  return has_dots() && !amx_usable();
}

}  // namespace nibble::kernels
