#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "io/file.h"
#include "io/safetensors.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::HasSubstr;

/// The error of opening a file with these bytes; it must name the file.
std::string refusal(const std::string& bytes) {
  const TempFolder folder;
  put(folder / "x.safetensors", bytes);
  const std::string text = error_of([&] { SafetensorsFile file(folder / "x.safetensors"); });
  EXPECT_THAT(text, HasSubstr("x.safetensors")) << text;
  return text;
}

std::string refusal_of_header(std::string_view header, std::string_view data = "") {
  return refusal(safetensors_bytes(header, data));
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":{}}})", dtype, shape, offsets);
}

void check_pattern(const TensorView& view, int seed) {
  const auto* bytes = view.as<uint8_t>();
  for (int64_t i = 0; i < view.bytes(); ++i)
    ASSERT_EQ(bytes[i], view.dtype == DType::boolean ? i % 2 : (31 * i + seed) % 256) << i;
}

TEST(SafetensorsRead, EveryDtypeOfTheLibrarysFile) {
  const SafetensorsFile file(kGoldens / "dtypes.safetensors");
  const DType order[] = {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64,
                         DType::i32, DType::i16, DType::i8,   DType::u8,  DType::boolean};
  EXPECT_EQ(file.tensors().size(), 20u);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file.path(), kGoldens / "dtypes.safetensors");
  for (int k = 0; k < 10; ++k) {
    const TensorView view = file.tensor(fmt::format("a.{}", torch_name(order[k])));
    EXPECT_EQ(view.dtype, order[k]);
    EXPECT_EQ(view.shape, (Shape{3, 5}));
    check_pattern(view, 7 * k);
  }
}

TEST(SafetensorsRead, ScalarsAndEmptyTensors) {
  const SafetensorsFile file(kGoldens / "shapes.safetensors");
  EXPECT_EQ(file.tensor("scalar").shape, Shape{});
  check_pattern(file.tensor("scalar"), 1);
  EXPECT_EQ(file.tensor("empty").shape, Shape{0});
  EXPECT_EQ(file.tensor("empty.2d").shape, (Shape{4, 0}));
  EXPECT_EQ(file.tensor("empty.2d").bytes(), 0);
  EXPECT_EQ(file.tensor("rank").shape, (Shape{1, 2, 1, 3, 1}));
  check_pattern(file.tensor("odd"), 3);
}

TEST(SafetensorsRead, NamesNeedingEscapes) {
  const SafetensorsFile file(kGoldens / "names.safetensors");
  for (const char* name : {"", "a\"b", "a\\b", "é", "日本", "😀", "a\nb", "\b\f\r\t", "\x01\x1f", "\x7f"})
    EXPECT_EQ(file.tensor(name).bytes(), 4) << name;
}

TEST(SafetensorsRead, FileWithoutTensors) {
  EXPECT_TRUE(SafetensorsFile(kGoldens / "none.safetensors").tensors().empty());
  const TempFolder folder;
  put(folder / "a", safetensors_bytes("{}"));
  const SafetensorsFile file(folder / "a");
  EXPECT_TRUE(file.tensors().empty());
  EXPECT_TRUE(file.metadata().empty());
}

TEST(SafetensorsRead, UnalignedTensorsAreCopiedOnce) {
  const TempFolder folder;
  const float values[2] = {1.5f, -2.0f};
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(values), sizeof values);
  put(folder / "a",
      safetensors_bytes(
          "{\"b\":" + entry("U8", "[1]", "[0,1]") + ",\"f\":" + entry("F32", "[2]", "[1,9]") + "}   ", data));
  const SafetensorsFile file(folder / "a");
  std::vector<const std::byte*> seen(8);
  std::vector<std::thread> threads;
  for (auto& s : seen) threads.emplace_back([&] { s = file.tensor("f").data; });
  for (auto& t : threads) t.join();
  for (const auto* s : seen) EXPECT_EQ(s, seen[0]);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(seen[0]) % 4, 0u);
  EXPECT_EQ(std::memcmp(seen[0], values, sizeof values), 0);
}

/// How many of the whole pages among some bytes are in this process (not just in the system's cache).
int64_t resident_pages(const std::byte* data, int64_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page;
  const auto end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / page;
  std::vector<uint64_t> entries(end - begin);
  const Descriptor map(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto size = static_cast<ssize_t>(entries.size() * sizeof(uint64_t));
  EXPECT_EQ(
      pread(map.get(), entries.data(), entries.size() * sizeof(uint64_t), static_cast<off_t>(begin * 8)),
      size);
  return std::count_if(entries.begin(), entries.end(), [](uint64_t entry) { return entry >> 63 != 0; });
}

TEST(SafetensorsRead, DroppedBytesLeaveTheProcessAndComeBack) {
  const TempFolder folder;
  constexpr int64_t kBytes = 1 << 20;
  std::string data(2 * kBytes, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 31 + i / 4096);
  put(folder / "x.safetensors",
      safetensors_bytes(fmt::format(R"({{"a":{},"b":{}}})", entry("U8", "[1048576]", "[0,1048576]"),
                                    entry("U8", "[1048576]", "[1048576,2097152]")),
                        data));
  const SafetensorsFile file(folder / "x.safetensors");
  const TensorView a = file.tensor("a"), b = file.tensor("b");
  const auto same = [&](const TensorView& view, size_t at) {
    return std::memcmp(view.data, data.data() + at, kBytes) == 0;
  };
  EXPECT_TRUE(same(a, 0) && same(b, kBytes));
  EXPECT_GT(resident_pages(a.data, kBytes), 0);
  EXPECT_TRUE(file.drop({a.data, kBytes}));
  EXPECT_EQ(resident_pages(a.data, kBytes), 0);
  EXPECT_TRUE(same(a, 0) && same(b, kBytes));
}

TEST(SafetensorsRead, DropLeavesOtherMemoryAlone) {
  const SafetensorsFile file(kGoldens / "dtypes.safetensors");
  const std::vector<std::byte> other(1 << 16, std::byte{7});
  EXPECT_FALSE(file.drop(other));
  EXPECT_FALSE(file.drop({}));
  EXPECT_EQ(std::count(other.begin(), other.end(), std::byte{7}), std::ssize(other));
  // From the mapping on, but past its end.
  EXPECT_FALSE(file.drop({file.tensor("a.float64").data, size_t{1} << 40}));
}

TEST(SafetensorsRead, MovesKeepViewsValid) {
  SafetensorsFile a(kGoldens / "shapes.safetensors");
  const TensorView view = a.tensor("odd");
  SafetensorsFile b(std::move(a));
  check_pattern(view, 3);
  EXPECT_EQ(b.tensor("odd").data, view.data);
}

TEST(SafetensorsRead, MissingTensorIsNamed) {
  const SafetensorsFile file(kGoldens / "shapes.safetensors");
  EXPECT_THAT(error_of([&] { file.tensor("no\nsuch"); }),
              HasSubstr("shapes.safetensors: has no tensor \"no\\nsuch\""));
}

TEST(SafetensorsRead, UnknownFieldsOfATensorArePassedOver) {
  const TempFolder folder;
  put(folder / "a",
      safetensors_bytes(
          R"({"x":{"new":{"shape":[{"dtype":1}],"a":null},"dtype":"U8","old":[[1.5],-1],"shape":[1],)"
          R"("z":true,"data_offsets":[0,1]}})",
          "7"));
  EXPECT_EQ(*SafetensorsFile(folder / "a").tensor("x").as<char>(), '7');
}

TEST(SafetensorsRead, RefusesFilesThatAreNoSafetensors) {
  EXPECT_THAT(refusal(""), HasSubstr("is empty"));
  EXPECT_THAT(refusal("abc"), HasSubstr("has only 3 bytes"));
  EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("does not begin with \"{\""));
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(refusal("<!DOCTYPE html><html></html>"), HasSubstr("is no safetensors file"));
  EXPECT_THAT(refusal("GGUF\x03" + std::string(20, '\0')), HasSubstr("GGUF"));
  EXPECT_THAT(refusal("PK\x03\x04" + std::string(20, '\0')), HasSubstr("safe_serialization"));
  EXPECT_THAT(refusal(std::string(100, '\xff')), HasSubstr("18446744073709551615"));
}

TEST(SafetensorsRead, RefusesWhatIsNoRegularFile) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { SafetensorsFile file(folder.path()); }), HasSubstr("is a folder"));
  EXPECT_THAT(error_of([&] { SafetensorsFile file(folder / "none"); }), HasSubstr("No such file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { SafetensorsFile file(folder / "pipe"); }), HasSubstr("pipe or device"));
}

TEST(SafetensorsRead, RefusesBadHeaderLengths) {
  std::string bytes = safetensors_bytes("{}");
  bytes[0] = 3;
  EXPECT_THAT(refusal(bytes), HasSubstr("its header takes 3 bytes, but the file has only 2"));
  bytes = safetensors_bytes(std::string(100'000'001, ' ').replace(0, 2, "{}"));
  EXPECT_THAT(refusal(bytes), HasSubstr("more than the 100000000 allowed"));
}

TEST(SafetensorsRead, RefusesBadHeaders) {
  EXPECT_THAT(refusal_of_header(" {}"), HasSubstr("does not begin"));
  EXPECT_THAT(refusal_of_header("[]"), HasSubstr("does not begin"));
  EXPECT_THAT(refusal_of_header("{"), HasSubstr("header: line 1, column 2"));
  EXPECT_THAT(refusal_of_header("{}{}"), HasSubstr("header: line 1, column 3"));
  EXPECT_THAT(refusal_of_header(std::string_view("{}\0\0", 4)), HasSubstr("NUL"));
  EXPECT_THAT(refusal_of_header("{\"\xff\":1}"), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal_of_header("{\"x\":3}"),
              HasSubstr("tensor \"x\": its entry is a number, not an object"));
  EXPECT_THAT(refusal_of_header("{\"x\":[1]}"),
              HasSubstr("tensor \"x\": its entry is an array, not an object"));
  EXPECT_THAT(refusal_of_header("{\"x\":{}}"), HasSubstr("no \"dtype\""));
  EXPECT_THAT(refusal_of_header(R"({"x":{"dtype":"U8"}})"), HasSubstr("no \"shape\""));
  EXPECT_THAT(refusal_of_header(R"({"x":{"dtype":"U8","shape":[]}})"), HasSubstr("no \"data_offsets\""));
  EXPECT_THAT(refusal_of_header(R"({"x":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", "x"),
              HasSubstr("\"dtype\" has a number"));
  EXPECT_THAT(refusal_of_header(R"({"x":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", "x"),
              HasSubstr("\"shape\" has a number"));
  EXPECT_THAT(refusal_of_header(R"({"x":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", "x"),
              HasSubstr("has \"shape\" twice"));
}

TEST(SafetensorsRead, RefusesBadMetadata) {
  EXPECT_THAT(refusal_of_header(R"({"__metadata__":3})"), HasSubstr("__metadata__"));
  EXPECT_THAT(refusal_of_header(R"({"__metadata__":{"a":1}})"), HasSubstr("__metadata__"));
  EXPECT_THAT(refusal_of_header(R"({"__metadata__":{"a":{}}})"), HasSubstr("__metadata__"));
  EXPECT_THAT(refusal_of_header(R"({"__metadata__":{"a":"x","a":"y"}})"), HasSubstr("has \"a\" twice"));
  EXPECT_THAT(refusal_of_header(R"({"__metadata__":{},"__metadata__":{}})"),
              HasSubstr("\"__metadata__\" twice"));
}

TEST(SafetensorsRead, RefusesDuplicateTensors) {
  const std::string a = entry("U8", "[1]", "[0,1]"), b = entry("U8", "[1]", "[1,2]");
  EXPECT_THAT(refusal_of_header("{\"x\":" + a + ",\"x\":" + b + "}", "ab"), HasSubstr("has \"x\" twice"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + a + ",\"\\u0078\":" + a + "}", "a"),
              HasSubstr("has \"x\" twice"));
}

TEST(SafetensorsRead, RefusesBadNumbers) {
  for (const char* bad : {"-1", "-0", "1.0", "1e0", "0.5", "18446744073709551616", "9223372036854775808",
                          "null", "true", "\"1\"", "[1]", "{}"}) {
    EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", fmt::format("[{}]", bad), "[0,1]") + "}", "x"),
                HasSubstr("\"shape\" has "))
        << bad;
    EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", fmt::format("[0,{}]", bad)) + "}", "x"),
                HasSubstr("\"data_offsets\" has "))
        << bad;
  }
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[0]") + "}", "x"), HasSubstr("two numbers"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[]") + "}", "x"), HasSubstr("two numbers"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[0,1,1]") + "}", "x"),
              HasSubstr("more than 2 numbers"));
}

TEST(SafetensorsRead, RefusesShapesThatDoNotFit) {
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("F64", "[4611686018427387904]", "[0,0]") + "}"),
              HasSubstr("is too large"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[4294967296,4294967296]", "[0,0]") + "}"),
              HasSubstr("is too large"));
  EXPECT_THAT(
      refusal_of_header("{\"x\":" + entry("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", "x"),
      HasSubstr("more than 16 numbers"));
  const TempFolder folder;
  put(folder / "a",
      safetensors_bytes("{\"x\":" + entry("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", "x"));
  EXPECT_EQ(SafetensorsFile(folder / "a").tensor("x").shape.size(), 16u);
}

TEST(SafetensorsRead, RefusesOffsetsThatContradictTheShape) {
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("F32", "[2]", "[0,4]") + "}", "1234"),
              HasSubstr("tensor \"x\": F32 of shape [2] takes 8 bytes, but its data_offsets [0, 4] hold 4"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[0]", "[0,1]") + "}", "1"),
              HasSubstr("takes 0 bytes"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[]", "[0,0]") + "}"), HasSubstr("takes 1 bytes"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[2,1]") + "}", "12"),
              HasSubstr("ends before"));
}

TEST(SafetensorsRead, RefusesBytesThatAreMissingOrLeftOver) {
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[8]", "[0,8]") + "}", "1234567"),
              HasSubstr("cut off"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[0,1]") + "}", "12"),
              HasSubstr("1 bytes after the last tensor"));
  EXPECT_THAT(refusal_of_header("{}", "12"), HasSubstr("2 bytes after the last tensor"));
  EXPECT_THAT(refusal_of_header("{\"x\":" + entry("U8", "[1]", "[1,2]") + "}", "12"),
              HasSubstr("1 bytes before tensor \"x\""));
  const std::string far = entry("U8", "[1]", "[9223372036854775806,9223372036854775807]");
  EXPECT_THAT(refusal_of_header("{\"x\":" + far + "}", "1"), HasSubstr("cut off"));
}

TEST(SafetensorsRead, RefusesOverlapsAndGaps) {
  const auto two = [](const char* a, const char* b, const char* na = "[2]", const char* nb = "[2]") {
    return "{\"a\":" + entry("U8", na, a) + ",\"b\":" + entry("U8", nb, b) + "}";
  };
  EXPECT_THAT(refusal_of_header(two("[0,2]", "[1,3]"), "123"), HasSubstr("\"b\" overlaps tensor \"a\""));
  EXPECT_THAT(refusal_of_header(two("[0,2]", "[0,2]"), "12"), HasSubstr("overlaps"));
  EXPECT_THAT(refusal_of_header(two("[3,5]", "[0,2]"), "12345"), HasSubstr("1 bytes before tensor \"a\""));
  EXPECT_THAT(refusal_of_header(two("[0,2]", "[1,1]", "[2]", "[0]"), "12"), HasSubstr("overlaps"));
  const TempFolder folder;
  put(folder / "a", safetensors_bytes(two("[2,4]", "[0,2]"), "1234"));  // in any order in the header
  EXPECT_EQ(*SafetensorsFile(folder / "a").tensor("a").as<char>(), '3');
  put(folder / "b", safetensors_bytes(two("[0,2]", "[2,2]", "[2]", "[0]"), "12"));
  EXPECT_EQ(SafetensorsFile(folder / "b").tensor("b").bytes(), 0);
}

TEST(SafetensorsRead, NamesDtypesThatItDoesNotComputeWith) {
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "U16", "U32", "U64", "F4", "F8_E8M0", "C64"})
    EXPECT_THAT(
        refusal_of_header("{\"x\":" + entry(dtype, "[2]", "[0,2]") + "}", "12"),
        HasSubstr(fmt::format("tensor \"x\" has dtype {}, which nibble does not compute with", dtype)));
  for (const char* dtype : {"", "f32", "FLOAT", "F32 ", "\\n"})
    EXPECT_THAT(refusal_of_header("{\"x\":" + entry(dtype, "[2]", "[0,2]") + "}", "12"),
                HasSubstr("is none of safetensors'"));
}

TEST(SafetensorsRead, HostileNamesDoNotSpoilErrors) {
  EXPECT_THAT(refusal_of_header("{\"a\\n\\u001b[31m\":3}"), HasSubstr("tensor \"a\\n\\x1b[31m\""));
  EXPECT_LT(refusal_of_header("{\"" + std::string(1 << 20, 'n') + "\":3}").size(), 600u);
}

TEST(SafetensorsRead, TheNumberOfDimensionsIsLimited) {
  const auto header = [](int rank) {
    std::string shape = "[1";
    for (int i = 1; i < rank; ++i) shape += ",1";
    return "{\"x\":" + entry("U8", shape + "]", "[0,1]") + "}";
  };
  EXPECT_THAT(refusal_of_header(header(17), "a"), HasSubstr("shape has more than 16 numbers"));
  const TempFolder folder;
  put(folder / "a", safetensors_bytes(header(16), "a"));
  EXPECT_EQ(SafetensorsFile(folder / "a").tensor("x").shape.size(), 16u);
}

TEST(SafetensorsRead, TheNumberOfEntriesOfMetadataIsLimited) {
  std::string header = "{\"__metadata__\":{";
  for (int i = 0; i <= 1'000'000; ++i) header += fmt::format("\"{:x}\":\"\",", i);
  header.back() = '}';
  EXPECT_THAT(refusal_of_header(header + "}"), HasSubstr("more than 1000000 entries of __metadata__"));
}

TEST(SafetensorsRead, TheNumberOfTensorsIsLimited) {
  const auto header = [](int n) {
    std::string text = "{";
    for (int i = 0; i < n; ++i)
      text += fmt::format(R"("{:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},)", i);
    text.back() = '}';
    return text;
  };
  EXPECT_THAT(refusal_of_header(header(1'000'001)), HasSubstr("more than 1000000 tensors"));
  const TempFolder folder;
  put(folder / "a", safetensors_bytes(header(1'000'000)));
  EXPECT_EQ(SafetensorsFile(folder / "a").tensors().size(), 1'000'000u);
}

}  // namespace
}  // namespace nibble::io
