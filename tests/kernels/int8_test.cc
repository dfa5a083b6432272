#include "quant/int8.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "kernels/ops.h"
#include "kernels/ref/ref.h"
#include "kernels/support.h"
#include "quant/helpers.h"

namespace nibble::kernels {
namespace {

using nlohmann::json;
using quant::ForcedTarget;
using quant::Packed8;

constexpr double kUlp = 0x1p-24;  // half a unit in the last place of fp32, relative

/// Random codes, some scales 0.
Packed8 random_packed(int64_t out, int64_t in, uint64_t seed) {
  Packed8 p{.shape = {out, in}, .dtype = DType::f16, .codes = {}, .scb = {}};
  for (int64_t i = 0; i < out * in; ++i)
    p.codes.push_back(static_cast<int8_t>(quant::random_bits(seed, static_cast<uint64_t>(i))));
  for (int64_t o = 0; o < out; ++o) p.scb.push_back(o % 13 == 5 ? 0 : 0.01f * static_cast<float>(1 + o % 9));
  return p;
}

/// Columns with a magnitude of `threshold` or more after rounding to fp16 (none for 0).
std::vector<int64_t> outlier_columns(ConstMatrix x, float threshold) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < x.cols && threshold > 0; ++i) {
    for (int64_t r = 0; r < x.rows; ++r) {
      if (std::abs(f16_to_float(float_to_f16(x.row(r)[i]))) < threshold) continue;
      out.push_back(i);
      break;
    }
  }
  return out;
}

/// Without outliers bit for bit. A fp32 sum over k outlier columns, in whatever order, is off by at most
/// k 2^-24 sum |x w|, and adding it to y by 2^-24 |y| more; two such results by twice that.
void expect_product(ConstMatrix y, ConstMatrix expected, ConstMatrix x, const Packed8& weight,
                    const std::vector<int64_t>& columns, double unit = kUlp) {
  const Tensor decoded = quant::decode8(weight, DType::f32);
  expect_near(y, expected, [&](int64_t r, int64_t o) {
    if (columns.empty()) return 0.0;
    double sum = 0;
    for (const int64_t i : columns)
      sum += std::abs(static_cast<double>(x.row(r)[i]) * decoded.as<float>()[o * x.cols + i]);
    return 2 * unit * (static_cast<double>(columns.size() + 1) * sum + std::abs(expected.row(r)[o]));
  });
}

TEST(LinearInt8, IsTheReference) {
  struct Case {
    int64_t rows, in, out;
  };
  for (const Case c : {Case{0, 8, 8}, Case{1, 1, 1}, Case{1, 193, 257}, Case{2, 64, 64}, Case{3, 31, 65},
                       Case{4, 160, 7}, Case{5, 33, 63}, Case{7, 1030, 70}, Case{65, 7, 1},
                       Case{18, 2050, 66}, Case{131, 65, 192}, Case{600, 40, 70}}) {
    const Packed8 weight = random_packed(c.out, c.in, 1);
    const Int8Weight packed = Int8Weight::pack(weight);
    for (const float threshold : {0.0f, 6.0f, 3.0f, 1.5f})
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(fmt::format("{}x{}x{} {} {}", c.rows, c.in, c.out, threshold, with_bias));
        Strided x = random_matrix(c.rows, c.in, 3, 2, threshold == 0 ? 3.0f : 1.0f);
        if (c.rows > 4) std::fill_n(x.mut().row(3), c.in, 0.0f);
        const std::vector<float> bias = with_bias ? random_values(c.out, 3) : std::vector<float>();
        Strided expected(c.rows, c.out);
        ref::linear_int8(x.view(), weight, bias, threshold, expected.mut());
        for (const int64_t target : quant::targets()) {
          const ForcedTarget forced(target);
          Strided y(c.rows, c.out, 5);
          linear_int8(x.view(), packed, bias, threshold, y.mut());
          expect_product(y.view(), expected.view(), x.view(), weight, outlier_columns(x.view(), threshold));
          EXPECT_TRUE(y.gaps_untouched());
        }
      }
  }
}

Strided golden_matrix(const json& golden, uint64_t seed, int64_t rows, int64_t cols, float scale) {
  Strided m(rows, cols);
  const auto base = golden["seed"].get<uint64_t>() + seed;
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i)
    values.push_back(quant::sample(base, static_cast<uint64_t>(i)) * scale);
  const DType dtype = *parse_torch_name(golden["dtype"].get<std::string>());
  values = to_float(quant::from_values(values, dtype).view());
  std::copy(values.begin(), values.end(), m.mut().data);
  return m;
}

void check(const json& golden) {
  const auto rows = golden["rows"].get<int64_t>(), out = golden["out"].get<int64_t>(),
             in = golden["in"].get<int64_t>();
  const DType dtype = *parse_torch_name(golden["dtype"].get<std::string>());
  const auto threshold = golden["threshold"].get<float>();
  const Strided w = golden_matrix(golden, 1, out, in, 1e-6f);
  Strided x = golden_matrix(golden, 2, rows, in, golden["x_scale"].get<float>());
  for (const json& planted : golden["planted"])
    x.mut().row(planted[0].get<int64_t>())[planted[1].get<int64_t>()] = planted[2].get<float>();
  const Strided bias = golden_matrix(golden, 3, 1, out, 1e-5f);
  const Packed8 weight =
      quant::encode8({DType::f32, {out, in}, reinterpret_cast<const std::byte*>(w.view().data)});
  Strided y(rows, out);
  linear_int8(x.view(), Int8Weight::pack(weight),
              golden["bias"].get<bool>() ? std::span(bias.view().data, static_cast<size_t>(out))
                                         : std::span<const float>(),
              threshold, y.mut());
  const auto columns = golden["outlier_columns"].get<std::vector<int64_t>>();
  if (columns.empty()) {
    // Models of 16 bits round the same fp32 values once, at the end.
    std::vector<float> rounded(y.view().data, y.view().data + rows * out);
    rounded = to_float(quant::from_values(rounded, dtype).view());
    for (float& v : rounded) v += 0.0f;
    EXPECT_EQ(sha256({reinterpret_cast<const char*>(rounded.data()), rounded.size() * sizeof(float)}),
              golden["y_sha256"]);
    return;
  }
  EXPECT_EQ(outlier_columns(x.view(), f16_to_float(float_to_f16(threshold))), columns);
  Strided expected(rows, out);
  const auto values = golden["y"].get<std::vector<float>>();
  ASSERT_EQ(std::ssize(values), rows * out);
  std::copy(values.begin(), values.end(), expected.mut().data);
  if (dtype == DType::f32) return expect_product(y.view(), expected.view(), x.view(), weight, columns);
  // Models of 16 bits round the decoded weight, the product without outliers and the sum: three roundings of
  // the type.
  const double unit = dtype == DType::bf16 ? 0x1p-9 : 0x1p-12;
  expect_product(y.view(), expected.view(), x.view(), weight, columns,
                 3 * unit / static_cast<double>(columns.size()));
}

TEST(LinearInt8, IsBitsandbytes) {
  std::ifstream file(NIBBLE_ROOT "/tests/kernels/goldens/int8.json");
  ASSERT_TRUE(file);
  const json goldens = json::parse(file);
  EXPECT_GE(goldens.size(), 50u);
  for (const json& golden : goldens) {
    json name = golden;
    name.erase("y");
    SCOPED_TRACE(name.dump());
    check(golden);
  }
}

TEST(LinearInt8, AnOutlierInOneRowCountsForAll) {
  const Packed8 weight = random_packed(30, 64, 4);
  const Int8Weight packed = Int8Weight::pack(weight);
  Strided x = random_matrix(2, 64, 0, 5);
  Strided alone(1, 30), together(2, 30), beside(2, 30);
  linear_int8(x.view().row_range(0, 1), packed, {}, 6, alone.mut());
  linear_int8(x.view(), packed, {}, 6, together.mut());
  EXPECT_TRUE(std::equal(alone.view().row(0), alone.view().row(0) + 30, together.view().row(0)));
  x.mut().row(1)[9] = 100;
  linear_int8(x.view(), packed, {}, 6, beside.mut());
  EXPECT_FALSE(std::equal(alone.view().row(0), alone.view().row(0) + 30, beside.view().row(0)));
}

// The largest sum that a weight may give: 127 * 128 * 2^17 is below 2^31.
TEST(LinearInt8, SumsAreExactUpToTheLargestWeight) {
  const int64_t in = 1 << 17;
  const Packed8 weight{.shape = {2, in},
                       .dtype = DType::f16,
                       .codes = std::vector<int8_t>(static_cast<size_t>(2 * in), -128),
                       .scb = {1, 2}};
  const std::vector<float> x(static_cast<size_t>(in), 1.0f);
  for (const int64_t target : quant::targets()) {
    const ForcedTarget forced(target);
    Strided y(1, 2);
    linear_int8({x.data(), 1, in, in}, Int8Weight::pack(weight), {}, 6, y.mut());
    const float sum = -127.0f * 128 * static_cast<float>(in);
    EXPECT_EQ(y.view().row(0)[0], sum * 6.200124e-05f);
    EXPECT_EQ(y.view().row(0)[1], sum * 2 * 6.200124e-05f);
  }
  EXPECT_THROW(Int8Weight::pack({.shape = {0, in + 1}, .dtype = DType::f16, .codes = {}, .scb = {}}), Error);
}

TEST(LinearInt8, ANanStaysInItsRow) {
  const Int8Weight packed = Int8Weight::pack(random_packed(5, 20, 6));
  for (const float other : {1.0f, 50.0f}) {
    Strided x = random_matrix(3, 20, 0, 7), y(3, 5);
    x.mut().row(1)[4] = std::numeric_limits<float>::quiet_NaN();
    x.mut().row(1)[5] = other;
    linear_int8(x.view(), packed, {}, 6, y.mut());
    for (int64_t o = 0; o < 5; ++o) {
      EXPECT_TRUE(std::isnan(y.view().row(1)[o]));
      EXPECT_FALSE(std::isnan(y.view().row(0)[o]) || std::isnan(y.view().row(2)[o]));
    }
  }
}

TEST(LinearInt8, WithoutInputsIsTheBias) {
  const Int8Weight packed = Int8Weight::pack(random_packed(3, 0, 1));
  const std::vector<float> bias = {1, 2, 3};
  Strided y(9, 3);
  linear_int8({nullptr, 9, 0, 0}, packed, bias, 6, y.mut());
  for (int64_t r = 0; r < 9; ++r) EXPECT_EQ(std::vector<float>(y.view().row(r), y.view().row(r) + 3), bias);
}

TEST(LinearInt8, GivesTheSameBitsForAnyThreads) {
  const Int8Weight packed = Int8Weight::pack(random_packed(500, 333, 8));
  for (const float threshold : {6.0f, 2.5f})
    for (const int64_t rows : {1, 3, 20, 777}) {
      const Strided x = random_matrix(rows, 333, 0, 9);
      expect_same_bits_for_any_threads([&] {
        Strided y(rows, 500);
        linear_int8(x.view(), packed, {}, threshold, y.mut());
        return y.values();
      });
    }
}

TEST(LinearInt8, RefusesWrongShapes) {
  const Int8Weight packed = Int8Weight::pack(random_packed(3, 4, 1));
  Strided x(2, 4), y(2, 3), narrow(2, 2);
  EXPECT_THROW(linear_int8(x.view(), packed, {}, 6, narrow.mut()), InternalError);
  EXPECT_THROW(linear_int8(narrow.view(), packed, {}, 6, y.mut()), InternalError);
  EXPECT_THROW(linear_int8(x.view(), packed, std::vector<float>(2), 6, y.mut()), InternalError);
}

TEST(Int8Weight, KeepsAByteForEachElement) {
  Int8Weight weight;
  EXPECT_FALSE(weight);
  weight = Int8Weight::pack(random_packed(128, 64, 1));
  EXPECT_TRUE(weight);
  EXPECT_EQ(weight.out(), 128);
  EXPECT_EQ(weight.in(), 64);
  EXPECT_EQ(weight.bytes(), 128 * 64 + 128 * 4);
}

}  // namespace
}  // namespace nibble::kernels
