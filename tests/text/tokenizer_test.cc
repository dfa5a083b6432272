// The rules of tokenizer.json one by one, files that are wrong, threads, and texts that are meant to take
// long.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "text/oniguruma.h"
#include "text/split_regex.h"

namespace nibble::text {
namespace {

using Ids = std::vector<int64_t>;
using io::Json;
using testing::HasSubstr;

/// A byte-level tokenizer of the letters a, b, c, the space and a few merges.
Json small() {
  return io::parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 8, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": " ?[a-z]+|\\s+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "Ġab": 5, "bc": 6, "abc": 7},
      "merges": [["b", "c"], ["a", "b"], ["Ġ", "ab"], ["a", "bc"]]}
  })",
                        "small");
}

Json with(const std::function<void(Json&)>& change) {
  Json json = small();
  change(json);
  return json;
}

std::string error_of(const Json& json) {
  try {
    const Tokenizer tokenizer(json, "dir/tokenizer.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Tokenizer, MergesTheLowestRankFirst) {
  const Tokenizer tokenizer(small(), "small");
  EXPECT_EQ(tokenizer.encode("abc", false), (Ids{7}));
  EXPECT_EQ(tokenizer.encode(" abab", false), (Ids{5, 4}));
  EXPECT_EQ(tokenizer.encode("<s>ab<s>", true), (Ids{8, 8, 4, 8}));
  EXPECT_EQ(tokenizer.encode("", true), (Ids{8}));
  EXPECT_EQ(tokenizer.encode("azb", false), (Ids{4})) << "what the vocabulary does not have vanishes";
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer(small(), "small");
  EXPECT_EQ(tokenizer.size(), 9);
  EXPECT_EQ(tokenizer.id_of("<s>"), 8);
  EXPECT_EQ(tokenizer.id_of("abc"), 7);
  EXPECT_EQ(tokenizer.id_of("x"), std::nullopt);
  EXPECT_EQ(tokenizer.token_of(5), "Ġab");
  EXPECT_EQ(tokenizer.token_of(8), "<s>");
  for (const int64_t id : {int64_t{-1}, int64_t{9}, int64_t{1} << 40})
    EXPECT_EQ(tokenizer.token_of(id), std::nullopt);
  EXPECT_EQ(tokenizer.decode({8, 5, -7, 999, 2}, false), "<s> abc");
  EXPECT_EQ(tokenizer.decode({8, 5, -7, 999, 2}, true), " abc");
}

TEST(Tokenizer, CountsTheBytesOfTokens) {
  const auto change = [](Json& j) {
    j["model"]["vocab"]["\u00c3"] = 8;  // the byte 0xc3
    j["added_tokens"].push_back(j["added_tokens"][0]);
    j["added_tokens"][0]["id"] = 9;
    j["added_tokens"][1]["id"] = 10;
    j["added_tokens"][1]["content"] = "é";
  };
  const Tokenizer tokenizer(with(change), "small");
  EXPECT_EQ(tokenizer.byte_count(0), 1);   // "a"
  EXPECT_EQ(tokenizer.byte_count(5), 3);   // " ab"
  EXPECT_EQ(tokenizer.byte_count(8), 1);   // half a character
  EXPECT_EQ(tokenizer.byte_count(9), 3);   // "<s>"
  EXPECT_EQ(tokenizer.byte_count(10), 2);  // an added token stands for itself
  EXPECT_EQ(tokenizer.byte_count(11), 0);
}

TEST(Tokenizer, JoinsBySpacesWithoutADecoder) {
  const Tokenizer tokenizer(with([](Json& j) { j["decoder"] = nullptr; }), "small");
  EXPECT_EQ(tokenizer.decode({4, 2}, false), "ab c");
}

TEST(Tokenizer, IgnoresMergesForWholeWords) {
  const auto change = [](Json& j) {
    j["model"]["merges"] = Json::array();
    j["model"]["ignore_merges"] = true;
  };
  const Tokenizer tokenizer(with(change), "small");
  EXPECT_EQ(tokenizer.encode("abc abcc", false), (Ids{7, 3, 0, 1, 2, 2}));
}

TEST(Tokenizer, TakesTheLastOfTwoEqualMerges) {
  const auto change = [](Json& j) { j["model"]["merges"] = {"a b", "b c", "a bc", "a b"}; };
  EXPECT_EQ(Tokenizer(with(change), "small").encode("abcab", false), (Ids{7, 4}));
}

TEST(Tokenizer, FallsBackToBytesAndUnknown) {
  const auto change = [](Json& j) {
    j["pre_tokenizer"] = nullptr;
    j["model"]["vocab"] = {{"a", 0}, {"<unk>", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}};
    j["model"]["merges"] = Json::array();
    j["model"]["byte_fallback"] = true;
    j["model"]["unk_token"] = "<unk>";
    j["added_tokens"] = Json::array();
    j["post_processor"] = nullptr;
  };
  EXPECT_EQ(Tokenizer(with(change), "small").encode("aé日本a", false), (Ids{0, 2, 3, 1, 1, 0}));
  const auto fused = [&](Json& j) {
    change(j);
    j["model"]["fuse_unk"] = true;
  };
  EXPECT_EQ(Tokenizer(with(fused), "small").encode("日本a日", false), (Ids{1, 0, 1}));
  const auto missing = [&](Json& j) {
    change(j);
    j["model"]["unk_token"] = "<none>";
  };
  const Tokenizer tokenizer(with(missing), "small");
  EXPECT_EQ(tokenizer.encode("aé", false), (Ids{0, 2, 3}));
  EXPECT_THROW(tokenizer.encode("日", false), Error);
}

TEST(Tokenizer, GivesTheSameIdsOnEveryThread) {
  const Tokenizer tokenizer =
      Tokenizer::load(std::string(NIBBLE_ROOT) + "/models/qwen2-vl-tiny/tokenizer.json");
  const auto text = [](int64_t i) {
    return "The fox's number " + std::to_string(i * i) + " ümläut 日本 <|im_end|>\n";
  };
  std::vector<Ids> ids(64);
  parallel_for(64, [&](int64_t i) { ids[static_cast<size_t>(i)] = tokenizer.encode(text(i), true); });
  for (int64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(ids[static_cast<size_t>(i)], tokenizer.encode(text(i), true));
    EXPECT_EQ(tokenizer.decode(ids[static_cast<size_t>(i)], false), text(i));
  }
}

/// A million bytes of each, with every step of the way in play; in quadratic time this would not end.
TEST(Tokenizer, TakesLinearTime) {
  const auto change = [](Json& j) {
    j["normalizer"] = {{"type", "NFC"}};
    for (const char* content : {" ", "<s>x"})
      j["added_tokens"].push_back({{"id", j["added_tokens"].size() + 8},
                                   {"content", content},
                                   {"single_word", false},
                                   {"lstrip", true},
                                   {"rstrip", true},
                                   {"normalized", true},
                                   {"special", false}});
  };
  const Tokenizer tokenizer(with(change), "small");
  const auto repeat = [](std::string_view part) {
    std::string text = "a";
    while (text.size() < 1000000) text += part;
    return text;
  };
  EXPECT_EQ(tokenizer.encode(repeat("a"), false).size(), 1000000U);
  EXPECT_EQ(tokenizer.encode(repeat("bc"), false).size(), 500000U);
  EXPECT_EQ(tokenizer.encode(repeat("<s>"), false).size(), 1U + 333333U);
  EXPECT_GT(tokenizer.encode(repeat(" "), false).size(), 1U);
  // Marks in the wrong order, some of which decompose into two. What NFC makes of the letter is in no
  // vocabulary.
  EXPECT_EQ(tokenizer.encode(repeat("\u0301\u0323"), false).size(), 0U);
  EXPECT_EQ(tokenizer.encode(repeat("\u0f73\u0323\u0f71"), false).size(), 0U);
}

TEST(Tokenizer, StopsPatternsThatTakeForEver) {
  for (const char* pattern : {"(?:a+)+b", "(?:(?:a?){9999}){9999}b"}) {
    const auto change = [&](Json& j) {
      j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern;
    };
    const Tokenizer tokenizer(with(change), "dir/tokenizer.json");
    try {
      tokenizer.encode(std::string(100, 'a'), false);
      ADD_FAILURE() << pattern << " ends";
    } catch (const Error& error) {
      EXPECT_THAT(
          error.what(),
          HasSubstr("dir/tokenizer.json: pre_tokenizer.pretokenizers[0]: the pattern takes too many"));
    }
  }
}

struct Wrong {
  const char* name;
  std::function<void(Json&)> change;
  const char* text;
};

void PrintTo(const Wrong& wrong, std::ostream* out) {
  *out << wrong.text;
}

class WrongFile : public testing::TestWithParam<Wrong> {};

TEST_P(WrongFile, IsNamed) {
  EXPECT_THAT(error_of(with(GetParam().change)), testing::StartsWith("dir/tokenizer.json"));
  EXPECT_THAT(error_of(with(GetParam().change)), HasSubstr(GetParam().text));
}

Json repeated(const char* type, int count) {
  Json parts = Json::array();
  for (int i = 0; i < count; ++i) parts.push_back({{"type", type}});
  return parts;
}

Json nested(const char* key, int depth) {
  Json json = {{"type", "Sequence"}, {key, Json::array()}};
  for (int i = 0; i < depth; ++i) json = {{"type", "Sequence"}, {key, Json::array({json})}};
  return json;
}

INSTANTIATE_TEST_SUITE_P(
    Model, WrongFile,
    testing::Values(
        Wrong{"NoModel", [](Json& j) { j.erase("model"); }, "model"},
        Wrong{"OtherModel", [](Json& j) { j["model"]["type"] = "Unigram"; },
              "type Unigram are not supported"},
        Wrong{"NoVocab", [](Json& j) { j["model"].erase("vocab"); }, "model.vocab is missing"},
        Wrong{"NoMerges", [](Json& j) { j["model"].erase("merges"); }, "model.merges is missing"},
        Wrong{"ListVocab", [](Json& j) { j["model"]["vocab"] = Json::array(); },
              "model.vocab is an empty array"},
        Wrong{"NegativeId", [](Json& j) { j["model"]["vocab"]["a"] = -1; }, "the id of \"a\" is -1"},
        Wrong{"HugeId", [](Json& j) { j["model"]["vocab"]["a"] = 18446744073709551615ULL; },
              "the id of \"a\" is 1844"},
        Wrong{"LargeId", [](Json& j) { j["model"]["vocab"]["a"] = 1 << 24; }, "the id of \"a\" is 16777216"},
        Wrong{"TextId", [](Json& j) { j["model"]["vocab"]["a"] = "0"; }, "the id of \"a\" is"},
        Wrong{"SameId", [](Json& j) { j["model"]["vocab"]["b"] = 0; }, "\"a\" and \"b\" have the same id 0"},
        Wrong{"UnknownMerge",
              [](Json& j) {
                j["model"]["merges"][1] = {"a", "x"};
              },
              "model.merges[1]: the token \"x\" is not in the vocabulary"},
        Wrong{"UnknownResult",
              [](Json& j) {
                j["model"]["merges"][1] = {"a", "c"};
              },
              "model.merges[1]: the token \"ac\" is not"},
        Wrong{"LongMerge",
              [](Json& j) {
                j["model"]["merges"][1] = {"a", "b", "c"};
              },
              "model.merges[1] is neither"},
        Wrong{"NumberMerge", [](Json& j) { j["model"]["merges"] = {1}; }, "model.merges[0] is neither"},
        Wrong{"SpacesInMerge", [](Json& j) { j["model"]["merges"] = {"a  b"}; },
              "model.merges[0] is \"a  b\""},
        Wrong{"MixedMerges", [](Json& j) { j["model"]["merges"][2] = "b c"; },
              "model.merges[2] is written in another"},
        Wrong{"Dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout"},
        Wrong{"Prefix", [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
              "continuing_subword_prefix"},
        Wrong{"Version", [](Json& j) { j["version"] = "2.0"; }, "is 2.0, not 1.0"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    AddedTokens, WrongFile,
    testing::Values(
        Wrong{"Object", [](Json& j) { j["added_tokens"] = Json::object(); }, "added_tokens is not an array"},
        Wrong{"OtherId", [](Json& j) { j["added_tokens"][0]["id"] = 9; }, "\"<s>\" has the id 9"},
        Wrong{"OrderOfIds",
              [](Json& j) {
                j["added_tokens"].insert(j["added_tokens"].begin(), j["added_tokens"][0]);
                j["added_tokens"][0]["content"] = "<t>";
                j["added_tokens"][0]["id"] = 9;
              },
              "added_tokens[0]: \"<t>\" has the id 9, but its place in the file gives it 8"},
        Wrong{"Twice", [](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); },
              "\"<s>\" is there twice"},
        Wrong{"TakenId",
              [](Json& j) {
                j["model"]["vocab"]["abc"] = 8;
                j["added_tokens"][0]["id"] = 8;
              },
              "the id 8 of \"<s>\" belongs to another token"},
        Wrong{"NegativeId", [](Json& j) { j["added_tokens"][0]["id"] = -8; }, "the id of \"<s>\" is -8"},
        Wrong{"HugeId", [](Json& j) { j["added_tokens"][0]["id"] = 1e15; },
              "the id of \"<s>\" is 1000000000000000"},
        Wrong{"NoContent", [](Json& j) { j["added_tokens"][0].erase("content"); },
              "added_tokens[0].content is missing"},
        Wrong{"NoFlag", [](Json& j) { j["added_tokens"][0].erase("lstrip"); },
              "added_tokens[0].lstrip is missing"},
        Wrong{"TextFlag", [](Json& j) { j["added_tokens"][0]["special"] = "no"; }, "special"},
        Wrong{"Number", [](Json& j) { j["added_tokens"][0] = 8; }, "added_tokens[0] is 8, not an object"}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Parts, WrongFile,
    testing::Values(
        Wrong{"Normalizer",
              [](Json& j) {
                j["normalizer"] = {{"type", "Lowercase"}};
              },
              "type Lowercase are not"},
        Wrong{"NormalizerText", [](Json& j) { j["normalizer"] = "NFC"; },
              "normalizer is \"NFC\", not an object"},
        Wrong{"DeepNormalizer", [](Json& j) { j["normalizer"] = nested("normalizers", 100); },
              "nested deeper"},
        Wrong{"PreTokenizer",
              [](Json& j) {
                j["pre_tokenizer"] = {{"type", "Metaspace"}};
              },
              "type Metaspace are not"},
        Wrong{"ManyNormalizers",
              [](Json& j) {
                j["normalizer"] = {{"type", "Sequence"}, {"normalizers", repeated("NFC", 65)}};
              },
              "normalizer.normalizers[64]: more than 64 normalizers"},
        Wrong{"ManyPreTokenizers",
              [](Json& j) {
                j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", repeated("Punctuation", 65)}};
              },
              "pre_tokenizer.pretokenizers[64]: more than 64 pre-tokenizers"},
        Wrong{"TwoByteLevels",
              [](Json& j) {
                Json& parts = j["pre_tokenizer"]["pretokenizers"];
                parts.push_back(Json(parts[1]));
              },
              "pre_tokenizer.pretokenizers[2]: a second ByteLevel"},
        Wrong{"DeepPreTokenizer", [](Json& j) { j["pre_tokenizer"] = nested("pretokenizers", 100); },
              "nested deeper"},
        Wrong{"NoType", [](Json& j) { j["pre_tokenizer"].erase("type"); }, "pre_tokenizer.type is missing"},
        Wrong{"Behavior", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Merged"; },
              "pretokenizers[0]: the behavior Merged is none of"},
        Wrong{"NoInvert", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0].erase("invert"); },
              "invert is missing"},
        Wrong{"NoPattern",
              [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = Json::object(); },
              "must have either a Regex or a String"},
        Wrong{"BadPattern",
              [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; },
              "the pattern \"(a\" has a '(' without its ')'"},
        Wrong{"PostProcessor", [](Json& j) { j["post_processor"]["type"] = "BertProcessing"; },
              "BertProcessing"},
        Wrong{"DeepPostProcessor", [](Json& j) { j["post_processor"] = nested("processors", 100); },
              "nested deeper"},
        Wrong{"TwoTemplates",
              [](Json& j) {
                const Json part = j["post_processor"];
                j["post_processor"] = {{"type", "Sequence"}, {"processors", {part, part}}};
              },
              "processors[1]: a second template"},
        Wrong{
            "TemplateTwice",
            [](Json& j) { j["post_processor"]["single"].push_back(Json(j["post_processor"]["single"][1])); },
            "a template that has the text twice"},
        Wrong{"TemplateOfManyTokens",
              [](Json& j) {
                j["post_processor"]["special_tokens"]["<s>"]["ids"] = std::vector<unsigned>(4097, 1);
              },
              "adds more than 4096 special tokens"},
        Wrong{"TemplateToken", [](Json& j) { j["post_processor"]["special_tokens"] = Json::object(); },
              "has no \"<s>\", which the template uses"},
        Wrong{"TemplateIds", [](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {-1}; },
              "the ids of \"<s>\" are not all from 0"},
        Wrong{"TemplateB", [](Json& j) { j["post_processor"]["single"][1]["Sequence"]["id"] = "B"; },
              "can only use the sequence A"},
        Wrong{"Decoder", [](Json& j) { j["decoder"]["type"] = "WordPiece"; }, "type WordPiece are not"},
        Wrong{"ManyDecoders",
              [](Json& j) {
                j["decoder"] = {{"type", "Sequence"}, {"decoders", repeated("Fuse", 65)}};
              },
              "decoder.decoders[64]: more than 64 decoders"},
        Wrong{"DeepDecoder", [](Json& j) { j["decoder"] = nested("decoders", 100); }, "nested deeper"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Tokenizer, IsNoListAndNoMissingFile) {
  EXPECT_THAT(error_of(Json::array()), HasSubstr("not an object"));
  EXPECT_THROW(Tokenizer::load("no/such/tokenizer.json"), Error);
}

TEST(Patterns, AreRefusedByWhatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {"a)", "a ')' without its '('"},
      {"(a", "a '(' without its ')'"},
      {"[a", "a '[' without its ']'"},
      {"[]", "a '[' without its ']'"},
      {"*a", "a quantifier after nothing"},
      {"a|{2}", "a quantifier after nothing"},
      {"(?=a)*", "repeats something without length"},
      {"^*", "repeats something without length"},
      {"a{3,2}", "low above high"},
      {"a{100001}", "more than 100000 times"},
      {"\\", "ends with a backslash"},
      {"(a)\\1", "has \\1, which is not supported"},
      {"\\R", "has \\R, which is not supported"},
      {"\\pL", "\\p without a name in braces"},
      {"\\p{Nonsense}", "the property Nonsense"},
      {"\\p{L", "the property"},
      {"[[:alpha:]]", "[:name:]"},
      {"[z-a]", "ends before it begins"},
      {"[a-\\d]", "a range that ends with a class"},
      {"[\\d-a]", "a range that begins with a class"},
      {"[a-[b]]", "a range that ends with a nested class"},
      {"(?x)a b", "a group of a kind"},
      {"(?P<n>a)", "a group of a kind"},
      {"(?(1)a|b)", "a group of a kind"},
      {"(?<>a)", "whose name is none"},
      {"\\xe9", "for a byte above 7f"},
      {"\\x{110000}", "no code point"},
      {"\\ud800", "no code point"},
      {"(?i:ss)", "several characters are equal to one"},
      {"(?i)\\p{L}", "several characters are equal to one"},
      {"(?#a", "ends inside a comment"},
  };
  for (const auto& [pattern, text] : wrong) {
    try {
      icu_pattern(pattern, "place");
      ADD_FAILURE() << pattern << " is taken";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("place: the pattern"));
      EXPECT_THAT(error.what(), HasSubstr(text)) << pattern;
    }
  }
  EXPECT_THROW(icu_pattern(std::string(1000, '('), "place"), Error);
  EXPECT_THROW(icu_pattern(std::string(1000, '['), "place"), Error);
  EXPECT_THROW(icu_pattern("a" + std::string(1000, '*'), "place"), Error);
  EXPECT_THROW(icu_pattern(std::string(70000, 'a'), "place"), Error);
  std::string large;
  while (large.size() < 60000) large += "\\p{L}";
  EXPECT_THROW(icu_pattern(large, "place"), Error);
  EXPECT_THROW(SplitRegex(icu_pattern("(?<=a+)b", "place"), "place"), Error);
}

}  // namespace
}  // namespace nibble::text
