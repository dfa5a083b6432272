#include <stdlib.h>

#include <map>
#include <optional>

#include "io/checkpoint.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

/// Each test in a hub cache of its own, with the environment put back at the end.
class Hub : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      unsetenv(name);
    }
    setenv("HF_HUB_CACHE", (folder_ / "hub").c_str(), 1);
  }
  void TearDown() override {
    for (const auto& [name, value] : before_) {
      if (value)
        setenv(name.c_str(), value->c_str(), 1);
      else
        unsetenv(name.c_str());
    }
  }

  /// A downloaded model as huggingface_hub lays it out: files are links into blobs. Returns the snapshot.
  std::filesystem::path download(const std::filesystem::path& cache, const std::string& folder,
                                 const std::string& ref = "main", const std::string& commit = kCommit) {
    const auto model = cache / folder;
    const auto snapshot = model / "snapshots" / commit;
    put(model / "refs" / ref, commit);
    for (const char* name : {"config.json", "model.safetensors"}) {
      put(model / "blobs" / name, "{}");
      std::filesystem::create_directories(snapshot);
      if (!std::filesystem::exists(snapshot / name))
        std::filesystem::create_symlink(std::filesystem::path("../../blobs") / name, snapshot / name);
    }
    return snapshot;
  }

  TempFolder folder_;
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(Hub, ExistingFoldersAreTakenAsTheyAre) {
  EXPECT_EQ(resolve_model(folder_.path().string()), folder_.path());
  std::filesystem::create_directory(folder_ / "a@b");
  EXPECT_EQ(resolve_model((folder_ / "a@b").string()), folder_ / "a@b");
}

TEST_F(Hub, NamesAreFoundInTheCache) {
  const auto snapshot = download(folder_ / "hub", "models--org--name");
  EXPECT_EQ(resolve_model("org/name"), snapshot);
  EXPECT_EQ(resolve_model("org/name@main"), snapshot);
  EXPECT_EQ(resolve_model(std::string("org/name@") + kCommit), snapshot);
}

TEST_F(Hub, NamesWithoutOrganisation) {
  const auto snapshot = download(folder_ / "hub", "models--gpt2");
  EXPECT_EQ(resolve_model("gpt2"), snapshot);
}

TEST_F(Hub, RevisionsAreFoundThroughTheirRefs) {
  const std::string other(40, 'f');
  download(folder_ / "hub", "models--org--name");
  const auto pull = download(folder_ / "hub", "models--org--name", "refs/pr/1", other);
  EXPECT_EQ(resolve_model("org/name@refs/pr/1"), pull);
  EXPECT_THAT(error_of([] { resolve_model("org/name@v2"); }),
              HasSubstr("`hf download org/name --revision v2`"));
}

TEST_F(Hub, RefsMayEndWithANewline) {
  const auto snapshot = download(folder_ / "hub", "models--org--name");
  put(folder_ / "hub/models--org--name/refs/main", std::string(kCommit) + "\n");
  EXPECT_EQ(resolve_model("org/name"), snapshot);
}

TEST_F(Hub, TheCacheIsFoundAsHuggingFaceDoes) {
  const auto expect_in = [&](const std::string& cache) {
    const auto snapshot = download(folder_ / cache, "models--org--name");
    EXPECT_EQ(resolve_model("org/name"), snapshot) << cache;
  };
  setenv("HOME", (folder_ / "home").c_str(), 1);
  unsetenv("HF_HUB_CACHE");
  expect_in("home/.cache/huggingface/hub");
  setenv("XDG_CACHE_HOME", (folder_ / "xdg").c_str(), 1);
  expect_in("xdg/huggingface/hub");
  setenv("HF_HOME", (folder_ / "hf").c_str(), 1);
  expect_in("hf/hub");
  setenv("HUGGINGFACE_HUB_CACHE", (folder_ / "legacy").c_str(), 1);
  expect_in("legacy");
  setenv("HF_HUB_CACHE", "~/deep/hub", 1);
  expect_in("home/deep/hub");
  setenv("HF_HUB_CACHE", "", 1);  // as if it were not set
  EXPECT_EQ(resolve_model("org/name").string(),
            (folder_ / "legacy/models--org--name/snapshots").string() + "/" + kCommit);
}

TEST_F(Hub, MissingModelsSayHowToDownloadThem) {
  EXPECT_THAT(error_of([] { resolve_model("org/name"); }),
              AllOf(HasSubstr("`hf download org/name`"), HasSubstr((folder_ / "hub").string())));
  EXPECT_THAT(error_of([] { resolve_model("org/name@abc"); }),
              HasSubstr("`hf download org/name --revision abc`"));
  std::filesystem::remove_all(download(folder_ / "hub", "models--org--name"));
  EXPECT_THAT(error_of([] { resolve_model("org/name"); }), HasSubstr("`hf download org/name`"));
}

TEST_F(Hub, IncompleteSnapshotsSayHowToDownloadTheRest) {
  const auto snapshot = download(folder_ / "hub", "models--org--name");
  const auto refusal = [] { return error_of([] { resolve_model("org/name"); }); };
  std::filesystem::remove(folder_ / "hub/models--org--name/blobs/model.safetensors");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("lacks model.safetensors"), HasSubstr("download the rest with")));
  std::filesystem::remove(snapshot / "model.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("lacks *.safetensors"));
  put(snapshot / "model.safetensors.index.json",
      R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  put(snapshot / "model-00001-of-00002.safetensors", "x");
  EXPECT_THAT(refusal(), HasSubstr("lacks model-00002-of-00002.safetensors"));
  put(snapshot / "model-00002-of-00002.safetensors", "x");
  EXPECT_EQ(resolve_model("org/name"), snapshot);
  std::filesystem::remove(snapshot / "config.json");
  EXPECT_THAT(refusal(), HasSubstr("lacks config.json"));
}

TEST_F(Hub, PathsThatAreNoHubNames) {
  for (const char* model : {"./name", "../name", "/org/name", "a/b/c", "org/", "org//name", "-a/b", "a/b-",
                            "a/.b", "a/b.", "a--b/c", "a/b..c", "a b/c", "a/b\n", "models/x/", "é/x"})
    EXPECT_THAT(error_of([&] { resolve_model(model); }), HasSubstr("no Hugging Face name")) << model;
  EXPECT_THAT(error_of([] { resolve_model(""); }), HasSubstr("empty"));
  EXPECT_THROW(resolve_model(std::string("a/b\0", 4)), Error);
  EXPECT_THROW(resolve_model(std::string(10000, 'a')), Error);
}

TEST_F(Hub, FilesAreNoModels) {
  put(folder_ / "model.gguf", "x");
  EXPECT_THAT(error_of([&] { resolve_model((folder_ / "model.gguf").string()); }), HasSubstr("is a file"));
}

TEST_F(Hub, RevisionsDoNotLeaveTheCache) {
  download(folder_ / "hub", "models--org--name");
  put(folder_ / "hub/secret", "snapshot");
  for (const char* revision :
       {"", "..", "../../secret", "/etc/passwd", "a/../b", "a//b", ".", "a b", "$(x)", "a\nb"})
    EXPECT_THAT(error_of([&] { resolve_model(std::string("org/name@") + revision); }),
                HasSubstr("is no revision"))
        << revision;
  for (const char* ref : {"../../..", "/etc", "", "a/b"}) {
    put(folder_ / "hub/models--org--name/refs/main", ref);
    EXPECT_THAT(error_of([] { resolve_model("org/name"); }), HasSubstr("which is no commit")) << ref;
  }
}

}  // namespace
}  // namespace nibble::io
