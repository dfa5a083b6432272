#include "measure/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "support/damage.h"
#include "support/temp_folder.h"

namespace nibble::measure {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Stopped {};

class Journals : public testing::Test {
 protected:
  std::vector<data::Item> items() const {
    const std::vector<std::string> files = {NIBBLE_ROOT "/pictures/calibration/samples.jsonl"};
    auto samples = data::read_samples(files);
    samples.resize(2);
    data::Sample& text = samples.emplace_back();
    text.id = "text";
    text.plain = true;
    text.text = "The quick brown fox jumps over the lazy dog.";
    return data::make_items(samples, data::PromptMaker(binding_), 2048);
  }

  Journal::Options often() {
    return {.seconds = 0, .tell = [this](const std::string& line) { told_ += line + "\n"; }};
  }

  model::Binding binding_{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  run::Weights weights_{binding_, kernels::Compute::f32};
  run::Runner runner_{weights_};
  test::TempFolder folder_;
  const fs::path target_ = folder_ / "out.json";
  const io::JobKey key_{{{"another thing", "1"}}};
  std::string told_;
};

TEST_F(Journals, AWalkThatStopsAfterEveryStepComesToTheSameBits) {
  const auto all = items();
  Walk whole(runner_, all);
  const Matrix expected = answers_of(whole, nullptr, "");
  std::vector<size_t> steps;
  while (true) {
    Journal journal(target_, key_, often());
    Walk walk(runner_, all);
    // The first step of each run is saved; the second one comes to nothing.
    size_t count = 0;
    const auto seen = [&](size_t step) {
      if (++count == 2) throw Stopped();
      steps.push_back(step);
    };
    try {
      const Matrix found =
          walk.answers(walk_through(walk, {.journal = &journal, .walk = "w#1"}, {.after = seen}));
      EXPECT_TRUE(std::equal(found.data(), found.data() + found.rows() * found.cols(), expected.data()));
      EXPECT_EQ(walk.rows(), whole.rows());
      journal.finish();
      break;
    } catch (const Stopped&) {
      ASSERT_LT(steps.size(), whole.steps().size());
    }
  }
  ASSERT_EQ(steps.size(), whole.steps().size());
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i], i);
  EXPECT_THAT(told_, HasSubstr("going on where an interrupted run stopped: w, after block 3 of 15"));
  EXPECT_FALSE(fs::exists(folder_ / "out.json.progress"));
}

TEST_F(Journals, ResultsComeBackAsTheyWere) {
  const std::vector<double> numbers = {0.1, -0.0, std::numeric_limits<double>::infinity(), 5e-324};
  const Matrix matrix = Matrix::zeros(2, 3);
  {
    Journal journal(target_, key_, often());
    journal.keep("numbers", bits_of(numbers));
    journal.keep("matrix", matrix);
    journal.save();
    journal.keep("later", 1);
    EXPECT_THROW(Journal(target_, key_, often()), Error) << "another run works on it";
  }
  Journal journal(target_, key_, often());
  ASSERT_TRUE(journal.find("numbers"));
  EXPECT_EQ(numbers_of(*journal.find("numbers")), numbers);
  ASSERT_TRUE(journal.find_matrix("matrix"));
  EXPECT_EQ(journal.find_matrix("matrix")->cols(), 3);
  EXPECT_FALSE(journal.find("later")) << "it was not saved";
  EXPECT_FALSE(journal.take("w"));
}

TEST_F(Journals, SharedStatesComeBackShared) {
  const auto all = items();
  Walk walk(runner_, all);
  const States a = walk.start(), other = walk.start();
  States b = a;
  b.parts[0] = other.parts[0];
  {
    Journal journal(target_, key_, often());
    journal.pass("w", 1, 2, std::vector<const States*>{&a, &b});
  }
  const auto place = Journal(target_, key_, often()).take("w");
  ASSERT_TRUE(place);
  EXPECT_NE(place->states[0].parts[0], place->states[1].parts[0]);
  EXPECT_EQ(place->states[0].parts[1], place->states[1].parts[1]);
}

TEST_F(Journals, AnotherKeyOrADamagedFileBeginsAnew) {
  const auto save = [&] {
    Journal journal(target_, key_, often());
    journal.keep("number", 1);
    journal.keep("matrix", Matrix::zeros(2, 3));
    journal.save();
  };
  save();
  {
    Journal journal(target_, {{{"another thing", "2"}}}, often());
    EXPECT_FALSE(journal.find("number"));
    EXPECT_THAT(told_,
                HasSubstr("an interrupted run left another thing; it is removed, and the work begins anew"));
  }
  EXPECT_FALSE(fs::exists(folder_ / "out.json.progress")) << "nothing was saved";
  save();
  const fs::path state = folder_ / "out.json.progress/.nibble-state";
  fs::resize_file(state, fs::file_size(state) - 1);
  {
    Journal journal(target_, key_, often());
    EXPECT_FALSE(journal.find("number"));
    EXPECT_THAT(told_, HasSubstr("a state that cannot be read"));
  }
  save();
  const io::SafetensorsFile file(state);
  test::flip_bit(state, file.tensors().at("matrix").begin + 5);
  Journal journal(target_, key_, often());
  EXPECT_FALSE(journal.find("number"));
  EXPECT_FALSE(journal.find_matrix("matrix"));
  EXPECT_THAT(told_, HasSubstr("a damaged state"));
}

}  // namespace
}  // namespace nibble::measure
