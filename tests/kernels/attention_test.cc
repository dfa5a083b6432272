#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"

namespace nibble::kernels {
namespace {

struct Case {
  int64_t n, m, heads, kv_heads, d;
  bool causal;
};

std::ostream& operator<<(std::ostream& os, const Case& c) {
  return os << c.n << " queries, " << c.m << " keys, " << c.heads << "/" << c.kv_heads << " heads of " << c.d
            << (c.causal ? ", causal" : "");
}

class Attention : public testing::TestWithParam<Case> {};

TEST_P(Attention, IsTheReference) {
  const Case c = GetParam();
  // One buffer holds q, k and v side by side, as a fused projection writes them (rows of q: the last n).
  const int64_t width = (c.heads + 2 * c.kv_heads) * c.d;
  const Strided qkv = random_matrix(std::max(c.n, c.m), width, 5, 1);
  const ConstMatrix all = qkv.view();
  const ConstMatrix q = all.row_range(all.rows - c.n, c.n).col_range(0, c.heads * c.d);
  const ConstMatrix k = all.row_range(0, c.m).col_range(c.heads * c.d, c.kv_heads * c.d);
  const ConstMatrix v = all.row_range(0, c.m).col_range((c.heads + c.kv_heads) * c.d, c.kv_heads * c.d);
  const float scale = 1 / std::sqrt(static_cast<float>(c.d));
  Strided out(c.n, c.heads * c.d, 7), expected(c.n, c.heads * c.d);
  attention(q, k, v, c.heads, c.kv_heads, c.causal, scale, out.mut());
  ref::attention(q, k, v, c.heads, c.kv_heads, c.causal, scale, expected.mut());
  // Scores are of size 1 to 4 with fp32 errors near 4 x 2^-24 x |q||k| scale, which move each weight by as
  // much relatively; values are of size 1 to 4.
  expect_close(out.view(), expected.view(), 0, 4e-6);
  EXPECT_TRUE(out.gaps_untouched());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(Case{1, 1, 1, 1, 16, true}, Case{1, 77, 4, 2, 64, true},
                                         Case{1, 300, 6, 2, 128, true}, Case{1, 9, 2, 2, 33, false},
                                         Case{5, 5, 2, 1, 80, true}, Case{32, 32, 3, 3, 40, true},
                                         Case{33, 33, 3, 3, 17, true}, Case{33, 90, 4, 1, 256, true},
                                         Case{70, 70, 2, 2, 80, false}, Case{2, 70, 2, 2, 1, false},
                                         Case{40, 3, 2, 1, 24, false}, Case{100, 600, 1, 1, 72, true},
                                         Case{0, 4, 2, 2, 8, false}));

// All keys but one are far away in score: the result is that key's value, and nothing overflows.
TEST(AttentionTest, SurvivesLargeScores) {
  for (const int64_t n : {1, 40}) {
    Strided q(n, 8), k(64, 8), v(64, 8), out(n, 8);
    for (int64_t i = 0; i < n * 8; ++i) q.mut().data[i] = 100;
    for (int64_t j = 0; j < 64; ++j) {
      for (int64_t c = 0; c < 8; ++c)
        k.mut().row(j)[c] = j == 40 ? 300.0f : -300.0f, v.mut().row(j)[c] = 1.0f + j;
    }
    attention(q.view(), k.view(), v.view(), 1, 1, false, 1.0f, out.mut());
    for (int64_t i = 0; i < n * 8; ++i) EXPECT_EQ(out.view().data[i], 41.0f);
  }
}

TEST(AttentionTest, GivesTheSameBitsForAnyThreads) {
  for (const int64_t n : {1, 130}) {
    const Strided q = random_matrix(n, 6 * 40, 0, 2), k = random_matrix(150, 2 * 40, 0, 3),
                  v = random_matrix(150, 2 * 40, 0, 4);
    expect_same_bits_for_any_threads([&] {
      Strided out(n, 6 * 40);
      attention(q.view(), k.view(), v.view(), 6, 2, true, 0.2f, out.mut());
      return out.values();
    });
  }
}

TEST(AttentionTest, RefusesWrongShapes) {
  Strided q(3, 8), k(2, 8), out(3, 8);
  EXPECT_THROW(attention(q.view(), k.view(), k.view(), 1, 1, true, 1, out.mut()), InternalError);
  EXPECT_THROW(attention(q.view(), k.view(), k.view(), 3, 1, false, 1, out.mut()), InternalError);
  EXPECT_THROW(attention(q.view(), k.view(), k.view(), 2, 1, false, 1, out.mut()), InternalError);
}

}  // namespace
}  // namespace nibble::kernels
