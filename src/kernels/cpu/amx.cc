#include "kernels/cpu/amx.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/panels.h"
#include "kernels/cpu/weight.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nibble::kernels {
namespace {

std::atomic<Bf16Units> allowed = Bf16Units::all;

}  // namespace

void allow_for_test(Bf16Units units) {
  allowed = units;
}

Bf16Units allowed_units() {
  return allowed;
}

TiledRows::TiledRows(ConstMatrix x) : col_tiles_((x.cols + kCols - 1) / kCols) {
  const int64_t row_tiles = (x.rows + kRows - 1) / kRows;
  tiles_ = Tensor(DType::bf16, {row_tiles, col_tiles_, kRows, kCols});
  parallel_for(row_tiles, [&](int64_t t) {
    uint16_t* tile = tiles_.as<uint16_t>() + t * col_tiles_ * kRows * kCols;
    const int64_t rows = std::min(kRows, x.rows - t * kRows);
    std::fill_n(tile, col_tiles_ * kRows * kCols, uint16_t{0});
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x.row(t * kRows + r);
      for (int64_t c = 0; c < col_tiles_; ++c) {
        round_to_bf16(row + c * kCols, std::min(kCols, x.cols - c * kCols), tile + (c * kRows + r) * kCols);
      }
    }
  });
}

#if defined(__x86_64__)
namespace {

#define NIBBLE_AMX __attribute__((target("amx-tile,amx-bf16")))

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  // Linux keeps the tile registers off until a process asks for them.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

/// The operand of LDTILECFG for palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

constexpr TileConfig kConfig;

// A panel holds kPanel pairs of bf16 for each two inputs.
constexpr int64_t kPairBytes = kPanel * 4, kTile = TiledRows::kRows * TiledRows::kCols,
                  kSumBytes = kPanel * 4;

/// Tiles 0 to 3 start at 0 if fresh, else at what lies in their places.
NIBBLE_AMX void start_sums(bool fresh, float* const (&places)[4]) {
  if (fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, places[0], kSumBytes);
    _tile_loadd(1, places[1], kSumBytes);
    _tile_loadd(2, places[2], kSumBytes);
    _tile_loadd(3, places[3], kSumBytes);
  }
}

NIBBLE_AMX void store_sums(float* const (&places)[4]) {
  _tile_stored(0, places[0], kSumBytes);
  _tile_stored(1, places[1], kSumBytes);
  _tile_stored(2, places[2], kSumBytes);
  _tile_stored(3, places[3], kSumBytes);
}

/// n tiles of each of two row tiles by half of the piece's columns. fresh: the sums start at 0.
NIBBLE_AMX void multiply_two(const uint16_t* a0, const uint16_t* a1, int64_t n, const uint16_t* b, bool fresh,
                             float* sums) {
  float* const places[] = {sums, sums + 16, sums + 16 * kPanel, sums + 16 * kPanel + 16};
  start_sums(fresh, places);
  for (int64_t k = 0; k < n; ++k) {
    _tile_loadd(4, a0 + k * kTile, 64);
    _tile_loadd(6, b + k * TiledRows::kCols * kPanel, kPairBytes);
    _tile_loadd(7, b + k * TiledRows::kCols * kPanel + 32, kPairBytes);
    _tile_loadd(5, a1 + k * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  store_sums(places);
}

/// n tiles of a row tile by the whole piece, which is read from end to end.
NIBBLE_AMX void multiply_one(const uint16_t* a, int64_t n, const uint16_t* piece, bool fresh, float* sums) {
  float* const places[] = {sums, sums + 16, sums + 32, sums + 48};
  start_sums(fresh, places);
  for (int64_t k = 0; k < n; ++k) {
    const uint16_t* b = piece + k * TiledRows::kCols * kPanel;
    _tile_loadd(4, a + k * kTile, 64);
    _tile_loadd(5, b, kPairBytes);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b + 32, kPairBytes);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b + 64, kPairBytes);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b + 96, kPairBytes);
    _tile_dpbf16ps(3, 4, 5);
  }
  store_sums(places);
}

}  // namespace

bool amx_usable() {
  static const bool usable = has_amx();
  return usable && allowed_units() == Bf16Units::all;
}

NIBBLE_AMX void amx_multiply_piece(const TiledRows& x, int64_t first, int64_t rows, int64_t begin,
                                   int64_t depth, const uint16_t* piece, float* sums) {
  _tile_loadconfig(&kConfig);
  const int64_t tiles = (rows + TiledRows::kRows - 1) / TiledRows::kRows, pairs = tiles / 2 * 2;
  const int64_t n = depth / TiledRows::kCols;
  const auto row_tile = [&](int64_t t) {
    return x.row_tile(first / TiledRows::kRows + t) + begin / TiledRows::kCols * kTile;
  };
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t t = 0; t < pairs; t += 2) {
      multiply_two(row_tile(t), row_tile(t + 1), n, piece + half * kPanel, begin == 0,
                   sums + t * TiledRows::kRows * kPanel + half * kPanel / 2);
    }
  }
  if (pairs < tiles)
    multiply_one(row_tile(pairs), n, piece, begin == 0, sums + pairs * TiledRows::kRows * kPanel);
  _tile_release();
}

#else

bool amx_usable() {
  return false;
}

void amx_multiply_piece(const TiledRows&, int64_t, int64_t, int64_t, int64_t, const uint16_t*, float*) {
  NIBBLE_CHECK(false, "no AMX on this architecture");
}

#endif

}  // namespace nibble::kernels
