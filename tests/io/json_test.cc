#include "io/json.h"

#include <sys/stat.h>

#include <chrono>
#include <limits>

#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::HasSubstr;
using testing::StartsWith;

TEST(ParseJson, KeepsTheOrderOfKeys) {
  const Json json =
      parse_json(R"({"b": 1, "a": {"z": [1, 2.5, "x", null, true], "y": {}}, "c": []})", "x.json");
  EXPECT_EQ(json.dump(), R"({"b":1,"a":{"z":[1,2.5,"x",null,true],"y":{}},"c":[]})");
}

TEST(ParseJson, ScalarsAndSpaceStandAlone) {
  EXPECT_EQ(parse_json(" \t\r\n 3 \n", "x"), Json(3));
  EXPECT_EQ(parse_json("null", "x"), Json());
  EXPECT_EQ(parse_json("\"\\u00e9\\ud83d\\ude00\"", "x"), Json("é😀"));
  EXPECT_EQ(parse_json("\xef\xbb\xbf{}", "x"), Json::object());  // a byte order mark
}

TEST(ParseJson, ErrorsHaveLineAndColumn) {
  EXPECT_THAT(error_of([] { parse_json("{\n  \"a\": 1,\n  \"b\" 2\n}", "m/config.json"); }),
              testing::StartsWith("m/config.json: line 3, column 7: syntax error"));
  EXPECT_THAT(error_of([] { parse_json("", "x.json"); }), HasSubstr("x.json: is empty"));
  EXPECT_THAT(error_of([] { parse_json(" \n ", "x.json"); }), HasSubstr("x.json: is empty"));
  EXPECT_THAT(error_of([] { parse_json("[1, 1e999]", "x.json"); }),
              HasSubstr("x.json: line 1, column 9: number"));
}

TEST(ParseJson, RefusesWhatIsNoJson) {
  for (std::string_view text : {"{",        "}",           "[1,]",     "{\"a\":1,}",   "{a:1}",
                                "{'a':1}",  "01",          "+1",       "1.",           ".5",
                                "NaN",      "Infinity",    "nul",      "tru",          "\"a",
                                "\"\\x\"",  "\"\\ud800\"", "[1] 2",    "{} {}",        "/* c */ 1",
                                "// c\n1",  "\"\n\"",      "-",        "--1",          "1e",
                                "0x10",     "\xff",        "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
                                "\xef\xbb", "1e999",       "-1e999"})
    EXPECT_THROW(parse_json(text, "x"), Error) << text;
}

TEST(ParseJson, ErrorsOfALineNameItsColumn) {
  EXPECT_THAT(error_of([] { parse_json_line("{\"a\": 01}", "x.jsonl:3"); }),
              StartsWith("x.jsonl:3: column 8: "));
  EXPECT_EQ(parse_json_line("[1]", "x.jsonl:3"), Json({1}));
  EXPECT_THAT(error_of([] { parse_json_line(R"({"a": 1, "a": 2})", "x.jsonl:3"); }),
              testing::AllOf(StartsWith("x.jsonl:3: "), testing::HasSubstr("\"a\" is there twice")));
}

TEST(ParseJson, NulBytesDoNotEndTheText) {
  using namespace std::string_view_literals;
  EXPECT_THAT(error_of([] { parse_json("{}\0{"sv, "x"); }), HasSubstr("line 1, column 3: a NUL byte"));
  EXPECT_THROW(parse_json("{}\0"sv, "x"), Error);
  EXPECT_THROW(parse_json("\0"sv, "x"), Error);
}

TEST(ParseJson, DepthIsLimited) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(200), "x"));
  EXPECT_THAT(error_of([&] { parse_json(nested(201), "x"); }), HasSubstr("deeper than 200"));
  EXPECT_THROW(parse_json(std::string(10'000'000, '['), "x"), Error);
  std::string objects;
  for (int i = 0; i < 300; ++i) objects += "{\"a\":";
  EXPECT_THROW(parse_json(objects, "x"), Error);
}

TEST(ParseJson, TheNumberOfValuesIsLimited) {
  std::string zeros = "[";
  for (int i = 0; i < (1 << 23) - 1; ++i) zeros += "0,";  // with the array: one value too many
  EXPECT_THAT(error_of([&] { parse_json(zeros + "0]", "x"); }), HasSubstr("x: has more than 8388608 values"));
}

TEST(ParseJson, DuplicateKeys) {
  const std::string_view text = R"({"a": 1, "b": 2, "a": [3], "c": {"a": 4}})";
  EXPECT_EQ(parse_json(text, "x").dump(), R"({"a":[3],"b":2,"c":{"a":4}})");  // as Python
  EXPECT_THAT(error_of([&] { parse_json(text, "x.json", DuplicateKeys::refuse); }),
              HasSubstr("x.json: the key \"a\" is there twice"));
  EXPECT_NO_THROW(parse_json(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})", "x", DuplicateKeys::refuse));
  EXPECT_THROW(parse_json(R"({"a": 1, "\u0061": 2})", "x", DuplicateKeys::refuse), Error);
}

TEST(ParseJson, DuplicatesInLargeObjectsAreFoundToo) {
  for (int at : {0, 5, 31, 32, 33, 99}) {
    std::string text = "{";
    for (int i = 0; i < 100; ++i) text += fmt::format("\"k{}\":{},", i, i);
    text += fmt::format("\"k{}\":-1}}", at);
    const Json json = parse_json(text, "x");
    EXPECT_EQ(json.size(), 100u);
    EXPECT_EQ(json.at(fmt::format("k{}", at)), -1);
    EXPECT_EQ(std::next(json.begin(), at).key(), fmt::format("k{}", at));
    EXPECT_THROW(parse_json(text, "x", DuplicateKeys::refuse), Error);
  }
}

TEST(ParseJson, LargeVocabulariesTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300000; ++i) text += fmt::format("\"token{}\":{},", i, i);
  text += "\"last\":0}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text, "x").size(), 300001u);
  // Quadratic lookup would take 45 billion comparisons, a minute and more.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ParseJson, LongBadTokensDoNotMakeLongErrors) {
  EXPECT_LT(error_of([] { parse_json("\"" + std::string(1 << 20, 'a'), "x"); }).size(), 400u);
  EXPECT_EQ(error_of([] { parse_json("[1, \x1b[31m", "x"); }).find('\x1b'), std::string::npos);
}

TEST(ValueText, IsOneShortLine) {
  EXPECT_EQ(value_text(7), "7");
  EXPECT_EQ(value_text("a\n" + std::string(1000, 'b')).substr(0, 6), "\"a\\nbb");
  EXPECT_LT(value_text("a\n" + std::string(1000, 'b')).size(), 80u);
  EXPECT_EQ(value_text(Json::array({1, 2})), "an array");
}

TEST(ReadFile, WholeFilesAndLimits) {
  const TempFolder folder;
  const std::string bytes(10000, '\x80');
  put(folder / "a", bytes);
  put(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "a"), bytes);
  EXPECT_EQ(read_file(folder / "a", 10000), bytes);
  EXPECT_EQ(read_file(folder / "empty"), "");
  EXPECT_THAT(error_of([&] { read_file(folder / "a", 9999); }), HasSubstr("larger than 9.76 KiB"));
}

TEST(ReadFile, RefusesWhatIsNoRegularFile) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { read_file(folder / "none"); }), HasSubstr("none: cannot open it: No such file"));
  EXPECT_THAT(error_of([&] { read_file(folder.path()); }), HasSubstr("is a folder"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { read_file(folder / "pipe"); }), HasSubstr("pipe or device"));
  EXPECT_THAT(error_of([&] { read_file("/dev/zero"); }), HasSubstr("pipe or device"));
}

TEST(ReadJson, TheSizeOfAFileIsLimited) {
  const TempFolder folder;
  put(folder / "a.json", "{}");
  std::filesystem::resize_file(folder / "a.json", (int64_t{256} << 20) + 1);
  EXPECT_THAT(error_of([&] { read_json(folder / "a.json"); }), HasSubstr("a.json: is larger than 256 MiB"));
}

TEST(ReadJson, NamesTheFile) {
  const TempFolder folder;
  put(folder / "a.json", "{\"x\": 1}");
  put(folder / "bad.json", "{\"x\": }");
  put(folder / "lfs.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
  EXPECT_EQ(read_json(folder / "a.json").at("x"), 1);
  EXPECT_THAT(error_of([&] { read_json(folder / "bad.json"); }), HasSubstr("bad.json: line 1, column 7"));
  EXPECT_THAT(error_of([&] { read_json(folder / "lfs.json"); }), HasSubstr("git lfs pull"));
}

TEST(DumpJson, EqualsPython) {
  const Json value = read_json(kGoldens / "value.json");
  EXPECT_EQ(dump_json(value), get(kGoldens / "value.dumped.json"));
  EXPECT_EQ(parse_json(dump_json(value), "x"), value);
}

TEST(DumpJson, EmptyAndScalar) {
  EXPECT_EQ(dump_json(Json::object()), "{}");
  EXPECT_EQ(dump_json(Json::array()), "[]");
  EXPECT_EQ(dump_json(Json()), "null");
  EXPECT_EQ(dump_json(Json("é")), "\"é\"");
  EXPECT_EQ(dump_json(Json(1e-5)), "1e-05");
}

TEST(DumpJson, RefusesWhatJsonCannotHold) {
  Json json = {{"a", {1.0, {{"b", std::numeric_limits<double>::quiet_NaN()}}}}};
  EXPECT_THAT(error_of([&] { dump_json(json); }), HasSubstr("nan of a[1].b"));
  json = {{"a", -std::numeric_limits<double>::infinity()}};
  EXPECT_THAT(error_of([&] { dump_json(json); }), HasSubstr("-inf of a"));
  EXPECT_THROW(dump_json(Json("\xff")), InternalError);
  EXPECT_THROW(dump_json(Json{{"\xc3", 1}}), InternalError);
}

}  // namespace
}  // namespace nibble::io
