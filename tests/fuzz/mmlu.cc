// CSV files of multiple choice. Input: the questions, a NUL byte, the worked examples (the questions again
// where nothing follows).
#include "data/mmlu.h"

#include "fuzz/fuzz.h"
#include "support/temp_folder.h"

using namespace nibble;
namespace fs = std::filesystem;

namespace {

/// A folder whose two files lie in memory.
struct Folder {
  test::TempFolder folder;
  fuzz::MemoryFile questions, examples;

  Folder() {
    fs::create_directory(folder / "test");
    fs::create_directory(folder / "dev");
    fs::create_symlink(questions.path(), folder / "test/a_test.csv");
    fs::create_symlink(examples.path(), folder / "dev/a_dev.csv");
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Folder files;
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view questions = fuzz::take_text(rest);
  files.questions.set(questions);
  files.examples.set(rest.empty() ? questions : rest);
  fuzz::accepts([&] {
    for (const data::ChoiceSubject& subject : data::read_mmlu(files.folder.path(), {}))
      for (const data::ChoiceRow& row : subject.questions) {
        NIBBLE_CHECK(row.line > 0 && row.answer < row.options.size());
        NIBBLE_CHECK(!data::mmlu_prompt(subject, row, subject.examples.size()).empty());
      }
  });
  return 0;
}
