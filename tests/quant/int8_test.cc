#include "quant/int8.h"

#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "quant/helpers.h"

namespace nibble::quant {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void expect_same(const Packed8& a, const Packed8& b, const std::string& what) {
  EXPECT_EQ(a.shape, b.shape) << what;
  EXPECT_EQ(a.dtype, b.dtype) << what;
  EXPECT_TRUE(a.codes == b.codes) << what;
  EXPECT_TRUE(bytes_of(a.scb) == bytes_of(b.scb)) << what;
}

std::string hash(const void* data, int64_t size) {
  return sha256({static_cast<const char*>(data), static_cast<size_t>(size)});
}

/// make_goldens_int8.py has the same.
Tensor weight_of(const json& golden) {
  const auto shape = golden["shape"].get<Shape>();
  const auto zero_every = golden["zero_every"].get<int64_t>();
  std::vector<float> x;
  for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
    const int64_t row = i / shape[1];
    const float value = sample(golden["seed"].get<uint64_t>(), static_cast<uint64_t>(i));
    const bool zero = zero_every != 0 && row % zero_every == 0;
    x.push_back(zero ? 0 : std::ldexp(value * golden["scale"].get<float>(), -static_cast<int>(row % 4)));
  }
  return from_values(x, *parse_torch_name(golden["dtype"].get<std::string>()), shape);
}

TEST(Int8Golden, CodesScalesAndDecodedValues) {
  std::ifstream file(NIBBLE_ROOT "/tests/quant/goldens/int8.json");
  ASSERT_TRUE(file);
  const json goldens = json::parse(file);
  EXPECT_GE(goldens.size(), 70u);
  for (const json& golden : goldens) {
    SCOPED_TRACE(golden.dump());
    const Packed8 packed = encode8(weight_of(golden).view());
    EXPECT_EQ(hash(packed.codes.data(), std::ssize(packed.codes)), golden["codes"]);
    EXPECT_EQ(hash(packed.scb.data(), std::ssize(packed.scb) * 4), golden["scb"]);
    json tensors = json::object();
    for (const StoredTensor& t : to_tensors8(packed)) {
      tensors[t.suffix] = {torch_name(t.view.dtype), t.view.shape};
      if (t.suffix == ".weight_format") {
        EXPECT_EQ(*t.view.as<uint8_t>(), golden["weight_format"]);
      }
    }
    EXPECT_EQ(tensors, golden["tensors"]);
    if (!golden.contains("decoded_f32")) continue;
    for (const auto& [key, dtype] : std::map<std::string, DType>{
             {"decoded_f32", DType::f32}, {"decoded_bf16", DType::bf16}, {"decoded_f16", DType::f16}}) {
      const Tensor decoded = decode8(packed, dtype);
      EXPECT_EQ(hash(decoded.as<std::byte>(), decoded.bytes()), golden[key]) << key;
    }
  }
}

/// Values of both signs over the exponents of fp16 and a little beyond, subnormals and ties among them.
std::vector<float> wide_values(int64_t count, uint64_t seed, int exponents) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = random_bits(seed, static_cast<uint64_t>(i));
    // Half of the mantissas end at a tie of fp16, in the lowest bit that fp16 drops.
    const uint32_t mantissa = bits % 2 == 0 ? (bits >> 8 & 0x7fffffu) : ((bits >> 8 & 0x7fe000u) | 0x1000u);
    const float unit = std::bit_cast<float>(0x3f800000u | mantissa);
    out.push_back(std::ldexp(bits & 2 ? unit : -unit, static_cast<int>(bits >> 40) % exponents - 26));
  }
  return out;
}

TEST(Int8Targets, EveryRowLengthAndExponent) {
  for (const DType dtype : kDtypes)
    for (const int64_t in : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 257})
      for (const int exponents : {3, 12, 41}) {
        const int64_t out = 40;
        const Tensor weight =
            from_values(wide_values(out * in, static_cast<uint64_t>(in), exponents), dtype, {out, in});
        const Packed8 expected = ref::encode8(weight.view());
        for (const int64_t target : targets()) {
          const ForcedTarget forced(target);
          expect_same(encode8(weight.view()), expected,
                      fmt::format("{} {} {}", dtype_name(dtype), in, instruction_set()));
        }
      }
}

TEST(Int8Targets, EveryValueOfF16UnderManyScales) {
  // Row s holds all values of fp16 up to its own absmax.
  for (const uint16_t top :
       {0x0001, 0x0002, 0x03ff, 0x0400, 0x2e66, 0x3bff, 0x3c00, 0x3c01, 0x5555, 0x7bff}) {
    std::vector<uint16_t> row;
    for (int v = -top; v <= top; ++v) row.push_back(static_cast<uint16_t>(v < 0 ? 0x8000 | -v : v));
    const TensorView view{DType::f16, {1, std::ssize(row)}, reinterpret_cast<const std::byte*>(row.data())};
    const Packed8 expected = ref::encode8(view);
    EXPECT_EQ(expected.codes.front(), -127);
    EXPECT_EQ(expected.codes.back(), 127);
    for (const int64_t target : targets()) {
      const ForcedTarget forced(target);
      expect_same(encode8(view), expected, instruction_set());
    }
  }
}

TEST(Int8Targets, RandomPatternsAtOddAddresses) {
  // Most rows hold a NaN or a value beyond fp16: an infinite or NaN scale (of any payload), codes 0.
  for (const DType dtype : kDtypes) {
    const int64_t out = 300, in = 9, size = dtype_size(dtype);
    const Tensor patterns = random_patterns(out * in, dtype, 77);
    std::vector<std::byte> moved(static_cast<size_t>(patterns.bytes()) + 1);
    std::memcpy(moved.data() + 1, patterns.as<std::byte>(), static_cast<size_t>(out * in * size));
    const TensorView view{dtype, {out, in}, moved.data() + 1};
    const Packed8 expected = ref::encode8(view);
    for (const int64_t target : targets()) {
      const ForcedTarget forced(target);
      const Packed8 packed = encode8(view);
      EXPECT_TRUE(packed.codes == expected.codes) << instruction_set();
      for (size_t r = 0; r < packed.scb.size(); ++r) {
        if (std::isnan(expected.scb[r])) {
          EXPECT_TRUE(std::isnan(packed.scb[r])) << r;
        } else {
          EXPECT_EQ(packed.scb[r], expected.scb[r]) << r;
        }
      }
    }
  }
}

TEST(Int8Targets, OutliersAreLeftOutAndMarked) {
  const std::vector<float> values = wide_values(5000, 3, 41);
  for (const float threshold : {6.0f, 0.5f, 65504.0f, kInfinity})
    for (const size_t n : {1u, 6u, 16u, 100u, 5000u}) {
      const std::span<const float> row(values.data(), n);
      std::vector<int8_t> expected(n), codes(n);
      std::vector<uint8_t> expected_marks(n, 0), marks(n, 0);
      const float absmax = ref::encode_row8(row, threshold, expected.data(), expected_marks.data());
      for (const int64_t target : targets()) {
        const ForcedTarget forced(target);
        std::fill(marks.begin(), marks.end(), uint8_t{0});
        EXPECT_EQ(encode_row8(reinterpret_cast<const std::byte*>(row.data()), DType::f32, std::ssize(row),
                              threshold, codes.data(), marks.data()),
                  absmax);
        EXPECT_EQ(codes, expected);
        EXPECT_EQ(marks, expected_marks);
      }
    }
}

TEST(Int8, ARowByHand) {
  // 1 / 4 * 127 = 31.75 exactly; 63.5 goes to the even 64; fp16 rounds 0.0157480314 so that its 0.49997 goes
  // to 0, and 5.9981 to 6.
  const std::vector<float> row = {4, -4, 2, 0.0157480314f, -0.0f, 5.9981f, -7, 1};
  std::vector<int8_t> codes(8);
  std::vector<uint8_t> marks(8, 0);
  EXPECT_EQ(encode_row8(reinterpret_cast<const std::byte*>(row.data()), DType::f32, 8, 6, codes.data(),
                        marks.data()),
            4);
  EXPECT_THAT(codes, testing::ElementsAre(127, -127, 64, 0, 0, 0, 0, 32));
  EXPECT_THAT(marks, testing::ElementsAre(0, 0, 0, 0, 0, 1, 1, 0));
}

TEST(Int8, GivesTheSameBytesForAnyThreads) {
  const Tensor weight = from_values(wide_values(700 * 333, 5, 30), DType::bf16, {700, 333});
  const int before = num_threads();
  set_num_threads(1);
  const Packed8 one = encode8(weight.view());
  const auto decoded = bytes_of(decode8(one));
  for (const int threads : {2, 3, 7}) {
    set_num_threads(threads);
    expect_same(encode8(weight.view()), one, fmt::format("{} threads", threads));
    EXPECT_TRUE(bytes_of(decode8(one)) == decoded);
  }
  set_num_threads(before);
}

TEST(Int8, DecodesLikeTheReference) {
  for (const Shape& shape : {Shape{3, 1000}, Shape{1, 1}, Shape{0, 5}, Shape{5, 0}, Shape{700, 257}}) {
    Packed8 p{.shape = shape, .dtype = DType::bf16, .codes = {}, .scb = {}};
    for (int64_t i = 0; i < shape[0] * shape[1]; ++i)
      p.codes.push_back(static_cast<int8_t>(random_bits(1, static_cast<uint64_t>(i))));
    p.scb = wide_values(shape[0], 8, 41);
    for (const DType dtype : kDtypes)
      EXPECT_TRUE(bytes_of(decode8(p, dtype)) == bytes_of(ref::decode8(p, dtype))) << shape_text(shape);
  }
}

TEST(Int8, ErrorOfGaussianWeights) {
  // A row's absmax of 1024 normal numbers is about 3.3: steps of 3.3 / 127, whose error is 1 / sqrt(12) of
  // them.
  std::vector<float> values;
  for (uint64_t i = 0; i < 256 * 1024; ++i) values.push_back(static_cast<float>(gaussian(6, i)));
  const Tensor weight = from_values(values, DType::bf16, {256, 1024});
  const Tensor decoded = decode8(encode8(weight.view()), DType::f32);
  const double error = weight_error(weight.view(), decoded.view()).relative;
  EXPECT_GT(error, 0.0070);
  EXPECT_LT(error, 0.0080);
}

TEST(Int8, WholeNumbersUpTo127ComeBack) {
  std::vector<float> values;
  for (int i = -127; i <= 127; ++i) values.push_back(static_cast<float>(i));
  const Tensor weight = from_values(values, DType::bf16, {1, 255});
  const Tensor decoded = decode8(encode8(weight.view()));
  EXPECT_EQ(weight_error(weight.view(), decoded.view()).relative, 0);
}

TEST(BeyondF16, TheLimitOfEachType) {
  const auto found = [](float value, DType dtype) {
    std::vector<float> values(5, 1.0f);
    values[3] = value;
    const Tensor weight = from_values(values, dtype, {1, 5});
    EXPECT_EQ(find_beyond_f16(weight.view()), ref::find_beyond_f16(weight.view()));
    return find_beyond_f16(weight.view()) == 3;
  };
  EXPECT_FALSE(found(std::nextafter(65520.0f, 0.0f), DType::f32));
  EXPECT_TRUE(found(65520, DType::f32));
  EXPECT_TRUE(found(-1e38f, DType::f32));
  EXPECT_FALSE(found(-65280, DType::bf16));
  EXPECT_TRUE(found(65536, DType::bf16));
  EXPECT_FALSE(found(-65504, DType::f16));
  for (const DType dtype : kDtypes)
    for (const float value : {kInfinity, -kInfinity, kNan}) EXPECT_TRUE(found(value, dtype));
}

TEST(BeyondF16, TheFirstOfALargeTensor) {
  std::vector<float> values(300000, 2.0f);
  EXPECT_EQ(find_beyond_f16(from_values(values, DType::bf16, {3, 100000}).view()), std::nullopt);
  for (const int64_t at : {299999, 200001, 65536, 65535, 0}) {
    values[static_cast<size_t>(at)] = -1e9f;
    EXPECT_EQ(find_beyond_f16(from_values(values, DType::bf16, {3, 100000}).view()), at);
  }
}

/// The tensors of one linear, to be damaged.
struct Stored8 : StoredCopies {
  explicit Stored8(const Packed8& packed) : StoredCopies(to_tensors8(packed)) {}
  Packed8 read() const { return from_tensors8(lookup(), "m.safetensors: x"); }
  std::string error() const {
    return error_of("m.safetensors: x.", [this] { read(); });
  }
};

Packed8 packed8_of(int64_t out, int64_t in) {
  return encode8(from_values(wide_values(out * in, 4, 30), DType::f16, {out, in}).view());
}

TEST(Tensors8, ComeBackAsTheyWere) {
  for (const auto& [out, in] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 33}, {64, 128}, {0, 4}, {4, 0}}) {
    const Packed8 p = packed8_of(out, in);
    const Stored8 stored(p);
    expect_same(stored.read(), p, shape_text(p.shape));
    EXPECT_EQ(stored.bytes(), packed8_bytes(out, in));
  }
}

TEST(Tensors8, TheOldestFilesHaveNoWeightFormat) {
  const Packed8 p = packed8_of(3, 5);
  Stored8 stored(p);
  stored.entries.erase(".weight_format");
  expect_same(stored.read(), p, "without weight_format");
}

TEST(Tensors8, WhatIsWrongIsNamed) {
  const Stored8 good(packed8_of(3, 5));
  EXPECT_EQ(good.error(), "no error");
  const auto with = [&](const std::string& suffix, auto change) {
    Stored8 bad = good;
    change(bad.entries[suffix]);
    return bad.error();
  };
  for (const std::string suffix : {".weight", ".SCB"}) {
    Stored8 bad = good;
    bad.entries.erase(suffix);
    EXPECT_THAT(bad.error(), HasSubstr(suffix + " is missing"));
    EXPECT_THAT(with(suffix, [](auto& e) { e.dtype = DType::u8; }),
                HasSubstr(suffix + " is U8; an 8-bit linear needs"));
    EXPECT_THAT(with(suffix,
                     [](auto& e) {
                       e.shape = {3, 1, 5};
                     }),
                HasSubstr(suffix + " has shape [3, 1, 5]"));
  }
  EXPECT_THAT(with(".weight", [](auto& e) { e.shape = {15}; }), HasSubstr("needs [out, in] here"));
  EXPECT_THAT(with(".SCB", [](auto& e) { e.shape = {2}; }),
              HasSubstr("SCB has 2 values, but the weight has 3 rows"));
  for (const float scale : {-1.0f, kInfinity, kNan}) {
    const auto put = [&](auto& e) { std::memcpy(e.bytes.data() + 1 + 4, &scale, 4); };
    EXPECT_THAT(with(".SCB", put), HasSubstr("at 1; the file is damaged"));
  }
  EXPECT_THAT(with(".weight_format", [](auto& e) { e.bytes[1] = std::byte{2}; }),
              HasSubstr("weight_format is 2"));
  EXPECT_THAT(with(".weight_format", [](auto& e) { e.shape = {2}; }), HasSubstr("should be one U8"));
  EXPECT_THAT(with(".weight_format", [](auto& e) { e.dtype = DType::i8; }), HasSubstr("should be one U8"));
}

TEST(Int8, RefusesWrongCalls) {
  EXPECT_THROW(encode8(Tensor(DType::f32, {4}).view()), InternalError);
  EXPECT_THROW(encode8(Tensor(DType::i8, {4, 4}).view()), InternalError);
  Packed8 p = packed8_of(3, 5);
  EXPECT_THROW(decode8(p, DType::i8), InternalError);
  p.scb.pop_back();
  EXPECT_THROW(decode8(p), InternalError);
}

}  // namespace
}  // namespace nibble::quant
