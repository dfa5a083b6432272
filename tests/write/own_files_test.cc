// What --force may replace: checkpoints that nibble wrote, and nothing that lies in them besides.
#include "write/own_files.h"

#include <functional>

#include "io/temp_folder.h"
#include "write/checkpoint.h"

namespace nibble::write {
namespace {

namespace fs = std::filesystem;
using namespace testing_io;
using testing::AllOf;
using testing::HasSubstr;

class OwnFiles : public testing::Test {
 protected:
  void quantize(bool force) {
    records::Plan plan;
    plan.family = "qwen2_vl";
    plan.policy = "test";
    for (const model::Linear* l : model::linears(source_.spec()))
      plan.decisions.push_back({.name = l->name, .keep = false, .reason = "test", .score = 0});
    write_checkpoint(source_, plan, out_, {.max_shard_bytes = 400'000, .force = force, .version = "test"});
  }

  /// The Error of --force; everything must still be there.
  std::string refusal() {
    const auto before = entries(out_);
    const std::string said = error_of([&] { quantize(true); });
    EXPECT_EQ(entries(out_), before);
    EXPECT_FALSE(fs::exists(partial_));
    return said;
  }

  void change_record(const std::function<void(io::Json&)>& change) {
    io::Json made = io::read_json(out_ / "nibble.json");
    change(made);
    put(out_ / "nibble.json", io::dump_json(made));
  }

  TempFolder folder_;
  model::Binding source_{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  fs::path out_ = folder_ / "out", partial_ = folder_ / "out.partial";
};

TEST_F(OwnFiles, WhatNibbleWroteIsReplaced) {
  quantize(false);
  const auto written = entries(out_);
  put(out_ / "README.md", "a card");
  put(out_ / "README.md.nibble-partial", "half a card");
  quantize(true);
  EXPECT_EQ(entries(out_), written);
  fs::remove(out_ / "tokenizer.json");
  quantize(true);
  EXPECT_EQ(entries(out_), written) << "of a checkpoint that lost a file";
}

TEST_F(OwnFiles, OtherCheckpointsAreNot) {
  fs::copy(NIBBLE_ROOT "/models/qwen2-vl-tiny", out_, fs::copy_options::recursive);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("out: was not written by nibble"), HasSubstr("give another name")));
  put(out_ / "nibble.json", "{\"nibble\": \"plan\", \"version\": 1}");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("nibble.json: "), HasSubstr("is not replaced: give another name")));
  put(out_ / "nibble.json", "{");
  EXPECT_THAT(refusal(), HasSubstr("is not replaced: give another name"));
}

TEST_F(OwnFiles, TheFirstForeignFileIsNamed) {
  quantize(false);
  const auto refused = [&](const std::string& name) {
    EXPECT_THAT(refusal(),
                AllOf(HasSubstr("out/" + name + ": was not written by nibble"), HasSubstr("move it away")));
    fs::remove_all(out_ / name);
  };
  put(out_ / "notes.txt", "mine");
  put(out_ / "runs/a.log", "mine too");
  refused("notes.txt");
  refused("runs");
  put(out_ / "model.safetensors", "of an unfinished download");
  refused("model.safetensors");
  put(out_ / "model-00001-of-00099.safetensors", "another model's");
  refused("model-00001-of-00099.safetensors");
  put(out_ / ".hidden", "");
  refused(".hidden");
  fs::remove(out_ / "tokenizer.json");
  put(out_ / "tokenizer.json/mine", "a folder under a name of nibble's");
  refused("tokenizer.json");
  quantize(true);
}

TEST_F(OwnFiles, NamesThatTheRecordCannotHold) {
  fs::copy(NIBBLE_ROOT "/models/qwen2-vl-tiny", folder_ / "model", fs::copy_options::recursive);
  put(folder_ / "model/notes\xff.txt", "");
  const model::Binding source(folder_ / "model");
  EXPECT_THAT(error_of([&] { open_output(source, out_, false); }), HasSubstr("its name is not UTF-8"));
}

TEST_F(OwnFiles, OlderRecordsDoNotSay) {
  quantize(false);
  change_record([](io::Json& made) { made.erase("files"); });
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("nibble.json: does not record which files"), HasSubstr("remove it yourself")));
}

TEST_F(OwnFiles, ForeignFilesAmongAnInterruptedRunsAreSpared) {
  put(partial_ / ".nibble-lock", "");
  put(partial_ / "shard-00001.safetensors", "half");
  put(partial_ / "tokenizer.json", "half");
  put(partial_ / "notes.txt", "mine");
  EXPECT_THAT(error_of([&] { quantize(false); }),
              AllOf(HasSubstr("out.partial/notes.txt: is in the way"), HasSubstr("move it away")));
  EXPECT_EQ(get(partial_ / "notes.txt"), "mine");
  fs::remove(partial_ / "notes.txt");
  quantize(false);
  EXPECT_FALSE(fs::exists(partial_));
}

TEST_F(OwnFiles, AnOutputThatWasJustReplacedIsALeftover) {
  quantize(false);
  change_record([](io::Json& made) { made["files"]["of_another_model.json"] = ""; });
  fs::rename(out_, partial_);  // killed before the old folder was removed
  put(partial_ / "of_another_model.json", "{}");
  put(partial_ / ".nibble-lock", "");
  quantize(false);
  EXPECT_EQ(entries(folder_.path()), std::vector<std::string>{"out"});
}

}  // namespace
}  // namespace nibble::write
