#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>
#include <stdexcept>

#include "io/safetensors.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Lets no file of the process grow beyond a limit while it lives: writing then fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

PlannedTensor bytes_tensor(const std::string& name, int64_t n,
                           std::function<void(const PlannedTensor::Sink&)> write) {
  return {name, DType::u8, {n}, std::move(write)};
}

/// Gives n bytes in pieces of the given size.
std::function<void(const PlannedTensor::Sink&)> pieces(int64_t n, int64_t piece) {
  return [=](const PlannedTensor::Sink& sink) {
    const std::vector<std::byte> bytes(static_cast<size_t>(piece), std::byte{7});
    for (int64_t left = n; left > 0; left -= piece)
      sink(std::span(bytes).first(static_cast<size_t>(std::min(left, piece))));
  };
}

class Golden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, Golden,
                         testing::Values("dtypes", "names", "shapes", "none", "padding0", "padding1",
                                         "padding2", "padding3", "padding4", "padding5", "padding6",
                                         "padding7"));

TEST_P(Golden, WritesTheLibrarysBytesFromAnyOrder) {
  const auto path = kGoldens / (std::string(GetParam()) + ".safetensors");
  const SafetensorsFile file(path);
  const TempFolder folder;
  std::mt19937 rng(1);
  for (int round = 0; round < 10; ++round) {
    std::vector<PlannedTensor> tensors;
    for (const auto& [name, info] : file.tensors()) tensors.push_back(planned(name, file.tensor(name)));
    std::shuffle(tensors.begin(), tensors.end(), rng);
    write_safetensors(folder / "x.safetensors", std::move(tensors));
    EXPECT_EQ(get(folder / "x.safetensors"), get(path));
  }
  EXPECT_THAT(entries(folder.path()), ElementsAre("x.safetensors"));
}

TEST(SafetensorsWrite, PiecesOfAnySizeArriveWhole) {
  const TempFolder folder;
  constexpr int64_t kBytes = (int64_t{9} << 20) + 5;  // more than two write buffers
  for (int64_t piece : {int64_t{1000}, (int64_t{4} << 20) - 1, int64_t{4} << 20, kBytes}) {
    write_safetensors(folder / "x",
                      {bytes_tensor("a", 3, pieces(3, 1)), bytes_tensor("b", kBytes, pieces(kBytes, piece))});
    const SafetensorsFile file(folder / "x");
    const TensorView view = file.tensor("b");
    ASSERT_EQ(view.bytes(), kBytes);
    const auto* bytes = view.as<uint8_t>();
    EXPECT_EQ(std::count(bytes, bytes + kBytes, 7), kBytes);
  }
}

TEST(SafetensorsWrite, WritersRunOnceInFileOrder) {
  const TempFolder folder;
  std::vector<std::string> calls;
  std::vector<PlannedTensor> tensors;
  for (const auto& [name, dtype] : {std::pair("b", DType::u8), {"a", DType::u8}, {"c", DType::i8}})
    tensors.push_back({name, dtype, {1}, [&, n = std::string(name)](const PlannedTensor::Sink& sink) {
                         calls.push_back(n);
                         sink(std::vector<std::byte>(1));
                       }});
  write_safetensors(folder / "x", std::move(tensors));
  EXPECT_THAT(calls, ElementsAre("c", "a", "b"));
}

/// What a failed write must leave behind: the old file, and nothing else.
template <typename Work>
std::string failing_write(const Work& work) {
  const TempFolder folder;
  put(folder / "x", "old");
  const std::string text = error_of([&] { work(folder / "x"); });
  EXPECT_EQ(get(folder / "x"), "old");
  EXPECT_THAT(entries(folder.path()), ElementsAre("x"));
  return text;
}

TEST(SafetensorsWrite, WritersThatGiveTooFewOrTooManyBytes) {
  for (int64_t given : {0, 1, 9, 11, 1000}) {
    const std::string text = failing_write(
        [&](const auto& path) { write_safetensors(path, {bytes_tensor("x", 10, pieces(given, 1000))}); });
    EXPECT_THAT(text, HasSubstr(given < 10 ? fmt::format("\"x\" gives only {} of its 10 bytes", given)
                                           : std::string("\"x\" gives more than its 10 bytes")));
  }
}

TEST(SafetensorsWrite, WhatAWriterThrowsPassesThrough) {
  const TempFolder folder;
  const auto broken = [](const PlannedTensor::Sink& sink) {
    sink(std::vector<std::byte>(5));
    throw std::runtime_error("mine");
  };
  EXPECT_THROW(write_safetensors(folder / "x", {bytes_tensor("x", 10, broken)}), std::runtime_error);
  EXPECT_THAT(entries(folder.path()), IsEmpty());
}

TEST(SafetensorsWrite, FullDisk) {
  constexpr int64_t kBytes = int64_t{20} << 20;
  for (rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{6} << 20, rlim_t{kBytes}}) {
    const std::string text = failing_write([&](const auto& path) {
      const FileSizeLimit guard(limit);
      write_safetensors(path, {bytes_tensor("x", kBytes, pieces(kBytes, 1 << 16))});
    });
    EXPECT_THAT(text, HasSubstr("cannot write it: File too large")) << limit;
  }
}

TEST(SafetensorsWrite, FoldersThatCannotBeWritten) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { write_safetensors(folder / "none/x", {}); }), HasSubstr("create it first"));
  std::filesystem::create_directory(folder / "taken");
  EXPECT_THAT(error_of([&] { write_safetensors(folder / "taken", {}); }), HasSubstr("is a folder"));
  EXPECT_THAT(entries(folder.path()), ElementsAre("taken"));
}

TEST(SafetensorsWrite, ReadOnlyFolder) {
  if (geteuid() == 0) GTEST_SKIP() << "permission bits do not bind root";
  const TempFolder folder;
  ASSERT_EQ(chmod(folder.path().c_str(), 0500), 0);
  EXPECT_THAT(error_of([&] { write_safetensors(folder / "x", {}); }), HasSubstr("Permission denied"));
  ASSERT_EQ(chmod(folder.path().c_str(), 0700), 0);
}

TEST(SafetensorsWrite, AStalePartialFileIsOverwritten) {
  const TempFolder folder;
  put(folder / "x.nibble-partial", std::string(100000, 'z'));
  write_safetensors(folder / "x", {});
  EXPECT_EQ(get(folder / "x"), get(kGoldens / "none.safetensors"));
  EXPECT_THAT(entries(folder.path()), ElementsAre("x"));
}

TEST(SafetensorsWrite, APartialFileInUseIsRefused) {
  const TempFolder folder;
  put(folder / "x.nibble-partial", "theirs");
  const int other = open((folder / "x.nibble-partial").c_str(), O_RDONLY);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  EXPECT_THAT(error_of([&] { write_safetensors(folder / "x", {}); }),
              HasSubstr("another process is writing it"));
  EXPECT_EQ(get(folder / "x.nibble-partial"), "theirs");
  close(other);
}

TEST(SafetensorsWrite, PartialNamesThatAreNoFilesAreRefused) {
  const TempFolder folder;
  put(folder / "victim", "theirs");
  std::filesystem::create_symlink("victim", folder / "x.nibble-partial");
  error_of([&] { write_safetensors(folder / "x", {}); });
  EXPECT_EQ(get(folder / "victim"), "theirs");
  ASSERT_EQ(mkfifo((folder / "y.nibble-partial").c_str(), 0600), 0);
  error_of([&] { write_safetensors(folder / "y", {}); });
}

TEST(SafetensorsWrite, BrokenPlansAreInternalErrors) {
  const TempFolder folder;
  const auto plan = [](std::string name, Shape shape = {0}) {
    return PlannedTensor{std::move(name), DType::f32, std::move(shape), pieces(0, 1)};
  };
  EXPECT_THROW(write_safetensors(folder / "x", {plan("a"), plan("b"), plan("a")}), InternalError);
  EXPECT_THROW(write_safetensors(folder / "x", {plan("__metadata__")}), InternalError);
  EXPECT_THROW(write_safetensors(folder / "x", {plan("\xff")}), InternalError);
  EXPECT_THROW(write_safetensors(folder / "x", {plan("a", {-1})}), InternalError);
  EXPECT_THROW(write_safetensors(folder / "x", {plan("a", {int64_t{1} << 62})}), InternalError);
  EXPECT_THROW(
      write_safetensors(folder / "x", {plan("a", {int64_t{1} << 60}), plan("b", {int64_t{1} << 60})}),
      InternalError);
  EXPECT_THAT(entries(folder.path()), IsEmpty());
}

TEST(SafetensorsWrite, HeadersBeyondTheFormatsLimitAreRefused) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] {
                write_safetensors(
                    folder / "x",
                    {PlannedTensor{std::string(100'000'000, 'n'), DType::u8, {0}, pieces(0, 1)}});
              }),
              HasSubstr("smaller shards"));
  EXPECT_THAT(entries(folder.path()), IsEmpty());
}

}  // namespace
}  // namespace nibble::io
