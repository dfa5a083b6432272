#include "base/error.h"
#include "quant/helpers.h"
#include "quant/tables.h"

namespace nibble::quant {
namespace {

const float kInf = std::numeric_limits<float>::infinity();

/// The index that the fast version finds for y, by way of a block whose scale is 1 and whose offset is 0.
std::vector<uint8_t> indices(const std::vector<float>& y) {
  std::vector<float> x;
  for (size_t i = 0; i < y.size(); ++i) {
    if (x.size() % 256 == 0) x.push_back(1);
    x.push_back(y[i]);
  }
  const NestedAbsmax n = encode_absmax(x, 0.0f);
  std::vector<uint8_t> out;
  for (size_t i = 0; i < x.size(); ++i)
    if (i % 256 != 0) out.push_back(n.q[i]);
  return out;
}

TEST(DynamicMap, IsAscendingWithZeroInTheMiddle) {
  const auto& map = dynamic_map();
  EXPECT_TRUE(std::is_sorted(map.begin(), map.end()));
  EXPECT_EQ(map[0], std::bit_cast<float>(0xbf7e3333u));  // -0.99297, not -1
  EXPECT_EQ(map[127], 0);
  EXPECT_EQ(map[255], 1);
  for (size_t k = 1; k < 127; ++k) EXPECT_EQ(map[127 - k], -map[127 + k]) << k;
}

TEST(DynamicMap, NearestValueAndTheEvenIndexBetweenTwo) {
  const auto& map = dynamic_map();
  std::vector<float> y;
  std::vector<uint8_t> expected;
  for (size_t k = 0; k < 255; ++k) {
    const float middle = (map[k] + map[k + 1]) * 0.5f;
    for (const float v : {map[k], std::nextafter(middle, -kInf), middle, std::nextafter(middle, kInf)})
      y.push_back(v);
    const auto low = static_cast<uint8_t>(k), high = static_cast<uint8_t>(k + 1);
    for (const uint8_t q : {low, low, k % 2 == 0 ? low : high, high}) expected.push_back(q);
  }
  EXPECT_EQ(indices(y), expected);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(ref::dynamic_index(y[i]), expected[i]) << y[i];
}

TEST(DynamicMap, NearestByDistanceOnRandomNumbers) {
  const auto& map = dynamic_map();
  std::vector<float> y;
  for (uint64_t i = 0; i < 100000; ++i) {
    const auto u = static_cast<float>(static_cast<double>(random_bits(31, i) >> 11) * 0x1p-52 - 1);
    y.push_back(i % 3 == 0 ? u : u * std::ldexp(1.0f, -static_cast<int>(i % 25)));
  }
  const auto q = indices(y);
  for (size_t i = 0; i < y.size(); ++i) {
    const auto distance = [&](size_t k) { return std::fabs(double{map[k]} - y[i]); };
    const size_t k = q[i];
    // Midpoints are rounded to fp32: half an ulp of the midpoint is what the nearest may be missed by.
    const double slack = std::fabs(double{y[i]}) * 0x1p-23;
    EXPECT_LE(distance(k), distance(k > 0 ? k - 1 : 0) + slack) << y[i];
    EXPECT_LE(distance(k), distance(k < 255 ? k + 1 : 255) + slack) << y[i];
    EXPECT_EQ(k, ref::dynamic_index(y[i]));
  }
}

TEST(Nested, LikeTheReference) {
  for (const int64_t count : {1, 2, 255, 256, 257, 1000, 16384, 16385, 70000}) {
    std::vector<float> absmax;
    for (int64_t i = 0; i < count; ++i)
      absmax.push_back(std::fabs(sample(32, static_cast<uint64_t>(i))) * 1e-6f);
    const NestedAbsmax fast = encode_absmax(absmax), plain = ref::encode_absmax(absmax);
    EXPECT_EQ(fast.offset, plain.offset) << count;
    EXPECT_TRUE(fast.q == plain.q) << count;
    EXPECT_TRUE(bytes_of(fast.absmax) == bytes_of(plain.absmax)) << count;
    EXPECT_EQ(fast.absmax.size(), static_cast<size_t>((count + 255) / 256));
  }
}

TEST(Nested, TheOffsetIsTheMean) {
  EXPECT_EQ(encode_absmax(std::vector<float>{1, 2, 3, 6}).offset, 3);
  EXPECT_EQ(encode_absmax(std::vector<float>(100000, 0.1f)).offset, 0.1f);
  EXPECT_EQ(encode_absmax(std::vector<float>{}).offset, 0);
  EXPECT_EQ(encode_absmax(std::vector<float>{3.4e38f, 3.2e38f}).offset, 3.3e38f);  // the sum is beyond fp32
}

TEST(Nested, EqualValuesGiveIndexZeroAndScaleZero) {
  const NestedAbsmax n = encode_absmax(std::vector<float>(300, 0.25f));
  EXPECT_EQ(n.q, std::vector<uint8_t>(300, 0));
  EXPECT_EQ(n.absmax, (std::vector<float>{0, 0}));
  Packed4 p;
  p.nested = n;
  for (const float v : decode_absmax(p)) EXPECT_EQ(v, 0.25f);
}

TEST(Nested, ErrorStaysWithinTheMap) {
  std::vector<float> absmax;
  for (uint64_t i = 0; i < 10000; ++i) absmax.push_back(0.05f + std::fabs(sample(33, i)) * 1e-7f);
  Packed4 p;
  p.nested = encode_absmax(absmax);
  const auto decoded = decode_absmax(p);
  // The widest gap of the map is .0144 of the block's scale, so no value is off by more than half of it, or
  // .0071 of the scale at the lower end, where the map stops at -.993.
  for (size_t i = 0; i < absmax.size(); ++i)
    EXPECT_LE(std::fabs(decoded[i] - absmax[i]), 0.0073f * p.nested->absmax[i / 256]) << i;
}

TEST(Nested, RefusesAMeanThatIsNotFinite) {
  EXPECT_THROW(encode_absmax(std::vector<float>{1, kInf}), Error);
  EXPECT_THROW(encode_absmax(std::vector<float>{1}, std::nanf("")), Error);
  std::vector<float> x(64, 1.0f);
  x[9] = kInf;
  EXPECT_THROW(encode4(from_values(x, DType::bf16).view(), Format::nf4, true), Error);
}

}  // namespace
}  // namespace nibble::quant
