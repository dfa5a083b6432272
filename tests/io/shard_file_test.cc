// Files that are written in any order, tensors that are read in pieces, holes, and state that outlives a run.
#include "io/shard_file.h"

#include <sys/stat.h>

#include "io/checkpoint.h"
#include "io/mappings.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
using namespace testing_io;
using testing::HasSubstr;

std::vector<std::byte> filled(int64_t n, int value) {
  return std::vector<std::byte>(static_cast<size_t>(n), static_cast<std::byte>(value));
}

PlannedTensor planned_of(const TensorPlan& plan, int value) {
  return {plan.name, plan.dtype, plan.shape,
          [=](const PlannedTensor::Sink& sink) { sink(filled(plan.bytes(), value)); }};
}

const std::vector<TensorPlan> kPlans = {{"b", DType::u8, {5, 1}},
                                        {"b.state", DType::u8, {90}},
                                        {"c", DType::u8, {40}},
                                        {"a", DType::f32, {3}},
                                        {"z", DType::bf16, {2, 2}}};

TEST(ShardFile, IsTheFileOfThePlainWriterInAnyOrder) {
  const TempFolder folder;
  std::vector<PlannedTensor> tensors;
  for (size_t i = 0; i < kPlans.size(); ++i)
    tensors.push_back(planned_of(kPlans[i], static_cast<int>(i) + 1));
  write_safetensors(folder / "plain.safetensors", std::move(tensors));
  ShardFile file(folder / "shard.safetensors", kPlans);
  for (size_t i = kPlans.size(); i-- > 0;) {
    const auto bytes = filled(kPlans[i].bytes(), static_cast<int>(i) + 1);
    file.write(kPlans[i].name, 3, std::span(bytes).subspan(3));
    file.write(kPlans[i].name, 0, std::span(bytes).first(3));
  }
  EXPECT_FALSE(fs::exists(folder / "shard.safetensors"));
  EXPECT_TRUE(file.commit());
  EXPECT_EQ(get(folder / "shard.safetensors"), get(folder / "plain.safetensors"));
}

TEST(ShardFile, LengthsThatAreKnownLate) {
  const TempFolder folder;
  for (const int64_t length : {int64_t{90}, int64_t{87}, int64_t{99}, int64_t{7}}) {
    std::vector<TensorPlan> real = kPlans;
    real[1].shape = {length};
    std::vector<PlannedTensor> tensors;
    for (size_t i = 0; i < real.size(); ++i) tensors.push_back(planned_of(real[i], static_cast<int>(i)));
    write_safetensors(folder / "plain.safetensors", std::move(tensors));
    bool done = false;
    for (const auto& start : {kPlans, real}) {
      ShardFile file(folder / "shard.safetensors", start);
      for (const size_t i : {3u, 4u, 0u, 1u, 2u}) {
        if (i == 1) file.set_length("b.state", length);
        file.write(real[i].name, 0, filled(real[i].bytes(), static_cast<int>(i)));
      }
      done = file.commit();
      if (done) break;
      EXPECT_EQ(length, 7) << "one digit less, and the header is another one";
      EXPECT_FALSE(fs::exists(folder / "shard.safetensors"));
    }
    EXPECT_TRUE(done);
    EXPECT_EQ(get(folder / "shard.safetensors"), get(folder / "plain.safetensors")) << length;
    fs::remove(folder / "shard.safetensors");
  }
}

TEST(ShardFile, RefusesWhatIsNotPlanned) {
  const TempFolder folder;
  ShardFile file(folder / "shard.safetensors", kPlans);
  EXPECT_THROW(file.write("other", 0, filled(1, 0)), InternalError);
  EXPECT_THROW(file.write("a", 5, filled(8, 0)), InternalError);
}

TEST(Holes, AreZerosThatTakeNoRoom) {
  const TempFolder folder;
  write_safetensors(folder / "x.safetensors",
                    {{"a", DType::u8, {4}, [](const auto& sink) { sink(filled(4, 9)); }},
                     {"b", DType::u8, {int64_t{1} << 30}, {}}});
  const SafetensorsFile file(folder / "x.safetensors");
  EXPECT_EQ(file.tensor("b").bytes(), int64_t{1} << 30);
  EXPECT_EQ(file.tensor("b").as<uint8_t>()[12345678], 0);
  EXPECT_EQ(file.tensor("a").as<uint8_t>()[3], 9);
  struct stat status {};
  ASSERT_EQ(stat((folder / "x.safetensors").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
}

TEST(TensorBytes, ReadsPiecesAndNoticesChanges) {
  const TempFolder folder;
  put(folder / "config.json", "{}");
  write_safetensors(folder / "model.safetensors", {planned_of({"a", DType::u8, {9000}}, 5)});
  const Checkpoint checkpoint(folder.path());
  const TensorBytes bytes = checkpoint.bytes("a");
  std::vector<std::byte> buffer(1000);
  bytes.read(8000, buffer);
  EXPECT_EQ(buffer, filled(1000, 5));
  EXPECT_THROW(bytes.read(8001, buffer), InternalError);
  fs::resize_file(folder / "model.safetensors", 5000);
  EXPECT_THAT(error_of([&] { bytes.read(8000, buffer); }), HasSubstr("model.safetensors: ends at byte"));
  EXPECT_THAT(error_of([&] { checkpoint.bytes("a"); }), HasSubstr("was changed while it was in use"));
}

TEST(Mappings, KnowTheFileOfAnAddress) {
  const TempFolder folder;
  const std::string path = folder / "x.safetensors";
  write_safetensors(path, {planned_of({"a", DType::u8, {9000}}, 5)});
  const std::byte* data = nullptr;
  {
    const SafetensorsFile file(path);
    data = file.tensor("a").data;
    EXPECT_STREQ(mapped_file_at(data + 8999), path.c_str());
    int local = 0;
    EXPECT_EQ(mapped_file_at(&local), nullptr);
  }
  EXPECT_EQ(mapped_file_at(data), nullptr);
}

class State : public testing::Test {
 protected:
  TempFolder folder_;
  fs::path target_ = folder_ / "out";
};

TEST_F(State, LetsFilesOutliveARun) {
  {
    OutputFolder out(target_, false, OutputFolder::Leftovers::keep);
    EXPECT_EQ(out.state(), std::nullopt);
    put(out.path() / "a", "1");
    put(out.path() / "b", "2");
    out.save_state("half");
  }
  {
    OutputFolder out(target_, false, OutputFolder::Leftovers::keep);
    EXPECT_EQ(out.state(), "half");
    out.keep_only({"a"});
    EXPECT_EQ(out.state(), "half");
    EXPECT_EQ(get(out.path() / "a"), "1");
    EXPECT_FALSE(fs::exists(out.path() / "b"));
    out.commit();
  }
  EXPECT_THAT(entries(target_), testing::ElementsAre("a"));
  EXPECT_THAT(entries(folder_.path()), testing::ElementsAre("out"));
}

TEST_F(State, IsRemovedWhereNobodyAsksForIt) {
  for (const bool cleared : {true, false}) {
    {
      OutputFolder out(target_, false, OutputFolder::Leftovers::keep);
      out.save_state("half");
    }
    EXPECT_TRUE(fs::exists(folder_ / "out.partial"));
    {
      OutputFolder out(target_, false,
                       cleared ? OutputFolder::Leftovers::keep : OutputFolder::Leftovers::remove);
      if (cleared) out.clear();
      EXPECT_EQ(out.state(), std::nullopt);
    }
    EXPECT_FALSE(fs::exists(folder_ / "out.partial"));
  }
}

TEST_F(State, OfARunThatWasKilledInsideItsCommit) {
  put(target_ / "config.json", "{}");
  put(target_ / ".nibble-lock", "");
  put(target_ / ".nibble-state", "all");
  EXPECT_THAT(error_of([&] { OutputFolder out(target_, false); }), HasSubstr("exists already"));
  EXPECT_THAT(entries(target_), testing::ElementsAre("config.json"));
}

}  // namespace
}  // namespace nibble::io
