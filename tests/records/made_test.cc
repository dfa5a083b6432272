// nibble.json of a written checkpoint.
#include "records/made.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "records/sample_records.h"

namespace nibble::records {
namespace {

using ::testing::HasSubstr;

template <typename F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Made, ReadsWhatItWrites) {
  const Made made{.version = "0.1.0",
                  .command = "nibble quantize 'a b'",
                  .tensor_bytes = 123,
                  .plan = testing::sample_plan(),
                  .weight_errors = {{"a", 0.1 + 0.2}},
                  .sha256 = {{"a.weight", "00ff"}, {"b", ""}},
                  .files = {{{"config.json", "11"}, {"tokenizer.json", "22"}}}};
  EXPECT_EQ(made_from_json(to_json(made), "x"), made);
  io::Json json = to_json(made);
  json["plan"]["family"] = 4;
  EXPECT_THAT(error_of([&] { made_from_json(json, "nibble.json"); }),
              ::testing::AllOf(HasSubstr("nibble.json"), HasSubstr("family")));
  json = to_json(made);
  json["sha256"]["b"] = 1;
  EXPECT_THAT(error_of([&] { made_from_json(json, "nibble.json"); }),
              HasSubstr("the entry of b is no string"));
  json = to_json(made);
  json["weight_errors"]["a"] = nullptr;
  EXPECT_THAT(error_of([&] { made_from_json(json, "nibble.json"); }),
              HasSubstr("the entry of a is no number"));
  for (const char* name : {"../x", ".hidden", ""}) {
    json = to_json(made);
    json["files"][name] = "11";
    EXPECT_THAT(error_of([&] { made_from_json(json, "nibble.json"); }),
                HasSubstr("is no file of this folder"));
  }
  json.erase("plan");
  EXPECT_THAT(error_of([&] { made_from_json(json, "nibble.json"); }), HasSubstr("plan"));
}

TEST(Made, OlderRecordsHaveNoFiles) {
  Made made{
      .version = "0.1.0", .command = "", .tensor_bytes = 0, .plan = testing::sample_plan(), .files = {{}}};
  EXPECT_EQ(made_from_json(to_json(made), "x").files, made.files);
  io::Json json = to_json(made);
  json.erase("files");
  EXPECT_EQ(made_from_json(json, "x").files, std::nullopt);
}

}  // namespace
}  // namespace nibble::records
