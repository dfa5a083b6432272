// Texts and patterns against what the reference makes of them (make_goldens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/text.h"
#include "io/json.h"
#include "text/oniguruma.h"
#include "text/split_regex.h"
#include "text/tokenizer.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = NIBBLE_ROOT;

io::Json golden(const std::string& name) {
  return io::read_json(kRoot / "tests/text/goldens" / (name + ".json"));
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

class Golden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    data_ = golden(GetParam());
    if (!data_.contains("path")) {
      tokenizer_ = std::make_unique<Tokenizer>(data_["tokenizer"], GetParam());
      return;
    }
    const fs::path path = kRoot / data_["path"].get<std::string>();
    if (!fs::exists(path)) GTEST_SKIP() << "there is no " << path;
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::load(path));
  }

  io::Json data_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(Golden, Encodes) {
  ASSERT_GT(data_["encode"].size(), 100U);
  for (const auto& row : data_["encode"]) {
    const auto text = row[0].get<std::string>();
    EXPECT_EQ(tokenizer_->encode(text, row[1].get<bool>()), row[2].get<std::vector<int64_t>>())
        << row[0].dump();
  }
}

TEST_P(Golden, EncodesLongRuns) {
  ASSERT_FALSE(data_["repeat"].empty());
  for (const auto& row : data_["repeat"]) {
    std::string text, ids;
    for (int i = 0; i < row[1].get<int>(); ++i) text += row[0].get<std::string>();
    for (const int64_t id : tokenizer_->encode(text, false)) ids += std::to_string(id) + " ";
    EXPECT_EQ(sha256(ids), row[2].get<std::string>()) << row[0].dump();
  }
}

TEST_P(Golden, Decodes) {
  ASSERT_FALSE(data_["decode"].empty());
  for (const auto& row : data_["decode"])
    EXPECT_EQ(tokenizer_->decode(row[0].get<std::vector<int64_t>>(), row[1].get<bool>()),
              row[2].get<std::string>())
        << row[0].dump();
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Golden,
                         testing::Values("qwen2", "llama3", "tekken", "gpt2", "whole", "unknown", "parts",
                                         "removed_inverted", "merged_with_previous_inverted",
                                         "merged_with_next_inverted", "contiguous_inverted", "path_qwen2_vl",
                                         "path_llama", "path_mllama", "path_phi3", "path_pixtral"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Patterns, CutAsTheReferenceDoes) {
  for (const auto& row : golden("patterns")) {
    const auto pattern = row[0].get<std::string>();
    const auto text = row[1].get<std::string>();
    const SplitRegex regex(icu_pattern(pattern, "test"), "test");
    Finder finder(regex);
    std::vector<std::string> parts;
    for (const Span& span : finder.spans(text))
      if (span.begin < span.end) parts.push_back(text.substr(span.begin, span.end - span.begin));
    EXPECT_EQ(parts, row[2].get<std::vector<std::string>>()) << pattern << "\n" << row[1].dump();
  }
}

TEST(Utf8, IsReplacedAsPythonDoes) {
  for (const auto& row : golden("utf8"))
    EXPECT_EQ(replace_invalid_utf8(from_hex(row[0].get<std::string>())), row[1].get<std::string>())
        << row[0].dump();
}

}  // namespace
}  // namespace nibble::text
