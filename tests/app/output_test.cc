// What the program writes to: folders, files and streams that it may or may not replace, that are full, or
// that nobody reads.
#include <sys/stat.h>

#include "app/program.h"

namespace nibble {
namespace {

TEST_F(Cli, OutputFolders) {
  fs::create_directory(temp("there"));
  io::write_file(temp("there/keep.txt"), "mine");
  expect_error("quantize " + kModel + " --policy all -o " + temp("there"), "there", "--force");
  EXPECT_EQ(io::read_file(temp("there/keep.txt")), "mine");
  expect_error("quantize " + kModel + " --policy all --force -o " + temp("there"), "there");
  EXPECT_EQ(io::read_file(temp("there/keep.txt")), "mine")
      << "a folder that is no checkpoint is never replaced";
  expect_error("quantize " + kModel + " --policy all -o /proc/nibble-cannot-write-here", "/proc",
               "cannot create");
  io::write_file(temp("file"), "mine");
  expect_error("quantize " + kModel + " --policy all -o " + temp("file"), "file: exists and is no folder");
  for (const char* none : {"/", ".", "''"})
    expect_error("quantize " + kModel + " --data " NIBBLE_ROOT "/texts/evaluation.jsonl -o " + none,
                 "folder");
}

TEST_F(Cli, TheSourceIsNeverReplaced) {
  const fs::path model = copy_model("source");
  expect_error("quantize " + model.string() + " --policy all --force -o " + model.string(),
               "16-bit checkpoint itself");
  expect_error("quantize " + model.string() + " --policy all --force -o " + folder_.path().string(),
               "16-bit checkpoint itself");
  EXPECT_TRUE(fs::exists(model / "model-00001-of-00003.safetensors"));
}

TEST_F(Cli, OnlyRegularFilesAreWritten) {
  // A pipe stands for a device: what a test may replace by mistake must be its own.
  const std::string pipe = temp("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& command : {"trace " + kModel + " --prompt Hi -o ", "measure " + kModel + " -o "})
    expect_error(command + pipe, "pipe", "regular file");
  EXPECT_TRUE(fs::is_fifo(pipe));
  io::write_file(temp("target.json"), "{}");
  fs::create_symlink("target.json", temp("link.json"));
  io::write_file(temp("link.json"), "[]");
  EXPECT_TRUE(fs::is_symlink(temp("link.json")));
  EXPECT_EQ(io::read_file(temp("target.json")), "[]");
  io::write_file(temp("m.json"), "{}");
  expect_error("plan " + temp("m.json") + " -o " + temp("m.json"), "would be replaced");
}

TEST_F(Cli, ErrorsNeedNoReader) {
  const std::string command = fmt::format("'{}' inspect /nowhere 2>&-", NIBBLE_BINARY);
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 2);
}

TEST_F(Cli, FullDiskLeavesNothingBehind) {
  // A limit on the file size stands for the full disk: the write fails half way.
  const fs::path out = folder_.path() / "stdout", err = folder_.path() / "stderr";
  const std::string command =
      fmt::format("bash -c 'ulimit -f 1000; trap \"\" XFSZ; \"{}\" quantize {} --policy all -o {} 2>{}'",
                  NIBBLE_BINARY, kModel, temp("full"), err.string());
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(io::read_file(err), HasSubstr("cannot write it: File too large"));
  EXPECT_FALSE(fs::exists(temp("full")));
  EXPECT_FALSE(fs::exists(temp("full.partial")));
}

TEST_F(Cli, OutputNeverReplacesWhatIsNotItsOwn) {
  const fs::path model = copy_model("model");
  const std::string inside = (model / "tokenizer.json").string(), before = io::read_file(inside);
  io::write_file(temp("texts.jsonl"), R"({"text": "A green train with one car."})");
  const std::string data = " --data " + temp("texts.jsonl") + " ";
  expect_error("measure " + model.string() + data + "-o " + inside, inside, "file of the checkpoint");
  expect_error("trace " + model.string() + " --prompt Hi -o " + (model / "model.safetensors").string(),
               "part of the checkpoint");
  expect_error("measure " + model.string() + data + "-o " + temp("texts.jsonl"), "texts.jsonl",
               "read by this command");
  expect_error("trace " + model.string() + " --prompt Hi --image " + kPicture + " -o " + kPicture,
               "read by this command");
  io::write_file(temp("letter.txt"), "Dear reader");
  io::write_file(temp("empty.json"), "");
  EXPECT_EQ(nibble("eval " + model.string() + data + "--json " + temp("empty.json")).code, 0)
      << "nothing is lost";
  expect_error("measure " + model.string() + data + "-o " + temp("letter.txt"), "letter.txt",
               "no measurements");
  expect_error("eval " + model.string() + data + "--json " + temp("letter.txt"), "letter.txt",
               "no evaluation");
  EXPECT_EQ(io::read_file(inside), before);
  EXPECT_EQ(io::read_file(temp("letter.txt")), "Dear reader");
  // Its own output is replaced, also beside a checkpoint's files; not what holds something else.
  for (const std::string& target : {temp("eval.json"), (model / "eval.json").string()})
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ(nibble("eval " + model.string() + data + "--json " + target).code, 0) << target;
  expect_error("measure " + model.string() + data + "-o " + (model / "eval.json").string(),
               "file of the checkpoint");
}

TEST_F(Cli, ReportsCardsAndTracesReplaceOnlyTheirOwn) {
  const fs::path model = copy_model("model");
  io::write_file(temp("texts.jsonl"), R"({"text": "A green train with one car."})");
  const std::string data = " --data " + temp("texts.jsonl") + " ";
  ASSERT_EQ(nibble("eval " + kModel + data + "--json " + temp("e.json")).code, 0);
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("q")).code, 0);
  io::write_file(temp("thesis.html"), "<!doctype html>Mine");
  const std::string report = "report --evaluation a=" + temp("e.json") + " -o ";
  expect_error(report + temp("e.json"), "read by this command");
  expect_error(report + temp("thesis.html"), "no report");
  expect_error("trace " + kModel + " --prompt Hi -o " + temp("thesis.html"), "no trace");
  for (const std::string& again :
       {report + temp("r.html"), "trace " + kModel + " --prompt Hi -o " + temp("t.safetensors")})
    for (int i = 0; i < 2; ++i) EXPECT_EQ(nibble(again).code, 0) << again;
  const std::string weights = temp("q") + "/model.safetensors";
  for (const std::string& target : {weights, (model / "config.json").string()})
    expect_error("card " + temp("q") + " --force -o " + target, "checkpoint");
  expect_error("card " + temp("q") + " --force --evaluation a=" + temp("e.json") + " -o " + temp("e.json"),
               "read by");
  EXPECT_EQ(nibble("card " + temp("q") + " -o " + temp("q") + "/README.md").code, 0);
  // A file of the user's that is called like a partial one stays.
  io::write_file(temp("e2.json.partial"), "keep");
  EXPECT_EQ(nibble("eval " + kModel + data + "--json " + temp("e2.json")).code, 0);
  EXPECT_EQ(io::read_file(temp("e2.json.partial")), "keep");
}

TEST_F(Cli, WhatIsReadIsNotReplaced) {
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("q")).code, 0);
  io::write_file(temp("q") + "/list.txt", "visual");
  io::write_file(temp("q") + "/texts.jsonl", R"({"text": "A green train with one car."})");
  const std::string force = "quantize " + kModel + " --force -o " + temp("q");
  expect_error(force + " --policy list:" + temp("q") + "/list.txt", "list.txt", "lies in");
  expect_error(force + " --effort none --data " + temp("q") + "/texts.jsonl", "texts.jsonl", "lies in");
  expect_error(force + " --plan " + temp("q") + "/nibble.json", "nibble.json", "lies in");
  EXPECT_TRUE(fs::exists(temp("q") + "/list.txt"));
}

TEST_F(Cli, WhereNobodyReadsItEndsWithoutAWord) {
  // The reader of the pipe is gone before nibble starts.
  io::write_file(temp("slow"), fmt::format("#!/bin/bash\n(sleep 1; exec '{}' inspect '{}' 2>'{}') | true\n"
                                           "exit ${{PIPESTATUS[0]}}\n",
                                           NIBBLE_BINARY, kModel, temp("said")));
  EXPECT_EQ(WEXITSTATUS(std::system(fmt::format("bash '{}'", temp("slow")).c_str())), 141);
  EXPECT_EQ(io::read_file(temp("said")), "");
}

TEST_F(Cli, AFolderForScratchThatIsNotThereIsNamed) {
  const std::string command =
      fmt::format("TMPDIR=/nope '{}' compare {} --budget 10% 2>'{}'", NIBBLE_BINARY, kModel, temp("said"));
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 2);
  EXPECT_THAT(
      io::read_file(temp("said")),
      HasSubstr(
          "\nnibble: TMPDIR=/nope: is no folder that can be used; set TMPDIR to a folder with space\n"));
}

TEST_F(Cli, HelpToAFullDiskIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  for (const char* what : {"--help", "--version", "quantize --help"}) {
    const int status =
        std::system(fmt::format("'{}' {} >/dev/full 2>/dev/null", NIBBLE_BINARY, what).c_str());
    EXPECT_EQ(WEXITSTATUS(status), 2) << what;
  }
}

TEST_F(Cli, ClosedStreamsAreNoFiles) {
  io::write_file(temp("few.jsonl"), "{\"text\": \"The image shows a train on a bridge.\"}\n");
  const std::string command =
      fmt::format("'{}' measure {} --data '{}' --no-guard --effort none --save-every 0 -o ", NIBBLE_BINARY,
                  kModel, temp("few.jsonl"));
  ASSERT_EQ(std::system(fmt::format("{} '{}' >/dev/null 2>&1", command, temp("open.json")).c_str()), 0);
  for (const char* closed : {"0<&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"}) {
    const bool no_output = std::string_view(closed).find("1>&-") != std::string_view::npos;
    const int status = std::system(
        fmt::format("({} '{}' {} {})", command, temp("closed.json"), no_output ? "" : ">/dev/null", closed)
            .c_str());
    EXPECT_EQ(WEXITSTATUS(status), no_output ? 2 : 0) << closed;
    EXPECT_EQ(io::read_file(temp("closed.json")), io::read_file(temp("open.json"))) << closed;
    fs::remove(temp("closed.json"));
  }
}

TEST_F(Cli, ErrorsDoNotSteerTheTerminal) {
  expect_error("inspect '\x1b[31mred/x/y'", "\\x1b[31mred/x/y: there is no such folder");
}

TEST_F(Cli, WhatIsWrittenIsCompleteWhereItsResultCannotBePrinted) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const std::string out = temp("all"),
                    command = fmt::format("'{}' quantize {} --policy all -o {}", NIBBLE_BINARY, kModel, out);
  const int status = std::system(fmt::format("{} >/dev/full 2>'{}'", command, temp("said")).c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(io::read_file(temp("said")), AllOf(HasSubstr("cannot write to standard output"),
                                                 HasSubstr(out + " is written and complete")));
  EXPECT_EQ(nibble("verify " + out + " --against " + kModel).code, 0);
}

}  // namespace
}  // namespace nibble
