#include "kernels/cpu/few4.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "kernels/cpu/dot.h"
#include "kernels/cpu/panels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// GCC 12 takes the undefined vectors of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace nibble::kernels {
#if defined(__x86_64__)
namespace {

#define NIBBLE_FEW __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define NIBBLE_FEW_INLINE NIBBLE_FEW __attribute__((always_inline)) inline

// Outputs of a vector of sums; vectors whose sums run side by side, to hide the latency of an addition.
constexpr int64_t kOutputs = 16, kBeside = 2;
// Bytes of the codes of a chunk: of one output, and of the outputs 4 g + j, j the same.
constexpr int64_t kPlace = kChunk4 / 2, kGroup = kPanel / 4 * kPlace;
// Dwords of the bytes of an output in a chunk: byte i of dword n has the code of input 4 n + i in its high
// nibble, that of input kChunk4 / 2 + 4 n + i in its low one.
constexpr int64_t kDwords = kPlace / 4;

constexpr int64_t kAheadChunks = kAhead4 / (4 * kGroup);
constexpr int64_t kMostRows = 2;

/// How the products are summed: pairs of bf16 by dot products; fp32 by weights of bf16 or of fp32.
enum class Sum { dots, narrow, wide };

/// A row of x: of bf16 in tiles for dots, else of fp32.
struct Row {
  const std::byte* data;
  int64_t chunk;  // bytes from one chunk of inputs to the next

  template <typename T>
  const T* at(int64_t c) const {
    return reinterpret_cast<const T*>(data + c * chunk);
  }
};

/// Dword n of the bytes of 16 outputs, in order, in v[n].
NIBBLE_FEW_INLINE void load_dwords(const uint8_t* codes, __m512i (&v)[kDwords]) {
  const __m512i a0 = _mm512_load_si512(codes), a1 = _mm512_load_si512(codes + kGroup);
  const __m512i a2 = _mm512_load_si512(codes + 2 * kGroup), a3 = _mm512_load_si512(codes + 3 * kGroup);
  const __m512i front01 = _mm512_unpacklo_epi32(a0, a1), front23 = _mm512_unpacklo_epi32(a2, a3);
  const __m512i back01 = _mm512_unpackhi_epi32(a0, a1), back23 = _mm512_unpackhi_epi32(a2, a3);
  v[0] = _mm512_unpacklo_epi64(front01, front23);
  v[1] = _mm512_unpackhi_epi64(front01, front23);
  v[2] = _mm512_unpacklo_epi64(back01, back23);
  v[3] = _mm512_unpackhi_epi64(back01, back23);
}

/// code * scale of the codes in the lowest nibbles of the lanes.
template <bool kHalf>
NIBBLE_FEW_INLINE __m512 decoded(__m512i nibbles, __m512 table, __m512 scale) {
  const __m512 value = _mm512_mul_ps(_mm512_permutexvar_ps(nibbles, table), scale);
  if constexpr (!kHalf) return value;
  return _mm512_cvtph_ps(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

/// Lanes [0, 8) or, with `upper`, [8, 16), each twice.
NIBBLE_FEW_INLINE __m512i twice(__m512i v, bool upper) {
  const int first = upper ? 8 : 0;
  const __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(first)), v);
}

/// The codes of a chunk of 16 outputs, for weights in fp32.
template <bool kHalf>
struct Singles {
  __m512 scale;
  __m512i codes[kDwords];

  NIBBLE_FEW_INLINE void scale_by(const float* absmax) { scale = _mm512_loadu_ps(absmax); }
  NIBBLE_FEW_INLINE void load(const uint8_t* bytes) { load_dwords(bytes, codes); }
  /// The weights whose nibbles are `shift` bits from the lowest of dword n.
  NIBBLE_FEW_INLINE __m512 weights(int64_t n, int shift, __m512 table) const {
    return decoded<kHalf>(_mm512_srli_epi32(codes[n], static_cast<unsigned>(shift)), table, scale);
  }
};

/// The same for pairs of bf16: an output's even input lies beside its odd one, 8 outputs in a vector.
template <bool kHalf>
struct Pairs {
  __m512 scale[2];
  __m512i codes[kDwords][2];

  NIBBLE_FEW_INLINE void scale_by(const float* absmax) {
    const __m512i v = _mm512_castps_si512(_mm512_loadu_ps(absmax));
    for (int i = 0; i < 2; ++i) scale[i] = _mm512_castsi512_ps(twice(v, i == 1));
  }

  NIBBLE_FEW_INLINE void load(const uint8_t* bytes) {
    __m512i v[kDwords];
    load_dwords(bytes, v);
    for (int64_t n = 0; n < kDwords; ++n)
      for (int i = 0; i < 2; ++i) codes[n][i] = twice(v[n], i == 1);
  }

  /// The weights whose nibbles are `shift` and shift + 8 bits from the lowest of dword n.
  NIBBLE_FEW_INLINE __m512i weights(int64_t n, int shift, __m512 table) const {
    const __m512i shifts = _mm512_set1_epi64(static_cast<int64_t>(shift + 8) << 32 | shift);
    const __m512 lower = decoded<kHalf>(_mm512_srlv_epi32(codes[n][0], shifts), table, scale[0]);
    const __m512 upper = decoded<kHalf>(_mm512_srlv_epi32(codes[n][1], shifts), table, scale[1]);
    return (__m512i)_mm512_cvtne2ps_pbh(upper, lower);
  }
};

template <Sum kSum, bool kHalf>
using Source = std::conditional_t<kSum == Sum::wide, Singles<kHalf>, Pairs<kHalf>>;

/// sum += the products of inputs 2 kPair and 2 kPair + 1 of chunk c.
template <Sum kSum, bool kHalf, int kRows, size_t kPair>
NIBBLE_FEW_INLINE void add_pair(const Source<kSum, kHalf> (&source)[kBeside], const Row* rows, int64_t c,
                                __m512 table, __m512 (&sum)[kRows][kBeside]) {
  constexpr int64_t i = 2 * kPair, n = i % kPlace / 4;
  constexpr int shift = i % 4 * 8 + (i < kPlace ? 4 : 0);
  for (int64_t b = 0; b < kBeside; ++b) {
    if constexpr (kSum == Sum::dots) {
      const auto pair = (__m512bh)source[b].weights(n, shift, table);
      for (int r = 0; r < kRows; ++r) {
        int both;
        std::memcpy(&both, rows[r].at<uint16_t>(c) + i, sizeof(both));
        sum[r][b] = _mm512_dpbf16_ps(sum[r][b], (__m512bh)_mm512_set1_epi32(both), pair);
      }
    } else {
      __m512 even, odd;
      if constexpr (kSum == Sum::narrow) {
        const __m512i pair = source[b].weights(n, shift, table);
        even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
        odd = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
      } else {
        even = source[b].weights(n, shift, table);
        odd = source[b].weights(n, shift + 8, table);
      }
      for (int r = 0; r < kRows; ++r) {
        const float* x = rows[r].at<float>(c) + i;
        sum[r][b] = _mm512_fmadd_ps(_mm512_set1_ps(x[0]), even, sum[r][b]);
        sum[r][b] = _mm512_fmadd_ps(_mm512_set1_ps(x[1]), odd, sum[r][b]);
      }
    }
  }
}

template <Sum kSum, bool kHalf, int kRows, size_t... kPair>
NIBBLE_FEW_INLINE void add_pairs(const Source<kSum, kHalf> (&source)[kBeside], const Row* rows, int64_t c,
                                 __m512 table, __m512 (&sum)[kRows][kBeside], std::index_sequence<kPair...>) {
  (add_pair<kSum, kHalf, kRows, kPair>(source, rows, c, table, sum), ...);
}

/// Chunks [begin, end), of one block of absmax values, times columns [column, column + kBeside * kOutputs).
template <Sum kSum, bool kHalf, int kRows>
NIBBLE_FEW_INLINE void add_chunks(const Codes4& w, int64_t p, const Row* rows, int64_t begin, int64_t end,
                                  int64_t column, __m512 (&sum)[kRows][kBeside]) {
  const __m512 table = _mm512_loadu_ps(w.code.data());
  Source<kSum, kHalf> source[kBeside];
  const float* absmax = w.absmax_of(p) + begin * kChunk4 / w.block * kPanel + column;
  for (int64_t b = 0; b < kBeside; ++b) source[b].scale_by(absmax + b * kOutputs);
  for (int64_t b = 0; b < kBeside; ++b) __builtin_prefetch(absmax + kAheadChunks * kPanel + b * kOutputs);
  for (int64_t c = begin; c < end; ++c) {
    const uint8_t* codes = w.chunk(p, c) + column / 4 * kPlace;
    for (int64_t b = 0; b < kBeside; ++b) source[b].load(codes + b * kOutputs / 4 * kPlace);
    if (c + kAheadChunks < w.chunks())
      for (int64_t j = 0; j < 4; ++j)
        for (int64_t b = 0; b < kBeside; ++b)
          __builtin_prefetch(codes + kAhead4 + j * kGroup + b * kOutputs / 4 * kPlace);
    add_pairs<kSum, kHalf, kRows>(source, rows, c, table, sum, std::make_index_sequence<kChunk4 / 2>());
  }
}

template <Sum kSum, bool kHalf, int kRows>
NIBBLE_FEW void multiply(const Codes4& w, int64_t p, const Row* rows, float* sums) {
  // Sums of fp32 run over blocks of inputs; those of an unfinished block lie in `block`.
  alignas(64) float block[kRows * kPanel];
  const int64_t step = std::min(w.block, kPanelBlock);
  for (int64_t line = 0; line < kAhead4; line += 64) __builtin_prefetch(w.chunk(p, 0) + line);
  for (int64_t k = 0; k < w.in; k += step) {
    const int64_t end = std::min(w.in, k + step);
    const bool starts = kSum == Sum::dots ? k == 0 : k % kPanelBlock == 0;
    const bool ends = kSum == Sum::dots || end == w.in || end % kPanelBlock == 0;
    const bool adds = kSum != Sum::dots && end > kPanelBlock;
    for (int64_t column = 0; column < kPanel; column += kBeside * kOutputs) {
      __m512 sum[kRows][kBeside];
      for (int r = 0; r < kRows; ++r) {
        for (int64_t b = 0; b < kBeside; ++b) {
          const float* from = (kSum == Sum::dots ? sums : block) + r * kPanel + column + b * kOutputs;
          sum[r][b] = starts ? _mm512_setzero_ps() : _mm512_loadu_ps(from);
        }
      }
      add_chunks<kSum, kHalf, kRows>(w, p, rows, k / kChunk4, end / kChunk4, column, sum);
      for (int r = 0; r < kRows; ++r) {
        for (int64_t b = 0; b < kBeside; ++b) {
          float* to = (ends ? sums : block) + r * kPanel + column + b * kOutputs;
          _mm512_storeu_ps(to, ends && adds ? _mm512_add_ps(_mm512_loadu_ps(to), sum[r][b]) : sum[r][b]);
        }
      }
    }
  }
}

template <Sum kSum, bool kHalf>
void multiply_rows(const Codes4& w, int64_t p, const Row* rows, int64_t n, float* sums) {
  if (n == 1) multiply<kSum, kHalf, 1>(w, p, rows, sums);
  if (n == 2) multiply<kSum, kHalf, 2>(w, p, rows, sums);
}

template <Sum kSum>
void multiply_rows(const Codes4& w, int64_t p, const Row* rows, int64_t n, float* sums) {
  const auto run = w.half ? multiply_rows<kSum, true> : multiply_rows<kSum, false>;
  run(w, p, rows, n, sums);
}

}  // namespace

bool few4_usable(const Codes4& w, int64_t rows) {
  return rows <= kMostRows && w.in % w.block == 0 && w.normal && has_dots();
}

void few4_multiply_dots(const TiledRows& x, int64_t first, int64_t rows, const Codes4& w, int64_t p,
                        float* sums) {
  Row list[kMostRows];
  for (int64_t r = 0; r < rows; ++r)
    list[r] = {reinterpret_cast<const std::byte*>(x.row(first + r)),
               TiledRows::kRows * TiledRows::kCols * int64_t{sizeof(uint16_t)}};
  multiply_rows<Sum::dots>(w, p, list, rows, sums);
}

void few4_multiply(ConstMatrix x, const Codes4& w, int64_t p, bool wide, float* sums) {
  Row list[kMostRows];
  for (int64_t r = 0; r < x.rows; ++r)
    list[r] = {reinterpret_cast<const std::byte*>(x.row(r)), kChunk4 * int64_t{sizeof(float)}};
  const auto run = wide ? multiply_rows<Sum::wide> : multiply_rows<Sum::narrow>;
  run(w, p, list, x.rows, sums);
}

#else

bool few4_usable(const Codes4&, int64_t) {
  return false;
}

void few4_multiply_dots(const TiledRows&, int64_t, int64_t, const Codes4&, int64_t, float*) {
  NIBBLE_CHECK(false, "no AVX512-BF16 on this architecture");
}

void few4_multiply(ConstMatrix, const Codes4&, int64_t, bool, float*) {
  NIBBLE_CHECK(false, "no AVX512-BF16 on this architecture");
}

#endif

}  // namespace nibble::kernels
