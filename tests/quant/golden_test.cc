// Against bitsandbytes on CPU, 0.48.2 and 0.50.2, where it follows the CUDA rule (make_goldens.py says
// where).
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "quant/helpers.h"
#include "quant/state.h"

namespace nibble::quant {
namespace {

using nlohmann::json;

std::string hash(const void* data, int64_t size) {
  return sha256({static_cast<const char*>(data), static_cast<size_t>(size)});
}

template <typename T>
std::string hash(const std::vector<T>& values) {
  return hash(values.data(), std::ssize(values) * static_cast<int64_t>(sizeof(T)));
}

Tensor weight_of(const json& golden) {
  Tensor out(*parse_torch_name(golden["dtype"].get<std::string>()), golden["shape"].get<Shape>());
  const float scale = golden["scale"].get<float>();
  const auto seed = golden["seed"].get<uint64_t>();
  const auto zero_every = golden["zero_every"].get<int64_t>();
  std::vector<float> x;
  for (int64_t i = 0; i < out.count(); ++i) {
    const bool zero = zero_every != 0 && i / 64 % zero_every == 0;
    x.push_back(zero ? 0 : sample(seed, static_cast<uint64_t>(i)) * scale);
  }
  from_float(x, out.dtype(), out.as<std::byte>());
  return out;
}

std::string decoded_hash(const Packed4& packed, DType dtype) {
  // A zero has no sign in the goldens: FP4 codes of values near zero carry another one on CPU.
  std::vector<float> values = to_float(decode4(packed, DType::f32).view());
  for (float& v : values) v += 0.0f;
  Tensor rounded(dtype, packed.shape);
  from_float(values, dtype, rounded.as<std::byte>());
  return hash(rounded.as<std::byte>(), rounded.bytes());
}

void check(const json& golden) {
  const Format format = *parse_format(golden["format"].get<std::string>());
  const bool nested = golden["double_quant"].get<bool>();
  const Tensor weight = weight_of(golden);
  Packed4 packed = encode4(weight.view(), format, false, golden["block"].get<int64_t>());
  if (golden.contains("codes")) {
    EXPECT_EQ(hash(packed.codes), golden["codes"]);
  }
  EXPECT_EQ(hash(packed.code.data(), 64), golden["quant_map"]);
  if (nested) {
    const auto bits = golden["nested_offset_bits"].get<uint32_t>();
    const auto ours = std::bit_cast<int32_t>(encode_absmax(packed.absmax).offset);
    EXPECT_LE(std::abs(ours - static_cast<int32_t>(bits)), 2) << "ulp";  // the order of the reference's sum
    packed.nested = encode_absmax(packed.absmax, std::bit_cast<float>(bits));
    packed.absmax.clear();
    EXPECT_EQ(hash(packed.nested->q), golden["q"]);
    EXPECT_EQ(hash(packed.nested->absmax), golden["nested_absmax"]);
  } else {
    EXPECT_EQ(hash(packed.absmax), golden["absmax"]);
  }
  EXPECT_EQ(quant_state_json(packed), golden["state"].get<std::string>());
  EXPECT_EQ(decoded_hash(packed, DType::f32), golden["decoded_f32"]);
  EXPECT_EQ(decoded_hash(packed, DType::bf16), golden["decoded_bf16"]);
  EXPECT_EQ(decoded_hash(packed, DType::f16), golden["decoded_f16"]);
  json tensors = json::object();
  for (const StoredTensor& t : to_tensors(packed))
    tensors[t.suffix] = {torch_name(t.view.dtype), t.view.shape};
  EXPECT_EQ(tensors, golden["tensors"]);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, CodesScalesStateAndDecodedValues) {
  std::ifstream file(std::string(NIBBLE_ROOT "/tests/quant/goldens/bitsandbytes_") + GetParam() + ".json");
  ASSERT_TRUE(file);
  const json goldens = json::parse(file);
  EXPECT_GE(goldens.size(), 50u);
  for (const json& golden : goldens) {
    SCOPED_TRACE(golden.dump());
    check(golden);
  }
}

INSTANTIATE_TEST_SUITE_P(Bitsandbytes, Golden, testing::Values("0.48.2", "0.50.2"), [](const auto& info) {
  return std::string(info.param) == "0.48.2" ? "v0_48_2" : "v0_50_2";
});

}  // namespace
}  // namespace nibble::quant
