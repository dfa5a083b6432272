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

/// What one head reads and writes.
struct Head {
  ConstMatrix q, k, v;  // (n, d), (m, d), (m, d)
  MutableMatrix out;    // (n, d)
  float scale;
};

/// One query over `seen` keys.
void attend_one(const Head& head, int64_t i, int64_t seen, std::vector<float>& scores) {
  const int64_t d = head.q.cols;
  scores.resize(std::max(scores.size(), static_cast<size_t>(seen)));
  dot_rows(head.q.row(i), head.k.row_range(0, seen), scores.data());
  const double sum = softmax_row(head.scale, seen, scores.data());
  float* out = head.out.row(i);
  weighted_sum_of_rows(scores.data(), head.v.row_range(0, seen), out);
  scale_row(static_cast<float>(1 / sum), d, out);
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
  const int64_t tiles = (n + kQueries - 1) / kQueries;
  parallel_for(heads * tiles, [&](int64_t task) {
    thread_local std::vector<float> scores;
    // Later tiles see more keys: they go first, so that no thread is left with the longest at the end.
    const int64_t tile = tiles - 1 - task / heads, h = task % heads;
    const int64_t kv = h / (heads / kv_heads) * d;
    const Head head = {q.col_range(h * d, d), k.col_range(kv, d), v.col_range(kv, d), out.col_range(h * d, d),
                       scale};
    const int64_t begin = tile * kQueries, count = std::min(kQueries, n - begin);
    const int64_t first_seen = causal ? m - n + begin + 1 : m;
    if (count == 1) {
      attend_one(head, begin, first_seen, scores);
    } else {
      attend_tile(head, begin, count, first_seen, causal ? 1 : 0, scores);
    }
  });
}

}  // namespace nibble::kernels
