// Nothing is lost and nothing is half written: killed at any moment, disks that are full or read-only, files
// that cannot be read, shrink, or come in short pieces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <functional>
#include <map>
#include <random>

#include "app/bus_error.h"
#include "base/error.h"
#include "base/sha256.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "support/damage.h"
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

/// Kills a command again and again.
struct Killer {
  std::mt19937 random;
  int most;                   // steps that a run comes through
  std::string resumed_words;  // what a run says that goes on
  int kills = 0, resumed = 0;

  Killer(unsigned seed, int steps, std::string words)
      : random(seed), most(steps), resumed_words(std::move(words)) {}

  /// Some steps further each time, until a run comes through; `run` takes the fault.
  void until_done(const std::function<Outcome(const std::string&)>& run) {
    for (Outcome o{137, ""}; o.code != 0;) {
      ASSERT_LT(kills, 300);
      o = run(fmt::format("kill:{}", 1 + random() % static_cast<unsigned>(most)));
      resumed += o.err.find(resumed_words) != std::string::npos;
      EXPECT_EQ(o.err.find("begins anew"), std::string::npos) << o.err;
      if (o.code == 2) {  // killed when the folder had its name already
        EXPECT_THAT(o.err, HasSubstr("exists already"));
        break;
      }
      ASSERT_TRUE(o.code == 0 || o.code == 137) << o.code << o.err;
      kills += o.code == 137;
    }
  }
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

  /// Runs the program under a fault.
  Outcome nibble(const std::string& arguments, const std::string& fault) {
    const fs::path err = folder_ / "stderr";
    const std::string command = fmt::format(
        "NIBBLE_FAULT={} ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD='{}' '{}' {} >/dev/null 2>'{}'",
        fault, NIBBLE_FAULTS, NIBBLE_BINARY, arguments, err.string());
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), io::read_file(err)};
  }

  /// Quantizes by the plan, into small files, under a fault.
  Outcome quantize(const std::string& out, const std::string& fault, const std::string& model = kModel,
                   const std::string& more = "") {
    return nibble(fmt::format("quantize '{}' --plan '{}' -o '{}' --max-shard-size 400000 {}", model,
                              (*plan_folder_ / "plan.json").string(), temp(out), more),
                  fault);
  }

  /// Measures on a few inputs, one of them with the model's own answer, and keeps how far it is as often as
  /// that may be.
  Outcome measure(const std::string& out, const std::string& fault, const std::string& model = kModel,
                  const std::string& more = "--effort full") {
    if (!fs::exists(temp("few.jsonl")))
      io::write_file(temp("few.jsonl"),
                     fmt::format("{{\"image\": \"{0}\", \"prompt\": \"Describe this image.\"}}\n"
                                 "{{\"text\": \"The image shows a train on a bridge.\"}}\n",
                                 NIBBLE_ROOT "/pictures/evaluation/images/0000.png"));
    return nibble(fmt::format("measure '{}' --data '{}' --compute f32 --save-every 0 -o '{}' {}", model,
                              temp("few.jsonl"), temp(out), more),
                  fault);
  }

  std::string temp(const std::string& name) const { return (folder_ / name).string(); }

  /// Every file of a folder but the call that nibble.json records.
  std::map<std::string, std::string> contents(const std::string& name) const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(temp(name)))
      out[entry.path().filename().string()] = io::read_file(entry.path());
    io::Json made = io::parse_json(out.at("nibble.json"), "nibble.json");
    made.erase("command");
    made.erase("digest");  // of the command as well
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
  Killer killer(11, 500, "going on after");
  while (killer.kills < 100 && !HasFatalFailure()) {
    killer.until_done([&](const std::string& fault) { return quantize("out", fault); });
    EXPECT_EQ(contents("out"), expected);
    EXPECT_FALSE(fs::exists(temp("out") + ".partial"));
    fs::remove_all(temp("out"));
  }
  EXPECT_GT(killer.resumed, 20);
}

TEST_F(Faults, MeasuringKilledAtAnyMomentGoesOn) {
  ASSERT_EQ(measure("whole.json", "none").code, 0);
  const std::string expected = io::read_file(temp("whole.json"));
  Killer killer(12, 150, "going on where an interrupted run stopped");
  while (killer.kills < 100 && !HasFatalFailure()) {
    killer.until_done([&](const std::string& fault) { return measure("out.json", fault); });
    EXPECT_EQ(io::read_file(temp("out.json")), expected);
    EXPECT_FALSE(fs::exists(temp("out.json") + ".progress"));
    fs::remove(temp("out.json"));
  }
  EXPECT_GT(killer.resumed, 20);
}

TEST_F(Faults, WhatChangedWhileMeasuringIsSaidAndNeverMixed) {
  const fs::path model = folder_ / "model";
  fs::copy(kModel, model, fs::copy_options::recursive);
  ASSERT_EQ(measure("out.json", "kill:250", model.string()).code, 137);
  Outcome o = measure("out.json", "kill:250", model.string(), "--effort full --no-guard");
  EXPECT_THAT(o.err, HasSubstr("other options; it is removed, and the work begins anew"));
  ASSERT_EQ(o.code, 137);
  io::write_file(temp("few.jsonl"), "{\"text\": \"A bridge over a river, and a train.\"}\n");
  o = measure("out.json", "kill:250", model.string());
  EXPECT_THAT(o.err, HasSubstr("other inputs, or ones that were changed since"));
  ASSERT_EQ(o.code, 137);
  const fs::path shard = model / "model-00001-of-00003.safetensors";
  io::write_file(shard, io::read_file(shard));
  o = measure("out.json", "none", model.string());
  EXPECT_THAT(o.err, HasSubstr("another 16-bit checkpoint, or one that was changed since"));
  ASSERT_EQ(o.code, 0);
  ASSERT_EQ(measure("anew.json", "none", model.string()).code, 0);
  EXPECT_EQ(io::read_file(temp("out.json")), io::read_file(temp("anew.json")));
}

TEST_F(Faults, OtherSpellingsOfTheSameMeasuringGoOn) {
  const std::string link = temp("link");
  fs::create_directory_symlink(kModel, link);
  ASSERT_EQ(measure("out.json", "kill:250").code, 137);
  const std::string given =
      fmt::format("measure '{}/.' --data '{}/./few.jsonl' --compute f32 --effort full -o '{}'", link,
                  folder_.path().string(), temp("out.json"));
  const Outcome o = nibble(given, "none");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("going on where an interrupted run stopped"));
  const std::string resumed = io::read_file(temp("out.json"));
  EXPECT_THAT(resumed, HasSubstr(link)) << "names are those that were given";
  ASSERT_EQ(nibble(given, "none").code, 0);
  EXPECT_EQ(io::read_file(temp("out.json")), resumed);
}

TEST_F(Faults, QuantizingKilledWhileItMeasuresGoesOn) {
  const std::string command = fmt::format(
      "quantize '{}' --data '{}' --verify '{}' --compute f32 --budget 40% --save-every 0 --max-shard-size "
      "400000 -o ",
      kModel, temp("few.jsonl"), temp("few.jsonl"));
  measure("few.json", "none");
  ASSERT_EQ(nibble(command + temp("whole"), "none").code, 0);
  const auto expected = contents("whole");
  Killer killer(13, 300, "going on where an interrupted run stopped");
  while (killer.kills < 15 && !HasFatalFailure()) {
    killer.until_done([&](const std::string& fault) { return nibble(command + temp("out"), fault); });
    EXPECT_EQ(contents("out"), expected);
    fs::remove_all(temp("out"));
  }
  EXPECT_GT(killer.resumed, 3);
}

TEST_F(Faults, ASecondMeasuringIsRefused) {
  const io::WorkFolder first(temp("out.json"), ".progress", io::WorkFolder::Leftovers::keep);
  const Outcome o = measure("out.json", "none");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("another run of nibble is writing it"));
}

TEST_F(Faults, WhatChangedIsSaidAndNeverMixed) {
  const fs::path model = folder_ / "model";
  fs::copy(kModel, model, fs::copy_options::recursive);
  ASSERT_EQ(quantize("out", "kill:300", model.string()).code, 137);
  // The first weights of the source change, but not the size and the time of their file.
  const fs::path shard = model / "model-00001-of-00003.safetensors";
  const auto changed = fs::last_write_time(shard);
  std::string bytes = io::read_file(shard);
  std::swap(bytes[bytes.size() - 1], bytes[bytes.size() - 3]);
  std::swap(bytes[bytes.size() - 2], bytes[bytes.size() - 4]);
  io::write_file(shard, bytes);
  fs::last_write_time(shard, changed);
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
  ASSERT_EQ(quantize("whole", "none").code, 0);
  for (const bool hidden : {false, true}) {
    ASSERT_EQ(quantize("out", "kill:300").code, 137);
    const fs::path shard = temp("out") + ".partial/shard-00001.safetensors";
    const auto written = fs::last_write_time(shard);
    std::string bytes = io::read_file(shard);
    bytes.back() ^= 1;
    io::write_file(shard, bytes);
    if (hidden) fs::last_write_time(shard, written);
    const Outcome o = quantize("out", "none");
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.err, HasSubstr("files that were changed since"));
    EXPECT_EQ(contents("out"), contents("whole"));
    fs::remove_all(temp("out"));
  }
}

TEST_F(Faults, AnInterruptedRunSaysWhatIsKept) {
  // The first state is saved after some steps; before, there is nothing to go on from.
  Outcome o = quantize("out", "interrupt:3");
  EXPECT_EQ(o.code, 130);
  EXPECT_THAT(o.err, HasSubstr("interrupted; nothing was kept yet, and the same command begins anew"));
  o = quantize("out", "interrupt:300");
  EXPECT_EQ(o.code, 130);
  EXPECT_THAT(o.err, HasSubstr("the same command goes on from what lies in " + temp("out") + ".partial"));
  EXPECT_THAT(quantize("out", "none").err, HasSubstr("going on after"));
}

TEST_F(Faults, DamagedStatesAreNotUsed) {
  ASSERT_EQ(quantize("out", "kill:300").code, 137);
  const fs::path state = temp("out") + ".partial/.nibble-state";
  const std::string digests = "\"digests\": {";
  const size_t at = io::read_file(state).find("\": \"", io::read_file(state).find(digests) + digests.size());
  ASSERT_NE(at, std::string::npos);
  test::flip_bit(state, static_cast<std::streamoff>(at) + 5);  // in a tensor's digest
  const Outcome o = quantize("out", "none");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.err, HasSubstr("a state that cannot be read; it is removed, and the work begins anew"));
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
