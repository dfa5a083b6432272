// Where a checkpoint's chat format comes from, and what a turn looks like.
#include "data/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "support/temp_folder.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kFamilies = NIBBLE_ROOT "/tests/data/goldens/families";

/// A copy of a family's tiny checkpoint whose files may be changed.
class Chat : public testing::Test {
 protected:
  void open(const std::string& family) {
    temp_ = std::make_unique<test::TempFolder>();
    folder_ = temp_->path();
    for (const auto& entry : fs::directory_iterator(kFamilies / family))
      fs::copy_file(entry.path(), folder_ / entry.path().filename());
  }

  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  ChatFormat format() {
    binding_ = std::make_unique<model::Binding>(folder_);
    return ChatFormat(*binding_);
  }

  std::unique_ptr<test::TempFolder> temp_;
  fs::path folder_;
  std::unique_ptr<model::Binding> binding_;
};

TEST_F(Chat, EveryFamilyHasAFormatOfItsOwn) {
  open("llama");
  EXPECT_EQ(format().turn(" Hi ", 0),
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_"
            "header_id|>"
            "\n\n");
  open("phi3");
  EXPECT_EQ(format().turn("Hi", 0), "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>");
  open("llava");
  EXPECT_EQ(format().turn("Hi", 2), "<s>[INST][IMG][IMG]Hi[/INST]");
  open("mllama");
  EXPECT_EQ(format().turn("Hi", 1),
            "<s><|start_header_id|>user<|end_header_id|>\n\n<|image|>Hi<|eot_id|><|start_header_id|>assistant"
            "<|end_header_id|>\n\n");
}

TEST_F(Chat, ALinkInACircleIsAnError) {
  open("llama");
  fs::create_symlink("chat_template.jinja", folder_ / "chat_template.jinja");
  const ChatFormat circle = format();
  try {
    circle.turn("Hi", 0);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("chat_template.jinja: cannot open it"));
  }
}

TEST_F(Chat, TheCheckpointsOwnTemplateCounts) {
  open("llama");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "no"},
                              {"name": "default", "template": "{{ eos_token }}{{ messages[0].content }}"}],
            "eos_token": {"content": "END"}})");
  EXPECT_EQ(format().turn("Hi", 0), "ENDHi");
  write("chat_template.jinja", "{{ messages[0].role }} {{ messages[0].content }} {{ tools is none }}");
  EXPECT_EQ(format().turn("Hi", 0), "user Hi True");
  open("llava");
  write("chat_template.json", R"({"chat_template": "{{ messages[0].content | length }}"})");
  EXPECT_EQ(format().turn("Hi", 2), "3");
}

TEST_F(Chat, WhatIsNoTextIsReplaced) {
  for (const char* family : {"phi3", "llava"}) {
    open(family);
    EXPECT_THAT(format().turn("a\xff z", 0), HasSubstr("a\xef\xbf\xbd z")) << family;
  }
}

TEST_F(Chat, BeginOfTextIsAddedOnce) {
  open("llava");
  EXPECT_FALSE(format().adds_special_tokens("<s>[INST]"));
  EXPECT_TRUE(format().adds_special_tokens("[INST]"));
  open("llama");
  EXPECT_FALSE(format().adds_special_tokens("anything"));
}

TEST_F(Chat, ARawPromptOfLlama32VisionGetsItsBeginOfText) {
  open("mllama");
  EXPECT_EQ(format().raw("Hi", "<|image|>"), "<s>Hi");
  EXPECT_EQ(format().raw("<|image|><|image|>Hi", "<|image|>"), "<|image|><|image|><s>Hi");
  EXPECT_EQ(format().raw("Hi <s> there", "<|image|>"), "Hi <s> there");
  open("llava");
  EXPECT_EQ(format().raw("Hi", "[IMG]"), "Hi");
}

TEST_F(Chat, WhatATemplateRefusesIsSaidWithItsFile) {
  const auto error_of = [](const auto& run) -> std::string {
    try {
      run();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  open("llama");
  write("chat_template.jinja", "{{ raise_exception('no system role') }}");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }),
              AllOf(HasSubstr("chat_template.jinja"), HasSubstr("no system role")));
  write("chat_template.jinja", "one\n{% include 'other' %}");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }),
              AllOf(HasSubstr("chat_template.jinja"), HasSubstr("line 2"), HasSubstr("--raw")));
  EXPECT_EQ(format().raw("Hi", ""), "Hi");
  fs::remove(folder_ / "chat_template.jinja");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }),
              AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("\"default\"")));
  write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }), HasSubstr("tokenizer_config.json"));
  write("tokenizer_config.json", "[]");
  EXPECT_THAT(error_of([&] { format(); }),
              AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("not an object")));
  open("llava");
  write("chat_template.json", "3");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }),
              AllOf(HasSubstr("chat_template.json"), HasSubstr("not an object")));
  fs::create_symlink("not-downloaded", folder_ / "chat_template.jinja");
  EXPECT_THAT(error_of([&] { format().turn("Hi", 0); }), HasSubstr("chat_template.jinja"));
}

}  // namespace
}  // namespace nibble::data
