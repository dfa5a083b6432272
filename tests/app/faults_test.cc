// Nothing is lost and nothing is half written: killed at any moment, disks that are full or read-only, files
// that cannot be read, shrink, or come in short pieces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <map>
#include <random>

#include "app/bus_error.h"
#include "base/error.h"
#include "base/sha256.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "support/temp_folder.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kModel = NIBBLE_ROOT "/models/qwen2-vl-tiny";

struct Outcome {
  int code = -1;  // 128 + signal where one killed it
  std::string err;
};

class Faults : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    plan_folder_ = new test::TempFolder;
    // Half of the linears stay, so that all kinds of tensors are written.
    const std::string command =
        fmt::format("'{}' quantize '{}' --policy random:7 --budget 60% -o '{}' >/dev/null", NIBBLE_BINARY,
                    kModel, (*plan_folder_ / "first").string());
    ASSERT_EQ(std::system(command.c_str()), 0);
    const io::Json made = io::read_json(*plan_folder_ / "first/nibble.json");
    io::write_file(*plan_folder_ / "plan.json", io::dump_json(made["plan"]));
  }
  static void TearDownTestSuite() { delete plan_folder_; }

  /// Quantizes by the plan, into small files, under a fault.
  Outcome quantize(const std::string& out, const std::string& fault, const std::string& model = kModel,
                   const std::string& more = "") {
    const fs::path err = folder_ / "stderr";
    const std::string command = fmt::format(
        "NIBBLE_FAULT={} ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD='{}' '{}' quantize '{}' --plan "
        "'{}' -o '{}' "
        "--max-shard-size 400000 {} >/dev/null 2>'{}'",
        fault, NIBBLE_FAULTS, NIBBLE_BINARY, model, (*plan_folder_ / "plan.json").string(), temp(out), more,
        err.string());
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), io::read_file(err)};
  }

  std::string temp(const std::string& name) const { return (folder_ / name).string(); }

  /// Every file of a folder but the call that nibble.json records.
  std::map<std::string, std::string> contents(const std::string& name) const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(temp(name)))
      out[entry.path().filename().string()] = io::read_file(entry.path());
    io::Json made = io::parse_json(out.at("nibble.json"), "nibble.json");
    made.erase("command");
    out["nibble.json"] = io::dump_json(made);
    return out;
  }

  bool nothing_left(const std::string& name) const {
    return !fs::exists(temp(name)) && !fs::exists(temp(name) + ".partial");
  }

  static test::TempFolder* plan_folder_;
  test::TempFolder folder_;
};

test::TempFolder* Faults::plan_folder_ = nullptr;

TEST_F(Faults, KilledAtAnyMomentTheSameCommandGoesOn) {
  ASSERT_EQ(quantize("whole", "none").code, 0);
  const auto expected = contents("whole");
  EXPECT_GT(expected.size(), 12u) << "several files";
  std::mt19937 random(11);
  int kills = 0, resumed = 0, rounds = 0;
  while (kills < 100) {
    ASSERT_LT(++rounds, 60);
    const std::string out = fmt::format("out-{}", rounds);
    // A run is killed again and again, some steps further each time, until one comes through.
    for (Outcome o{137, ""}; o.code != 0;) {
      o = quantize(out, fmt::format("kill:{}", 1 + random() % 500));
      resumed += o.err.find("going on after") != std::string::npos;
      if (o.code == 2) {  // killed when the folder had its name already
        EXPECT_THAT(o.err, HasSubstr("exists already"));
        break;
      }
      ASSERT_TRUE(o.code == 0 || o.code == 137) << o.code << o.err;
      kills += o.code == 137;
    }
    EXPECT_EQ(contents(out), expected);
    EXPECT_FALSE(fs::exists(temp(out) + ".partial"));
    fs::remove_all(temp(out));
  }
  EXPECT_GT(resumed, 20);
}

TEST_F(Faults, WhatChangedIsSaidAndNeverMixed) {
  const fs::path model = folder_ / "model";
  fs::copy(kModel, model, fs::copy_options::recursive);
  ASSERT_EQ(quantize("out", "kill:300", model.string()).code, 137);
  // The first weights of the source change.
  const fs::path shard = model / "model-00001-of-00003.safetensors";
  std::string bytes = io::read_file(shard);
  std::swap(bytes[bytes.size() - 1], bytes[bytes.size() - 3]);
  std::swap(bytes[bytes.size() - 2], bytes[bytes.size() - 4]);
  io::write_file(shard, bytes);
  Outcome o = quantize("out", "kill:300", model.string());
  EXPECT_THAT(o.err, HasSubstr("another 16-bit checkpoint, or one that was changed since"));
  ASSERT_EQ(o.code, 137);
  o = quantize("out", "none", model.string(), "--allow-nonfinite");
  EXPECT_THAT(o.err, HasSubstr("other options"));
  ASSERT_EQ(o.code, 0);
  ASSERT_EQ(quantize("anew", "none", model.string(), "--allow-nonfinite").code, 0);
  EXPECT_EQ(contents("out"), contents("anew"));
}

TEST_F(Faults, FilesChangedInThePartialFolderAreNotUsed) {
  ASSERT_EQ(quantize("out", "kill:300").code, 137);
  const fs::path shard = temp("out") + ".partial/shard-00001.safetensors";
  std::string bytes = io::read_file(shard);
  bytes.back() ^= 1;
  io::write_file(shard, bytes);
  const Outcome o = quantize("out", "none");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.err, HasSubstr("files that were changed since"));
  ASSERT_EQ(quantize("whole", "none").code, 0);
  EXPECT_EQ(contents("out"), contents("whole"));
}

TEST_F(Faults, FullDisk) {
  Outcome o = quantize("out", "disk_full:100000");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("No space left on device"));
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_TRUE(nothing_left("out"));
  o = quantize("out", "disk_full:2000000");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err,
              testing::AllOf(HasSubstr("No space left on device"), HasSubstr("the same command goes on")));
  EXPECT_FALSE(fs::exists(temp("out")));
  o = quantize("out", "none");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.err, HasSubstr("going on after"));
  ASSERT_EQ(quantize("whole", "none").code, 0);
  EXPECT_EQ(contents("out"), contents("whole"));
}

TEST_F(Faults, AnOldCheckpointSurvivesAFullDisk) {
  ASSERT_EQ(quantize("out", "none").code, 0);
  const auto before = contents("out");
  EXPECT_EQ(quantize("out", "disk_full:2000000", kModel, "--force").code, 2);
  EXPECT_EQ(contents("out"), before);
}

TEST_F(Faults, ReadOnlyDisk) {
  const Outcome o = quantize("out", "read_only");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("Read-only file system"));
  EXPECT_TRUE(nothing_left("out"));
}

TEST_F(Faults, AFileThatCannotBeRead) {
  const Outcome o = quantize("out", "read_error:3");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, testing::ContainsRegex(
                         "model-0000.-of-00003.safetensors: cannot read it at byte [0-9]+: Input"));
  EXPECT_TRUE(nothing_left("out"));
}

TEST_F(Faults, ShortReadsChangeNothing) {
  ASSERT_EQ(quantize("whole", "none").code, 0);
  ASSERT_EQ(quantize("out", "short_reads").code, 0);
  EXPECT_EQ(contents("out"), contents("whole"));
}

TEST_F(Faults, ASecondRunIsRefused) {
  io::OutputFolder first(temp("out"), false, io::OutputFolder::Leftovers::keep);
  const Outcome o = quantize("out", "none");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("another run of nibble is writing it"));
}

using BusError = Faults;

TEST_F(BusError, NamesTheFileThatShrank) {
  const fs::path path = folder_ / "model.safetensors";
  fs::copy_file(kModel + "/model-00001-of-00003.safetensors", path);
  const auto read_shrunk = [&] {
    app::catch_bus_errors();
    const io::SafetensorsFile file(path);
    const TensorView view = file.tensor(file.tensors().begin()->first);
    fs::resize_file(path, 8);
    int64_t sum = 0;
    for (int64_t i = 0; i < view.bytes(); ++i) sum += static_cast<int64_t>(view.data[i]);
    _exit(sum == 0 ? 0 : 1);
  };
  EXPECT_EXIT(read_shrunk(), testing::ExitedWithCode(2), "model.safetensors: a part of it is gone");
}

}  // namespace
}  // namespace nibble
