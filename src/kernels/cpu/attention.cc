#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops.h"

namespace nibble::kernels {
namespace {

// Queries of a task: its scores, kQueries times the keys, are all the memory that it takes.
constexpr int64_t kQueries = 32;
// Keys of a block that several single queries read one after another, from the first-level cache.
constexpr int64_t kKeys = 64;

/// What one head, or a group of heads, reads and writes.
struct Head {
  ConstMatrix q, k, v;  // (n, d), (m, d), (m, d)
  MutableMatrix out;    // (n, d)
  float scale;
};

/// One query of each head in a group that shares its keys and values, which are read once, a block at a time.
/// q and out: (heads of the group, d).
void attend_group(const Head& group, std::vector<float>& scores) {
  const int64_t heads = group.q.rows, keys = group.k.rows;
  scores.resize(std::max(scores.size(), static_cast<size_t>(heads * keys)));
  const MutableMatrix s = {scores.data(), heads, keys, keys};
  for (int64_t j = 0; j < keys; j += kKeys) {
    const ConstMatrix block = group.k.row_range(j, std::min(kKeys, keys - j));
    for (int64_t h = 0; h < heads; ++h) dot_rows(group.q.row(h), block, s.row(h) + j);
  }
  std::vector<float> inverse(heads);
  for (int64_t h = 0; h < heads; ++h) {
    inverse[h] = static_cast<float>(1 / softmax_row(group.scale, keys, s.row(h)));
    std::fill_n(group.out.row(h), group.out.cols, 0.0f);
  }
  for (int64_t j = 0; j < keys; j += kKeys) {
    const ConstMatrix block = group.v.row_range(j, std::min(kKeys, keys - j));
    for (int64_t h = 0; h < heads; ++h) add_weighted_rows(s.row(h) + j, block, group.out.row(h));
  }
  for (int64_t h = 0; h < heads; ++h) scale_row(inverse[h], group.out.cols, group.out.row(h));
}

/// Queries [begin, begin + n); query i of the tile sees keys [0, first_seen + i * step).
void attend_tile(const Head& head, int64_t begin, int64_t n, int64_t first_seen, int64_t step,
                 std::vector<float>& scores) {
  const int64_t keys = first_seen + (n - 1) * step;
  scores.resize(std::max(scores.size(), static_cast<size_t>(n * keys)));
  const MutableMatrix s = {scores.data(), n, keys, keys};
  gemm(head.q.row_range(begin, n), false, head.k.row_range(0, keys), true, false, s);
  float inverse[kQueries];
  for (int64_t i = 0; i < n; ++i) {
    const int64_t seen = first_seen + i * step;
    inverse[i] = static_cast<float>(1 / softmax_row(head.scale, seen, s.row(i)));
    std::fill(s.row(i) + seen, s.row(i) + keys, 0.0f);
  }
  const MutableMatrix out = head.out.row_range(begin, n);
  gemm(s, false, head.v.row_range(0, keys), false, false, out);
  for (int64_t i = 0; i < n; ++i) scale_row(inverse[i], out.cols, out.row(i));
}

}  // namespace

void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, int64_t heads, int64_t kv_heads, bool causal,
               float scale, MutableMatrix out) {
  NIBBLE_CHECK(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && q.cols % heads == 0);
  const int64_t n = q.rows, m = k.rows, d = q.cols / heads;
  NIBBLE_CHECK(k.cols == kv_heads * d && v.cols == k.cols && v.rows == m);
  NIBBLE_CHECK(out.rows == n && out.cols == q.cols && m > 0 && (!causal || n <= m), "{} queries, {} keys", n,
               m);
  const int64_t group = heads / kv_heads;
  if (n == 1) {
    return parallel_for(kv_heads, [&](int64_t g) {
      thread_local std::vector<float> scores;
      const int64_t first = g * group * d;
      attend_group({{q.data + first, group, d, d},
                    k.col_range(g * d, d),
                    v.col_range(g * d, d),
                    {out.data + first, group, d, d},
                    scale},
                   scores);
    });
  }
  const int64_t tiles = (n + kQueries - 1) / kQueries;
  parallel_for(heads * tiles, [&](int64_t task) {
    thread_local std::vector<float> scores;
    // Later tiles see more keys: they go first, so that no thread is left with the longest at the end.
    const int64_t tile = tiles - 1 - task / heads, h = task % heads, kv = h / group * d;
    const Head head = {q.col_range(h * d, d), k.col_range(kv, d), v.col_range(kv, d), out.col_range(h * d, d),
                       scale};
    const int64_t begin = tile * kQueries, count = std::min(kQueries, n - begin);
    attend_tile(head, begin, count, causal ? m - n + begin + 1 : m, causal ? 1 : 0, scores);
  });
}

}  // namespace nibble::kernels
