#include "quant/state.h"

#include <gmock/gmock.h>

#include <map>

#include "base/error.h"
#include "quant/helpers.h"

namespace nibble::quant {
namespace {

using testing::HasSubstr;

/// The tensors of one weight, to be damaged.
struct Stored : StoredCopies {
  explicit Stored(const Packed4& packed) : StoredCopies(to_tensors(packed)) {}
  void set_state(const std::string& text, const std::string& type = "nf4") {
    set(fmt::format(".quant_state.bitsandbytes__{}", type), DType::u8, {std::ssize(text)}, text.data());
  }
  Packed4 read() const { return from_tensors(lookup(), "m.safetensors: tensor x.weight"); }
  std::string error() const {
    return error_of("m.safetensors: tensor x.weight", [this] { read(); });
  }
};

Packed4 packed_of(const Shape& shape, DType dtype, Format format, bool nested) {
  const int64_t count = TensorView{dtype, shape, nullptr}.count();
  Packed4 p = encode4(samples(count, dtype, 51).view(), format, nested);
  p.shape = shape;
  return p;
}

TEST(State, JsonAsPythonWritesIt) {
  Packed4 p = packed_of({4, 96}, DType::bf16, Format::nf4, false);
  EXPECT_EQ(quant_state_json(p),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 96]})");
  p = packed_of({7}, DType::f16, Format::fp4, true);
  p.nested->offset = 0.05190518498420715f;
  EXPECT_EQ(
      quant_state_json(p),
      R"({"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [7], "nested_blocksize": 256, )"
      R"("nested_dtype": "float32", "nested_offset": 0.05190518498420715})");
  for (const auto& [offset, text] : std::map<float, std::string>{{1e-4f, "9.999999747378752e-05"},
                                                                 {123456, "123456.0"},
                                                                 {0, "0.0"},
                                                                 {0x1p-149f, "1.401298464324817e-45"},
                                                                 {0x1p60f, "1.152921504606847e+18"}}) {
    p.nested->offset = offset;
    EXPECT_THAT(quant_state_json(p), testing::EndsWith(fmt::format(R"("nested_offset": {}}})", text)));
    EXPECT_EQ(parse_quant_state(quant_state_json(p), "t").nested->offset, offset);
  }
  p.shape = {};
  EXPECT_THAT(quant_state_json(p), HasSubstr("\"shape\": []"));
}

TEST(State, ReadsWhatItSays) {
  const QuantState s = parse_quant_state(
      R"({"shape":[3,5],"dtype":"float32","blocksize":128,"quant_type":"fp4","nested_offset":2,"nested_dtype":"float32","nested_blocksize":32})",
      "t");
  EXPECT_EQ(s.format, Format::fp4);
  EXPECT_EQ(s.block, 128);
  EXPECT_EQ(s.dtype, DType::f32);
  EXPECT_EQ(s.shape, (Shape{3, 5}));
  ASSERT_TRUE(s.nested);
  EXPECT_EQ(s.nested->block, 32);
  EXPECT_EQ(s.nested->offset, 2);
}

TEST(State, RefusesWhatIsWrong) {
  const std::string good = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 96]})";
  const auto error = [](const std::string& text) -> std::string {
    try {
      parse_quant_state(text, "file: t");
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::StartsWith("file: t: "));
      return e.what();
    }
    return "no error";
  };
  const auto with = [&](const std::string& old, const std::string& text) {
    std::string s = good;
    const size_t at = s.find(old);
    EXPECT_NE(at, std::string::npos) << old;
    return error(s.replace(at, old.size(), text));
  };
  EXPECT_EQ(error(good), "no error");
  for (const char* text :
       {"", "{", "[]", "null", "{\"quant_type\": \"nf4\",}", "\xff\xfe", "{} x", "{'a': 1}"})
    EXPECT_THAT(error(text), HasSubstr("no JSON object")) << text;
  EXPECT_THAT(error(std::string(60000, '[')), HasSubstr("nested deeper than 4 levels"));
  EXPECT_THAT(error("{}"), HasSubstr("no \"quant_type\""));
  EXPECT_THAT(with("nf4", "int4"), HasSubstr("quant_type of the quant_state is \"int4\""));
  EXPECT_THAT(with("nf4", "bf16"), HasSubstr("quant_type"));
  EXPECT_THAT(with("\"nf4\"", "4"), HasSubstr("no string"));
  EXPECT_THAT(with("bfloat16", "int8"), HasSubstr("dtype"));
  EXPECT_THAT(with("bfloat16", "float64"), HasSubstr("dtype"));
  for (const char* block : {"0", "-64", "31", "8192", "64.0", "\"64\"", "true", "null", "1e300",
                            "18446744073709551680", "-9223372036854775808"})
    EXPECT_THAT(with("64", block), HasSubstr("\"blocksize\"")) << block;
  EXPECT_THAT(with("64", "65"), HasSubstr("no power of two"));
  for (const char* shape : {"[-1, 4]", "[4.0]", "[true]", "[\"4\"]", "[[4]]", "[9223372036854775808]"})
    EXPECT_THAT(with("[4, 96]", shape), HasSubstr("\"shape\"")) << shape;
  const auto ones = [](int rank) {
    std::string text = "[1";
    for (int i = 1; i < rank; ++i) text += ", 1";
    return text + "]";
  };
  EXPECT_EQ(with("[4, 96]", ones(16)), "no error");
  EXPECT_THAT(with("[4, 96]", ones(17)),
              HasSubstr("\"shape\" of the quant_state has 17 numbers, more than 16"));
  EXPECT_THAT(with("64", std::string(20000, '[') + std::string(20000, ']')), HasSubstr("nested deeper"));
  EXPECT_THAT(with("[4, 96]", "null"), HasSubstr("no list"));
  EXPECT_THAT(with("[4, 96]", "[4294967296, 4294967296]"), HasSubstr("too large"));
  EXPECT_THAT(with("[4, 96]", "[4611686018427387904]"), HasSubstr("too large"));
  EXPECT_THAT(with("\"shape\"", "\"size\""), HasSubstr("unknown field \"size\""));
  EXPECT_THAT(with("}", ", \"extra\\n\": 1}"), HasSubstr("unknown field"));
  EXPECT_THAT(with("}", ", \"nested_offset\": 1}"), HasSubstr("no \"nested_blocksize\""));
  const auto nested = [&](const std::string& block, const std::string& dtype, const std::string& offset) {
    return with("}", fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": {}, "nested_offset": {}}})",
                                 block, dtype, offset));
  };
  EXPECT_EQ(nested("256", "\"float32\"", "0.5"), "no error");
  EXPECT_THAT(nested("0", "\"float32\"", "0.5"), HasSubstr("nested_blocksize"));
  EXPECT_THAT(nested("256", "\"float16\"", "0.5"), HasSubstr("nested_dtype"));
  for (const char* offset : {"\"0.5\"", "null", "1e39", "-1e300"})
    EXPECT_THAT(nested("256", "\"float32\"", offset), HasSubstr("nested_offset")) << offset;
  EXPECT_THAT(nested("256", "\"float32\"", "NaN"), HasSubstr("no JSON object"));
}

TEST(Tensors, ComeBackAsTheyWere) {
  for (const DType dtype : kDtypes)
    for (const Format format : kFormats)
      for (const bool nested : {false, true})
        for (const Shape& shape :
             {Shape{4, 96}, Shape{7, 9}, Shape{1}, Shape{}, Shape{0, 5}, Shape{130, 129}}) {
          const Packed4 p = packed_of(shape, dtype, format, nested);
          const Stored stored(p);
          const Packed4 back = stored.read();
          expect_same(back, p, shape_text(shape));
          const int64_t count = TensorView{dtype, shape, nullptr}.count();
          EXPECT_EQ(stored.bytes(), packed_bytes(count, nested, std::ssize(quant_state_json(p))));
        }
}

TEST(Tensors, NamesTypesAndShapes) {
  std::string text;
  const Packed4 p = packed_of({130, 129}, DType::bf16, Format::nf4, true);
  for (const StoredTensor& t : to_tensors(p))
    text += fmt::format("{} {} {}\n", t.suffix, dtype_name(t.view.dtype), shape_text(t.view.shape));
  EXPECT_EQ(text, fmt::format(" U8 [8385, 1]\n"
                              ".absmax U8 [263]\n"
                              ".quant_map F32 [16]\n"
                              ".nested_absmax F32 [2]\n"
                              ".nested_quant_map F32 [256]\n"
                              ".quant_state.bitsandbytes__nf4 U8 [{}]\n",
                              quant_state_json(p).size()));
}

TEST(Tensors, BytesOfOtherBlocks) {
  for (const bool nested : {false, true}) {
    const Packed4 p = encode4(samples(1001, DType::bf16, 52).view(), Format::fp4, nested, 128);
    int64_t bytes = 0;
    for (const StoredTensor& t : to_tensors(p)) bytes += t.view.bytes();
    EXPECT_EQ(bytes, packed_bytes(1001, nested, std::ssize(quant_state_json(p)), 128));
    expect_same(Stored(p).read(), p, "block 128");
  }
}

TEST(Tensors, TheStoredMapsAreUsed) {
  Packed4 p = packed_of({64, 64}, DType::f32, Format::nf4, true);
  p.nested->map[0] = -1;  // as bitsandbytes up to 0.49 wrote it on CPU
  p.nested->q[5] = 0;
  p.code[15] = 1.25f;
  const Packed4 back = Stored(p).read();
  EXPECT_EQ(back.nested->map[0], -1);
  EXPECT_EQ(back.code[15], 1.25f);
  EXPECT_EQ(decode_absmax(back)[5], -p.nested->absmax[0] + p.nested->offset);
  EXPECT_TRUE(bytes_of(decode4(back)) == bytes_of(decode4(p)));
}

TEST(Tensors, MissingOnes) {
  for (const bool nested : {false, true}) {
    const Stored good(packed_of({130, 129}, DType::bf16, Format::nf4, nested));
    EXPECT_EQ(good.error(), "no error");
    for (const auto& [suffix, entry] : good.entries) {
      Stored bad = good;
      bad.entries.erase(suffix);
      EXPECT_THAT(bad.error(), HasSubstr(fmt::format("x.weight{}", suffix))) << suffix;
      EXPECT_THAT(bad.error(), HasSubstr("is missing")) << suffix;
    }
  }
}

TEST(Tensors, WrongTypesAndSizes) {
  for (const bool nested : {false, true}) {
    const Stored good(packed_of({130, 129}, DType::bf16, Format::nf4, nested));
    for (const auto& [suffix, entry] : good.entries) {
      Stored bad = good;
      bad.entries[suffix].dtype = entry.dtype == DType::u8 ? DType::i8 : DType::i32;
      EXPECT_THAT(bad.error(), HasSubstr(fmt::format("x.weight{} is I", suffix))) << suffix;
      if (suffix.starts_with(".quant_state")) continue;
      for (const int64_t change : {-1, 1}) {
        bad = good;
        auto& damaged = bad.entries[suffix];
        damaged.shape[0] += change;
        damaged.bytes.resize(1 +
                             static_cast<size_t>(TensorView{damaged.dtype, damaged.shape, nullptr}.bytes()));
        EXPECT_THAT(bad.error(), HasSubstr(fmt::format("x.weight{} has shape", suffix))) << suffix;
      }
    }
  }
}

TEST(Tensors, ContradictingStates) {
  const Packed4 plain = packed_of({4, 96}, DType::bf16, Format::nf4, false);
  const Packed4 nested = packed_of({4, 96}, DType::bf16, Format::nf4, true);
  Stored bad(plain);
  bad.set_state(quant_state_json(plain), "fp4");
  EXPECT_THAT(bad.error(), HasSubstr("one for fp4"));
  bad.entries.erase(".quant_state.bitsandbytes__nf4");
  EXPECT_THAT(bad.error(), HasSubstr("says quant_type \"nf4\""));
  bad = Stored(plain);
  bad.set_state(quant_state_json(nested));
  EXPECT_THAT(bad.error(), HasSubstr("x.weight.absmax is F32"));
  bad = Stored(nested);
  bad.set_state(quant_state_json(plain));
  EXPECT_THAT(bad.error(), HasSubstr("no nested_offset"));
  bad = Stored(plain);
  bad.set_state(
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2305843009213693951]})");
  EXPECT_THAT(bad.error(), HasSubstr("x.weight has shape [192, 1]"));  // and no attempt at 10^18 elements
  bad.set_state(R"({"quant_type": "nf4", "blocksize": 128, "dtype": "bfloat16", "shape": [4, 96]})");
  EXPECT_THAT(bad.error(), HasSubstr("x.weight.absmax has shape [6]"));
  bad.set_state(std::string(70000, ' '));
  EXPECT_THAT(bad.error(), HasSubstr("at most 65536"));
}

TEST(Tensors, ScalesThatAreNotFinite) {
  for (const bool nested : {false, true}) {
    const Stored good(packed_of({130, 129}, DType::bf16, Format::nf4, nested));
    for (const auto& [suffix, entry] : good.entries) {
      if (entry.dtype != DType::f32) continue;
      for (const float value : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
        Stored bad = good;
        std::memcpy(bad.entries[suffix].bytes.data() + 1 + 4, &value, 4);
        EXPECT_THAT(bad.error(), HasSubstr(fmt::format("x.weight{} holds ", suffix))) << suffix;
      }
    }
  }
}

TEST(Tensors, DamagedStatesGiveErrorsOrAWholeTensor) {
  const Packed4 p = packed_of({4, 96}, DType::bf16, Format::nf4, true);
  const std::string text = quant_state_json(p);
  int errors = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    std::string damaged = text;
    for (uint64_t k = 0; k <= i % 3; ++k) {
      const uint64_t r = random_bits(53, 4 * i + k);
      const size_t at = r % damaged.size();
      if (r >> 60 < 4)
        damaged.erase(at, 1 + (r >> 20) % 4);
      else
        damaged[at] =
            (r >> 60) % 2 == 0 ? "0123456789-.eE,[]{}\":"[(r >> 30) % 21] : static_cast<char>(r >> 40);
      if (damaged.empty()) damaged.push_back('{');
    }
    Stored stored(p);
    stored.set_state(damaged);
    try {
      EXPECT_EQ(decode4(stored.read()).count(), 384);
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 10000);
  EXPECT_LT(errors, 20000);
}

}  // namespace
}  // namespace nibble::quant
