#include "io/checkpoint.h"

#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::ElementsAre;
using testing::HasSubstr;

/// A file of one-byte tensors, each holding its place in the list.
std::string weights(const std::vector<std::string>& names) {
  std::string header = "{", data;
  for (const auto& name : names) {
    header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})",
                          data.empty() ? "" : ",", name, data.size(), data.size() + 1);
    data += static_cast<char>(data.size());
  }
  return safetensors_bytes(header + "}", data);
}

std::string index_text(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string text = R"({"metadata": {"total_size": 3}, "weight_map": {)";
  for (const auto& [name, file] : map)
    text += fmt::format("{}\"{}\": \"{}\"", text.back() == '{' ? "" : ", ", name, file);
  return text + "}}";
}

constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

class CheckpointTest : public testing::Test {
 protected:
  TempFolder folder_;

  void file(const std::string& name, std::string_view bytes) { put(folder_ / name, bytes); }
  /// Two shards: a and b in the first, c in the second.
  void sharded() {
    file("config.json", "{}");
    file(kFirst, weights({"b", "a"}));
    file(kSecond, weights({"c"}));
    file(kIndex, index_text({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}}));
  }
  std::string refusal() {
    const std::string text = error_of([&] { Checkpoint checkpoint(folder_.path()); });
    EXPECT_THAT(text, HasSubstr(folder_.path().string()));
    return text;
  }
};

TEST_F(CheckpointTest, SingleFile) {
  file("config.json", R"({"model_type": "llama"})");
  file("model.safetensors", weights({"b", "a"}));
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(checkpoint.config().at("model_type"), "llama");
  EXPECT_EQ(checkpoint.folder(), folder_.path());
  EXPECT_EQ(checkpoint.config_path(), (folder_ / "config.json").string());
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_FALSE(checkpoint.has("c"));
  EXPECT_EQ(*checkpoint.tensor("a").as<char>(), 1);
  EXPECT_EQ(checkpoint.file_of("a"), folder_ / "model.safetensors");
  EXPECT_THAT(checkpoint.files(), ElementsAre(folder_ / "model.safetensors"));
  EXPECT_THAT(error_of([&] { checkpoint.tensor("c"); }), HasSubstr("has no tensor \"c\""));
  EXPECT_THAT(error_of([&] { checkpoint.file_of("c"); }), HasSubstr("has no tensor \"c\""));
}

TEST_F(CheckpointTest, KnowsWhetherItsFilesAreWhatTheyWere) {
  file("config.json", "{}");
  file("model.safetensors", weights({"a"}));
  const Checkpoint checkpoint(folder_.path());
  checkpoint.check_unchanged();
  std::filesystem::last_write_time(folder_ / "model.safetensors",
                                   std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_THAT(error_of([&] { checkpoint.check_unchanged(); }),
              HasSubstr("model.safetensors: was changed while it was in use"));
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_THAT(error_of([&] { checkpoint.check_unchanged(); }),
              HasSubstr("model.safetensors: cannot open it"));
}

TEST_F(CheckpointTest, TheOneFileOfAnyName) {
  file("config.json", "{}");
  file("weights.safetensors", weights({"a"}));
  EXPECT_TRUE(Checkpoint(folder_.path()).has("a"));
}

TEST_F(CheckpointTest, SingleFileBesideConsolidatedOnes) {
  file("config.json", "{}");
  file("model.safetensors", weights({"a"}));
  file("consolidated.safetensors", weights({"other"}));
  const Checkpoint checkpoint(folder_.path());
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_FALSE(checkpoint.has("other"));
}

TEST_F(CheckpointTest, Shards) {
  sharded();
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(*checkpoint.tensor("a").as<char>(), 1);
  EXPECT_EQ(*checkpoint.tensor("c").as<char>(), 0);
  EXPECT_EQ(checkpoint.file_of("b"), folder_ / kFirst);
  EXPECT_EQ(checkpoint.file_of("c"), folder_ / kSecond);
  EXPECT_THAT(checkpoint.files(), ElementsAre(folder_ / kFirst, folder_ / kSecond));
}

TEST_F(CheckpointTest, TheIndexRulesOverOtherFiles) {
  sharded();
  file("consolidated.safetensors", "not even read");
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_THAT(checkpoint.side_files(), testing::IsEmpty());
}

TEST_F(CheckpointTest, AnIndexMayNameOneFile) {
  file("config.json", "{}");
  file("model.safetensors", weights({"a"}));
  file(kIndex, index_text({{"a", "model.safetensors"}}));
  EXPECT_TRUE(Checkpoint(folder_.path()).has("a"));
}

TEST_F(CheckpointTest, AnUnnamedSingleFileBesideAnIndexIsAmbiguous) {
  sharded();
  file("model.safetensors", weights({"a"}));
  EXPECT_THAT(refusal(), HasSubstr("readers differ"));
}

TEST_F(CheckpointTest, LinksAreFollowed) {
  sharded();
  std::filesystem::create_directory(folder_ / "blobs");
  std::filesystem::rename(folder_ / kFirst, folder_ / "blobs/1234");
  std::filesystem::create_symlink("blobs/1234", folder_ / kFirst);
  EXPECT_TRUE(Checkpoint(folder_.path()).has("a"));
  std::filesystem::remove(folder_ / "blobs/1234");
  EXPECT_THAT(refusal(), HasSubstr("1 of the 2 files that it names are missing"));
}

TEST_F(CheckpointTest, IndexPathsStayInTheFolder) {
  for (const char* path : {"../../etc/passwd", "/etc/passwd", "../x.safetensors", "/etc/x.safetensors",
                           "sub/x.safetensors", "..", ".", "", "./x.safetensors", ".hidden.safetensors",
                           "a\\\\b.safetensors", "x\\u0000.safetensors", "sub/../x.safetensors"}) {
    sharded();
    file("x.safetensors", weights({"a"}));
    file("sub/x.safetensors", weights({"a"}));
    file(kIndex, index_text({{"a", path}, {"b", kFirst}, {"c", kSecond}}));
    EXPECT_THAT(refusal(),
                testing::AnyOf(HasSubstr("is no file of this folder"), HasSubstr("is no *.safetensors")))
        << path;
  }
  sharded();
  file("weights.bin", "x");
  file(kIndex, index_text({{"a", "weights.bin"}}));
  EXPECT_THAT(refusal(), HasSubstr("is no *.safetensors"));
}

TEST_F(CheckpointTest, IndexThatContradictsTheShards) {
  sharded();
  file(kIndex, index_text({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}, {"d", kSecond}}));
  EXPECT_THAT(refusal(),
              HasSubstr("\"d\" is said to be in model-00002-of-00002.safetensors, which does not hold it"));
  file(kIndex, index_text({{"a", kFirst}, {"c", kSecond}}));
  EXPECT_THAT(refusal(),
              HasSubstr("\"b\" is in model-00001-of-00002.safetensors, but the index leaves it out"));
  file(kIndex, index_text({{"a", kSecond}, {"b", kFirst}, {"c", kSecond}}));
  EXPECT_THAT(refusal(), HasSubstr("\"a\" is said to be in model-00002"));
  file(kIndex, index_text({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}}));
  file(kSecond, weights({"c", "a"}));
  EXPECT_THAT(refusal(), HasSubstr("\"a\" is said to be in model-00001-of-00002.safetensors, but it is in "
                                   "model-00002-of-00002.safetensors as well"));
  file(kIndex, index_text({{"a", kSecond}, {"b", kFirst}, {"c", kSecond}}));
  EXPECT_THAT(refusal(), HasSubstr("\"a\" is said to be in model-00002-of-00002.safetensors, but it is in "
                                   "model-00001-of-00002.safetensors as well"));
  file(kIndex, index_text({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}, {"a", kSecond}}));
  EXPECT_THAT(refusal(), HasSubstr("the key \"a\" is there twice"));
}

TEST_F(CheckpointTest, BadIndexes) {
  sharded();
  file(kIndex, "{\"weight_map\": {}}");
  EXPECT_THAT(refusal(), HasSubstr("weight_map is empty"));
  file(kIndex, "{}");
  EXPECT_THAT(refusal(), HasSubstr("weight_map is missing"));
  file(kIndex, "[]");
  EXPECT_THAT(refusal(), HasSubstr("not an object"));
  file(kIndex, "{\"weight_map\": {\"a\": 3}}");
  EXPECT_THAT(refusal(), HasSubstr("the file of tensor \"a\" is no string"));
  file(kIndex, "{\"weight_map\": ");
  EXPECT_THAT(refusal(), HasSubstr("model.safetensors.index.json: line 1"));
}

TEST_F(CheckpointTest, MissingShards) {
  sharded();
  std::filesystem::remove(folder_ / kSecond);
  EXPECT_THAT(refusal(),
              HasSubstr("1 of the 2 files that it names are missing (model-00002-of-00002.safetensors)"));
  std::filesystem::remove(folder_ / kFirst);
  EXPECT_THAT(refusal(), HasSubstr("2 of the 2 files that it names are missing"));
}

TEST_F(CheckpointTest, SeveralFilesNeedAnIndex) {
  sharded();
  std::filesystem::remove(folder_ / kIndex);
  EXPECT_THAT(refusal(), HasSubstr("has 2 safetensors files"));
  EXPECT_THAT(refusal(), HasSubstr(kIndex));
  std::filesystem::remove(folder_ / kSecond);
  EXPECT_THAT(refusal(), HasSubstr("one of 2 files"));
  std::filesystem::rename(folder_ / kFirst, folder_ / "model-00001-of-00001.safetensors");
  EXPECT_TRUE(Checkpoint(folder_.path()).has("a"));
}

TEST_F(CheckpointTest, OtherFormatsGetAHint) {
  file("config.json", "{}");
  EXPECT_THAT(refusal(), HasSubstr("has no *.safetensors: it is no Hugging Face checkpoint"));
  file("pytorch_model.bin", "x");
  EXPECT_THAT(refusal(), HasSubstr("convert its PyTorch weights"));
  file("model.gguf", "x");
  EXPECT_THAT(refusal(), HasSubstr("GGUF"));
  file("adapter_config.json", "{}");
  EXPECT_THAT(refusal(), HasSubstr("adapter"));
}

TEST_F(CheckpointTest, MissingOrBadConfig) {
  file("model.safetensors", weights({"a"}));
  EXPECT_THAT(refusal(), HasSubstr("has no config.json"));
  for (const char* text : {"", "[]", "{", "3", "{\"a\":}"}) {
    file("config.json", text);
    EXPECT_THAT(refusal(), HasSubstr("config.json")) << text;
  }
}

TEST_F(CheckpointTest, FoldersThatAreNone) {
  EXPECT_THAT(error_of([&] { Checkpoint checkpoint(folder_ / "none"); }), HasSubstr("no such folder"));
  file("file", "x");
  EXPECT_THAT(error_of([&] { Checkpoint checkpoint(folder_ / "file"); }), HasSubstr("is a file"));
  file("config.json", "{}");
  file("model.safetensors", safetensors_bytes("{}"));
  EXPECT_THAT(refusal(), HasSubstr("hold no tensor"));
}

TEST_F(CheckpointTest, SideFiles) {
  sharded();
  for (const char* name : {"tokenizer.json", "tokenizer.model", "chat_template.jinja", "README.md",
                           "nibble.json", "generation_config.json", "LICENSE"})
    file(name, "x");
  for (const char* name :
       {"consolidated.safetensors", "model.gguf", "pytorch_model.bin", "training_args.bin", "x.pt", "x.PTH",
        "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin.index.json", ".gitattributes",
        "x.nibble-partial", "sub/inner.json", "model.fp16.safetensors"})
    file(name, "x");
  std::filesystem::create_symlink("nowhere", folder_ / "broken.json");
  std::filesystem::create_symlink("LICENSE", folder_ / "linked.txt");
  std::vector<std::string> names;
  for (const auto& path : Checkpoint(folder_.path()).side_files()) {
    EXPECT_EQ(path.parent_path(), folder_.path());
    names.push_back(path.filename());
  }
  EXPECT_THAT(names, ElementsAre("LICENSE", "README.md", "chat_template.jinja", "generation_config.json",
                                 "linked.txt", "nibble.json", "tokenizer.json", "tokenizer.model"));
}

TEST_F(CheckpointTest, JsonFilesOfTheFolder) {
  sharded();
  file("a.json", "{\"x\": 1}");
  file("bad.json", "{");
  std::filesystem::create_symlink("nowhere", folder_ / "broken.json");
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(checkpoint.json("a.json").value().at("x"), 1);
  EXPECT_FALSE(checkpoint.json("none.json").has_value());
  EXPECT_THAT(error_of([&] { checkpoint.json("bad.json"); }), HasSubstr("bad.json: line 1"));
  EXPECT_THAT(error_of([&] { checkpoint.json("broken.json"); }), HasSubstr("cannot open it"));
}

TEST(CheckpointZoo, OpensEveryModel) {
  const std::filesystem::path zoo = std::filesystem::path(NIBBLE_ROOT) / "../shared/zoo";
  if (!std::filesystem::exists(zoo)) GTEST_SKIP() << "../shared/zoo is not there";
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(zoo)) {
    if (!entry.is_directory()) continue;
    const Checkpoint checkpoint(entry.path());
    EXPECT_EQ(checkpoint.files().size(), 3u) << entry.path();
    EXPECT_GT(checkpoint.tensors().size(), 20u) << entry.path();
    ++models;
  }
  EXPECT_EQ(models, 5);
}

}  // namespace
}  // namespace nibble::io
