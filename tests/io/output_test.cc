// OutputFolder, write_shards and the file functions beneath them.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
using namespace testing_io;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(WriteFile, ReplacesTheFileAndLeavesNothingElse) {
  const TempFolder folder;
  write_file(folder / "a.json", "one");
  write_file(folder / "a.json", "");
  write_file(folder / "a.json", "three");
  EXPECT_EQ(get(folder / "a.json"), "three");
  EXPECT_THAT(entries(folder.path()), ElementsAre("a.json"));
  EXPECT_THROW(write_file(folder / "none/a", "x"), Error);
}

TEST(WriteFile, RelativeNamesLieInTheCurrentFolder) {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_file("a", "x");
  fs::current_path(before);
  EXPECT_EQ(get(folder / "a"), "x");
}

TEST(SwapFolders, InOneStepAndInThree) {
  for (bool one_step : {true, false}) {
    const TempFolder folder;
    put(folder / "a/new", "");
    put(folder / "b/old", "");
    swap_folders(folder / "a", folder / "b", one_step);
    EXPECT_THAT(entries(folder.path()), ElementsAre("a", "b"));
    EXPECT_THAT(entries(folder / "a"), ElementsAre("old"));
    EXPECT_THAT(entries(folder / "b"), ElementsAre("new"));
  }
}

TEST(SwapFolders, FailureLeavesBothAsTheyWere) {
  for (bool one_step : {true, false}) {
    const TempFolder folder;
    put(folder / "b/old", "");
    EXPECT_THROW(swap_folders(folder / "a", folder / "b", one_step), Error);
    EXPECT_THAT(entries(folder.path()), ElementsAre("b"));
  }
  const TempFolder folder;
  put(folder / "a/new", "");
  put(folder / "b/old", "");
  put(folder / "b.old", "in the way");
  EXPECT_THROW(swap_folders(folder / "a", folder / "b", false), Error);
  EXPECT_THAT(entries(folder / "a"), ElementsAre("new"));
  EXPECT_THAT(entries(folder / "b"), ElementsAre("old"));
  EXPECT_EQ(get(folder / "b.old"), "in the way");
}

class Output : public testing::Test {
 protected:
  /// Replaces whatever may be replaced at all.
  static OutputFolder forced(const fs::path& target) {
    return OutputFolder(target, true, OutputFolder::Leftovers::remove, {.written = [](const fs::path&) {}});
  }

  TempFolder folder_;
  fs::path target_ = folder_ / "out";
  fs::path partial_ = folder_ / "out.partial";
};

TEST_F(Output, AppearsOnlyWhenCommitted) {
  {
    OutputFolder out(target_, false);
    EXPECT_EQ(out.path(), partial_);
    put(out.path() / "config.json", "{}");
    put(out.path() / "sub/x", "y");
    EXPECT_FALSE(fs::exists(target_));
    out.commit();
    EXPECT_FALSE(fs::exists(partial_));
    EXPECT_THAT(entries(target_), ElementsAre("config.json", "sub"));
    EXPECT_THROW(out.commit(), InternalError);
  }
  EXPECT_THAT(entries(folder_.path()), ElementsAre("out"));
}

TEST_F(Output, WithoutCommitNothingStays) {
  {
    OutputFolder out(target_, false);
    put(out.path() / "sub/x", "y");
  }
  EXPECT_THAT(entries(folder_.path()), testing::IsEmpty());
}

TEST_F(Output, NamesMayEndWithSlashesAndDots) {
  for (const char* name : {"a/", "b/.", "c//", "d/x/..", "./e"}) {
    OutputFolder out(folder_ / name, false);
    put(out.path() / "x", "");
    out.commit();
  }
  EXPECT_THAT(entries(folder_.path()), ElementsAre("a", "b", "c", "d", "e"));
  for (const char* name : {"", ".", "..", "/", "a/../.."})
    EXPECT_THROW(OutputFolder(name, true), Error) << name;
}

TEST_F(Output, ExistingTargetsNeedForce) {
  put(target_ / "config.json", "old");
  EXPECT_THAT(error_of([&] { OutputFolder out(target_, false); }), HasSubstr("--force"));
  fs::remove_all(target_);
  put(target_, "a file");
  EXPECT_THROW(OutputFolder(target_, false), Error);
  EXPECT_THAT(error_of([&] { OutputFolder out = forced(target_); }), HasSubstr("no folder"));
  EXPECT_THAT(entries(folder_.path()), ElementsAre("out"));
}

TEST_F(Output, LiesOutsideOfWhatARunWrites) {
  OutputFolder out(target_, false);
  EXPECT_THAT(error_of([&] { OutputFolder inner(partial_ / "inner", false); }),
              HasSubstr("out.partial is where a run of nibble writes"));
}

TEST_F(Output, ForceReplacesTheOldFolderAtCommitOnly) {
  put(target_ / "config.json", "old");
  put(target_ / "sub/old", "old");
  {
    OutputFolder out = forced(target_);
    put(out.path() / "config.json", "new");
    EXPECT_EQ(get(target_ / "config.json"), "old");
  }
  EXPECT_THAT(entries(target_), ElementsAre("config.json", "sub"));
  OutputFolder out = forced(target_);
  put(out.path() / "config.json", "new");
  out.commit();
  EXPECT_EQ(get(target_ / "config.json"), "new");
  EXPECT_THAT(entries(target_), ElementsAre("config.json"));
  EXPECT_THAT(entries(folder_.path()), ElementsAre("out"));
}

TEST_F(Output, ForceReplacesEmptyFoldersAndMakesNewOnes) {
  fs::create_directory(target_);
  for (int round = 0; round < 2; ++round) {
    OutputFolder out = forced(target_);
    put(out.path() / "config.json", "new");
    out.commit();
    EXPECT_THAT(entries(target_), ElementsAre("config.json"));
    if (round == 0) fs::remove_all(target_);
  }
}

TEST_F(Output, ForceSparesWhatIsNotKnownToBeOwn) {
  put(target_ / "config.json", "{}");
  EXPECT_THAT(error_of([&] { OutputFolder out(target_, true); }), HasSubstr("out: is not empty"));
  put(target_ / ".git/HEAD", "x");
  EXPECT_THAT(error_of([&] { OutputFolder out = forced(target_); }), HasSubstr("git working tree"));
  EXPECT_THAT(entries(target_), ElementsAre(".git", "config.json"));
}

TEST_F(Output, WhatIsOwnIsAskedAgainAtCommit) {
  put(target_ / "config.json", "old");
  const auto written = [](const fs::path& folder) {
    if (fs::exists(folder / "diary.txt")) fail("{}: is mine", (folder / "diary.txt").string());
  };
  {
    OutputFolder out(target_, true, OutputFolder::Leftovers::remove, {.written = written});
    put(out.path() / "config.json", "new");
    put(target_ / "diary.txt", "x");
    EXPECT_THAT(error_of([&] { out.commit(); }), HasSubstr("diary.txt: is mine"));
  }
  EXPECT_THAT(entries(target_), ElementsAre("config.json", "diary.txt"));
  EXPECT_EQ(get(target_ / "config.json"), "old");
}

TEST_F(Output, WorkFoldersAreNoTargets) {
  put(partial_ / ".nibble-lock", "");
  put(partial_ / ".nibble-state", "half");
  for (const bool force : {false, true})
    EXPECT_THAT(error_of([&] { OutputFolder out(partial_, force); }), HasSubstr("an interrupted run"));
  EXPECT_THAT(entries(partial_), ElementsAre(".nibble-lock", ".nibble-state"));
}

TEST_F(Output, ForeignFilesAmongLeftoversAreSpared) {
  put(partial_ / ".nibble-lock", "");
  put(partial_ / "half.safetensors", "half");
  const auto leftover = [](const fs::path& folder) { fail("{}: holds a diary", folder.string()); };
  EXPECT_THAT(error_of([&] {
                OutputFolder out(target_, false, OutputFolder::Leftovers::remove, {.leftover = leftover});
              }),
              HasSubstr("out.partial: holds a diary"));
  EXPECT_THAT(entries(partial_), ElementsAre(".nibble-lock", "half.safetensors"));
}

TEST_F(Output, ForceSparesLinksAndTheCurrentFolder) {
  put(folder_ / "real/config.json", "{}");
  fs::create_directory_symlink("real", target_);
  EXPECT_THAT(error_of([&] { OutputFolder out = forced(target_); }), HasSubstr("symbolic link"));
  const fs::path before = fs::current_path();
  fs::create_directory(folder_ / "real/sub");
  for (const char* here : {"real", "real/sub"}) {
    fs::current_path(folder_ / here);
    EXPECT_THAT(error_of([&] { OutputFolder out = forced(folder_ / "real"); }), HasSubstr("current folder"))
        << here;
  }
  fs::current_path(before);
}

TEST_F(Output, MissingParents) {
  EXPECT_THAT(error_of([&] { OutputFolder out(folder_ / "none/out", false); }), HasSubstr("create it first"));
  put(folder_ / "file", "");
  EXPECT_THROW(OutputFolder(folder_ / "file/out", false), Error);
}

TEST_F(Output, ATargetThatAppearsMeanwhileIsLeftAlone) {
  {
    OutputFolder out(target_, false);
    put(target_ / "theirs", "x");
    EXPECT_THAT(error_of([&] { out.commit(); }), HasSubstr("came into being"));
  }
  EXPECT_THAT(entries(target_), ElementsAre("theirs"));
  {
    OutputFolder out(folder_ / "second", true);
    put(folder_ / "second/theirs", "x");
    EXPECT_THAT(error_of([&] { out.commit(); }), HasSubstr("second: is not empty"));
  }
  EXPECT_THAT(entries(folder_ / "second"), ElementsAre("theirs"));
}

TEST_F(Output, TwoRunsOnOneTarget) {
  put(target_ / "config.json", "old");
  OutputFolder first = forced(target_);
  put(first.path() / "config.json", "new");
  EXPECT_THAT(error_of([&] { OutputFolder second = forced(target_); }), HasSubstr("another run of nibble"));
  EXPECT_EQ(get(first.path() / "config.json"), "new");
  first.commit();
  EXPECT_EQ(get(target_ / "config.json"), "new");
}

TEST_F(Output, WhatAKilledRunLeftIsClearedAndUsedAgain) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    OutputFolder out(target_, false);
    std::ofstream(out.path() / "half.safetensors") << "half";
    _exit(0);  // without running the destructor
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(fs::exists(partial_ / "half.safetensors"));
  OutputFolder out(target_, false);
  EXPECT_FALSE(fs::exists(partial_ / "half.safetensors"));
  put(out.path() / "config.json", "new");
  out.commit();
  EXPECT_THAT(entries(folder_.path()), ElementsAre("out"));
  EXPECT_THAT(entries(target_), ElementsAre("config.json"));
}

TEST_F(Output, ForeignPartialFoldersAreRefused) {
  put(partial_ / "mine.txt", "x");
  EXPECT_THAT(error_of([&] { OutputFolder out(target_, false); }), HasSubstr("not from an interrupted run"));
  EXPECT_EQ(get(partial_ / "mine.txt"), "x");
  fs::remove_all(partial_);
  put(partial_, "a file");
  EXPECT_THROW(OutputFolder(target_, false), Error);
  fs::remove(partial_);
  put(folder_ / "elsewhere/mine.txt", "x");
  fs::create_directory_symlink("elsewhere", partial_);
  EXPECT_THROW(OutputFolder(target_, false), Error);
  EXPECT_EQ(get(folder_ / "elsewhere/mine.txt"), "x");
  fs::remove(partial_);
  fs::create_directory(partial_);  // killed before it wrote anything
  OutputFolder out(target_, false);
  EXPECT_EQ(out.path(), partial_);
}

TEST_F(Output, LinksInsideAreRemovedNotFollowed) {
  put(folder_ / "elsewhere/mine.txt", "x");
  {
    OutputFolder out(target_, false);
    fs::create_directory_symlink(folder_ / "elsewhere", out.path() / "link");
  }
  EXPECT_EQ(get(folder_ / "elsewhere/mine.txt"), "x");
  EXPECT_FALSE(fs::exists(partial_));
}

TEST_F(Output, ReadOnlyParent) {
  if (geteuid() == 0) GTEST_SKIP() << "permission bits do not bind root";
  ASSERT_EQ(chmod(folder_.path().c_str(), 0500), 0);
  EXPECT_THAT(error_of([&] { OutputFolder out(target_, false); }), HasSubstr("Permission denied"));
  ASSERT_EQ(chmod(folder_.path().c_str(), 0700), 0);
}

/// A planned tensor of n bytes that all hold the value.
PlannedTensor filled(const std::string& name, int64_t n, int value = 0) {
  return {name, DType::u8, {n}, [=](const PlannedTensor::Sink& sink) {
            sink(std::vector<std::byte>(static_cast<size_t>(n), static_cast<std::byte>(value)));
          }};
}

/// Groups of one tensor each.
std::vector<std::vector<PlannedTensor>> singles(const std::vector<std::pair<std::string, int64_t>>& tensors) {
  std::vector<std::vector<PlannedTensor>> groups;
  for (const auto& [name, n] : tensors) groups.push_back({filled(name, n)});
  return groups;
}

std::vector<std::string> names_in(const fs::path& path) {
  const SafetensorsFile file(path);
  std::vector<std::string> names;
  for (const auto& [name, info] : file.tensors()) names.push_back(name);
  return names;
}

TEST(WriteShards, OneShardHasNoIndex) {
  const TempFolder folder;
  EXPECT_EQ(write_shards(folder.path(), singles({{"a", 10}, {"b", 20}}), 30, {}), 30);
  EXPECT_THAT(entries(folder.path()), ElementsAre("model.safetensors"));
  EXPECT_THAT(names_in(folder / "model.safetensors"), ElementsAre("a", "b"));
}

TEST(WriteShards, IndexAsTransformersWritesIt) {
  const TempFolder folder;
  std::vector<std::vector<PlannedTensor>> groups;
  groups.push_back({filled("b.weight", 20), filled("b.bias", 20)});
  groups.push_back({filled("a.weight", 20)});
  EXPECT_EQ(write_shards(folder.path(), std::move(groups), 40, {}), 60);
  EXPECT_EQ(get(folder / "model.safetensors.index.json"), get(kGoldens / "index.json"));
  EXPECT_THAT(entries(folder.path()),
              ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                          "model.safetensors.index.json"));
}

TEST(WriteShards, GroupsStayTogetherInTheirOrder) {
  const TempFolder folder;
  std::vector<std::vector<PlannedTensor>> groups;
  groups.push_back({filled("z", 6)});
  groups.push_back({filled("y", 3), filled("y.absmax", 2)});   // would fit by half
  groups.push_back({filled("x", 50), filled("x.absmax", 1)});  // larger than a shard
  groups.push_back({});
  groups.push_back({filled("w", 10)});
  groups.push_back({filled("v", 0)});
  write_shards(folder.path(), std::move(groups), 10, {});
  EXPECT_THAT(names_in(folder / "model-00001-of-00004.safetensors"), ElementsAre("z"));
  EXPECT_THAT(names_in(folder / "model-00002-of-00004.safetensors"), ElementsAre("y", "y.absmax"));
  EXPECT_THAT(names_in(folder / "model-00003-of-00004.safetensors"), ElementsAre("x", "x.absmax"));
  EXPECT_THAT(names_in(folder / "model-00004-of-00004.safetensors"), ElementsAre("v", "w"));
}

TEST(WriteShards, ReadsBackAsACheckpoint) {
  const TempFolder folder;
  std::vector<std::vector<PlannedTensor>> groups;
  for (int i = 0; i < 20; ++i) groups.push_back({filled(fmt::format("t{}", i), 100 + i, i)});
  write_shards(folder.path(), std::move(groups), 350, {});
  put(folder / "config.json", "{}");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.tensors().size(), 20u);
  for (int i = 0; i < 20; ++i) {
    const TensorView view = checkpoint.tensor(fmt::format("t{}", i));
    ASSERT_EQ(view.bytes(), 100 + i);
    EXPECT_EQ(std::count(view.as<uint8_t>(), view.as<uint8_t>() + view.bytes(), i), 100 + i);
  }
}

TEST(WriteShards, ProgressCountsBytesUpToTheTotal) {
  const TempFolder folder;
  std::vector<int64_t> seen;
  const int64_t total = write_shards(folder.path(), singles({{"a", 10}, {"b", 20}, {"c", 5}}), 20,
                                     [&](int64_t n) { seen.push_back(n); });
  EXPECT_EQ(total, 35);
  EXPECT_THAT(seen, ElementsAre(10, 30, 35));
}

TEST(WriteShards, NothingToWriteIsAnEmptyFile) {
  const TempFolder folder;
  EXPECT_EQ(write_shards(folder.path(), {}, 10, {}), 0);
  EXPECT_TRUE(SafetensorsFile(folder / "model.safetensors").tensors().empty());
}

TEST(WriteShards, TooLittleRoomIsSaidBeforeAnythingIsWritten) {
  const TempFolder folder;
  const auto never = [](const PlannedTensor::Sink&) { FAIL() << "the writer ran"; };
  std::vector<std::vector<PlannedTensor>> groups;
  groups.push_back({{"a", DType::f32, {int64_t{1} << 58}, never}});
  EXPECT_THAT(error_of([&] { write_shards(folder.path(), std::move(groups), 1 << 20, {}); }),
              HasSubstr("and the checkpoint takes 1048576 TiB"));
  EXPECT_THAT(entries(folder.path()), testing::IsEmpty());
}

TEST(WriteShards, BrokenPlansAreInternalErrors) {
  const TempFolder folder;
  EXPECT_THROW(write_shards(folder.path(), singles({{"a", 1}, {"a", 1}}), 1, {}), InternalError);
  EXPECT_THROW(write_shards(folder.path(), {}, 0, {}), InternalError);
}

}  // namespace
}  // namespace nibble::io
