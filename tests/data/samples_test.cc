// samples.jsonl, text jsonl and folders of pictures, as people have them.
#include "data/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "io/temp_folder.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_io::error_of;
using testing_io::put;
using testing_io::TempFolder;

std::vector<Sample> read(const std::vector<std::string>& files) {
  return read_samples(files);
}

TEST(Samples, AllKindsOfLinesInOrder) {
  TempFolder folder;
  put(folder / "images/a.png", "");
  put(folder / "b.jpg", "");
  put(folder / "samples.jsonl",
      R"({"image": "images/a.png", "prompt": "What?", "answer": "This."})"
      "\n\n"
      R"({"images": ["b.jpg", "images/a.png"]})"
      "\r\n"
      "  \t\n"
      R"({"prompt": "Just words", "answer": ""})");  // no newline at the end
  put(folder / "text.jsonl", R"({"text": "Plain."})"
                             "\n");
  const auto samples = read({(folder / "samples.jsonl").string(), (folder / "text.jsonl").string()});
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].id, (folder / "samples.jsonl").string() + ":1");
  EXPECT_EQ(samples[0].text, "What?");
  EXPECT_EQ(samples[0].answer, "This.");
  EXPECT_EQ(samples[0].images, std::vector<fs::path>{folder / "images/a.png"});
  EXPECT_EQ(samples[1].id, (folder / "samples.jsonl").string() + ":3");
  EXPECT_EQ(samples[1].text, kDefaultPrompt);
  EXPECT_FALSE(samples[1].answer.has_value());
  EXPECT_EQ(samples[1].images, (std::vector<fs::path>{folder / "b.jpg", folder / "images/a.png"}));
  EXPECT_TRUE(samples[2].images.empty());
  EXPECT_FALSE(samples[2].plain);
  EXPECT_TRUE(samples[3].plain);
  EXPECT_EQ(samples[3].text, "Plain.");
}

TEST(Samples, AFolderOfPicturesByName) {
  TempFolder folder;
  for (const char* name : {"c.PNG", "a.webp", "b.jpeg", "notes.txt", "d.jpg"}) put(folder / name, "");
  fs::create_directory(folder / "e.png");
  const auto samples = read({folder.path().string()});
  std::vector<std::string> names;
  for (const Sample& s : samples) {
    EXPECT_EQ(s.text, kDefaultPrompt);
    EXPECT_FALSE(s.answer.has_value());
    ASSERT_EQ(s.images.size(), 1u);
    names.push_back(s.images[0].filename());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a.webp", "b.jpeg", "c.PNG", "d.jpg"}));
  EXPECT_TRUE(unread_pictures(std::vector{folder.path().string()}).empty());
  fs::create_symlink(folder / "nowhere", folder / "f.png");
  EXPECT_THAT(error_of([&] { read({folder.path().string()}); }),
              HasSubstr("f.png: is no regular file, or a link that leads nowhere"));
  fs::remove(folder / "f.png");
  put(folder / "f.HEIC", "");
  put(folder / "g.gif", "");
  EXPECT_EQ(unread_pictures(std::vector{folder.path().string()}),
            (std::vector<fs::path>{folder / "f.HEIC", folder / "g.gif"}));
  put(folder / "samples.jsonl", R"({"prompt": "Only this", "id": 7, "promise": "kept"})");
  EXPECT_TRUE(unread_pictures(std::vector{folder.path().string()}).empty()) << "its samples say what is read";
  EXPECT_EQ(read({folder.path().string()}).size(), 1u) << "other keys may be there";
}

TEST(Samples, AFolderWithSamplesIsItsSamples) {
  TempFolder folder;
  put(folder / "a.png", "");
  put(folder / "samples.jsonl", R"({"prompt": "Only this"})");
  const auto samples = read({folder.path().string()});
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_EQ(samples[0].text, "Only this");
}

TEST(Samples, BadInputIsNamedByFileAndLine) {
  TempFolder folder;
  const auto error_of_lines = [&](const std::string& lines) {
    put(folder / "x.jsonl", lines);
    return error_of([&] { read({(folder / "x.jsonl").string()}); });
  };
  EXPECT_THAT(error_of_lines("{\"prompt\": \"a\"}\n{\"prompt\": \n"), HasSubstr("x.jsonl:2: column 12: "))
      << "of lines only the file's is counted";
  EXPECT_THAT(error_of_lines("[1]\n"), HasSubstr("x.jsonl:1"));
  EXPECT_THAT(error_of_lines("{\"question\": \"a\"}\n"),
              AllOf(HasSubstr("x.jsonl:1"), HasSubstr("\"prompt\"")));
  put(folder / "a.png", "");
  for (const char* key : {"promt", "prompts", "pormpt", "Prompt"})
    EXPECT_THAT(error_of_lines("{\"image\": \"a.png\", \"" + std::string(key) + "\": \"a\"}\n"),
                AllOf(HasSubstr("x.jsonl:1: there is a key \"" + std::string(key)),
                      HasSubstr("is \"prompt\" meant")));
  EXPECT_THAT(error_of_lines("{\"imgae\": \"a.png\", \"prompt\": \"a\"}\n"), HasSubstr("is \"image\" meant"));
  EXPECT_THAT(error_of_lines("{\n  \"prompt\": \"a\"\n}\n"), HasSubstr("x.jsonl:1: begins what goes on"));
  EXPECT_THAT(error_of_lines("{\"image\": \"no.png\"}\n"),
              AllOf(HasSubstr("x.jsonl:1"), HasSubstr("no.png")));
  EXPECT_THAT(error_of_lines("{\"images\": [7]}\n"), AllOf(HasSubstr("x.jsonl:1"), HasSubstr("7")));
  EXPECT_THAT(error_of_lines("{\"prompt\": 7}\n"), AllOf(HasSubstr("x.jsonl:1"), HasSubstr("prompt")));
  const std::string too_long(5000, 'n');  // for a name
  EXPECT_THAT(error_of_lines("{\"image\": \"" + too_long + "\"}\n"),
              AllOf(HasSubstr("x.jsonl:1"), HasSubstr("there is no picture")));
  EXPECT_THAT(error_of_lines("{\"image\": [[\"" + too_long + "\"]]}\n"),
              HasSubstr("is an array, not a text"));
  fs::create_symlink("circle.png", folder / "circle.png");
  EXPECT_THAT(error_of_lines("{\"image\": \"circle.png\"}\n"), HasSubstr("there is no picture"));
  fs::create_directory(folder / "folder.png");
  EXPECT_THAT(error_of_lines("{\"image\": \"folder.png\"}\n"),
              AllOf(HasSubstr("x.jsonl:1"), HasSubstr("folder.png is a folder, not a picture")));
  EXPECT_THAT(error_of_lines("{\"prompt\": \"a\"}\n{\"text\": \"" + std::string(16 << 20, 'a') + "\"}\n"),
              AllOf(HasSubstr("x.jsonl:2: the line has 16.0 MiB, more than 16.0 MiB"), HasSubstr("cut it")));
  EXPECT_THAT(error_of_lines("\n  \n"), HasSubstr("holds no samples"));
  EXPECT_THAT(error_of([&] { read({(folder / "none").string()}); }), HasSubstr("no such file or folder"));
  fs::create_directory(folder / "empty");
  EXPECT_THAT(error_of([&] { read({(folder / "empty").string()}); }),
              HasSubstr("neither samples.jsonl nor pictures"));
  EXPECT_THAT(error_of([&] { read({""}); }), HasSubstr("empty"));
  EXPECT_THAT(error_of([&] { read({std::string(300, 'a')}); }), HasSubstr("aaa: cannot look at it"));
  fs::create_symlink("circle.png", folder / "empty" / "circle.png");
  EXPECT_THAT(error_of([&] { read({(folder / "empty").string()}); }),
              HasSubstr("circle.png: cannot look at it"));
}

TEST(Samples, ThoseThatShareAPictureBelongTogether) {
  const auto sample = [](std::string id, std::vector<fs::path> images) {
    Sample out;
    out.id = std::move(id);
    out.images = std::move(images);
    return out;
  };
  const std::vector<Sample> samples = {sample("0", {"a"}),      sample("1", {"b"}),     sample("2", {}),
                                       sample("3", {"c", "b"}), sample("4", {"d"}),     sample("5", {"a"}),
                                       sample("6", {}),         sample("7", {"d", "c"})};
  using Groups = std::vector<std::vector<size_t>>;
  EXPECT_EQ(groups_of(samples), (Groups{{0, 5}, {1, 3, 4, 7}, {2}, {6}}));
  EXPECT_TRUE(groups_of({}).empty());
}

}  // namespace
}  // namespace nibble::data
