#include <limits>

#include "io/json.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;
using testing::HasSubstr;

const std::string kPath = "models/x/config.json";

class FieldsTest : public testing::Test {
 protected:
  Json json_ = parse_json(R"({"depth": 32, "four": 4.0, "half": 0.5, "name": "six", "yes": true, "none": null,
                              "list": [1, 2], "nothing": [], "vision_config": {"depth": "six", "deep": {"n": -1}},
                              "minus": -3, "zero": 0, "big": 18446744073709551615, "huge": 1e300,
                              "limit": 9223372036854775807})",
                          kPath);
  Fields fields_{json_, kPath};
};

TEST_F(FieldsTest, ReadsEveryType) {
  EXPECT_EQ(fields_.integer("depth"), 32);
  EXPECT_EQ(fields_.integer("four"), 4);
  EXPECT_EQ(fields_.integer("minus"), -3);
  EXPECT_EQ(fields_.integer("limit"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(fields_.number("half"), 0.5);
  EXPECT_EQ(fields_.number("depth"), 32.0);
  EXPECT_EQ(fields_.boolean("yes"), true);
  EXPECT_EQ(fields_.string("name"), "six");
  EXPECT_EQ(fields_.array("list").size(), 2u);
  EXPECT_EQ(fields_.object("vision_config").object("deep").integer("n"), -1);
  EXPECT_EQ(fields_.dimension("depth"), 32);
}

TEST_F(FieldsTest, HasIsPresentAndNotNull) {
  EXPECT_TRUE(fields_.has("depth"));
  EXPECT_TRUE(fields_.has("zero"));
  EXPECT_FALSE(fields_.has("none"));
  EXPECT_FALSE(fields_.has("missing"));
}

TEST_F(FieldsTest, DefaultsStandInForMissingAndNullOnly) {
  EXPECT_EQ(fields_.integer("missing", 7), 7);
  EXPECT_EQ(fields_.integer("none", 7), 7);
  EXPECT_EQ(fields_.integer("depth", 7), 32);
  EXPECT_EQ(fields_.number("missing", 1.5), 1.5);
  EXPECT_EQ(fields_.boolean("missing", true), true);
  EXPECT_EQ(fields_.string("missing", "x"), "x");
  EXPECT_EQ(fields_.dimension("missing", 5, 10), 5);
  EXPECT_THROW(fields_.integer("name", 7), Error);
  EXPECT_THROW(fields_.number("name", 7), Error);
  EXPECT_THROW(fields_.boolean("depth", true), Error);
  EXPECT_THROW(fields_.string("depth", "x"), Error);
}

TEST_F(FieldsTest, ErrorsNameFileFieldAndValue) {
  EXPECT_EQ(error_of([&] { fields_.object("vision_config").integer("depth"); }),
            "models/x/config.json: vision_config.depth is \"six\", not a whole number");
  EXPECT_EQ(error_of([&] { fields_.object("vision_config").object("deep").string("n"); }),
            "models/x/config.json: vision_config.deep.n is -1, not a string");
  EXPECT_EQ(error_of([&] { fields_.integer("missing"); }),
            "models/x/config.json: missing is missing; it must be a whole number");
  EXPECT_EQ(error_of([&] { fields_.integer("none"); }),
            "models/x/config.json: none is null; it must be a whole number");
  EXPECT_EQ(error_of([&] { fields_.integer("half"); }),
            "models/x/config.json: half is 0.5, not a whole number");
  EXPECT_EQ(error_of([&] { fields_.integer("list"); }),
            "models/x/config.json: list is an array, not a whole number");
  EXPECT_EQ(error_of([&] { fields_.array("vision_config"); }),
            "models/x/config.json: vision_config is an object, not an array");
  EXPECT_EQ(error_of([&] { fields_.object("name"); }),
            "models/x/config.json: name is \"six\", not an object");
  EXPECT_EQ(error_of([&] { fields_.boolean("depth"); }),
            "models/x/config.json: depth is 32, not true or false");
}

TEST_F(FieldsTest, NumbersThatDoNotFitAreRefused) {
  EXPECT_THROW(fields_.integer("big"), Error);
  EXPECT_THROW(fields_.integer("huge"), Error);
  EXPECT_THROW(fields_.integer("yes"), Error);
  EXPECT_THROW(fields_.number("yes"), Error);
  EXPECT_THROW(fields_.dimension("zero"), Error);
  EXPECT_THROW(fields_.dimension("minus"), Error);
  EXPECT_THROW(fields_.dimension("limit"), Error);
  EXPECT_EQ(error_of([&] { fields_.dimension("depth", 31); }),
            "models/x/config.json: depth is 32; it must lie between 1 and 31");
  EXPECT_THROW(fields_.dimension("missing", 0, 10), Error);
  EXPECT_THROW(fields_.dimension("missing", 11, 10), Error);
}

TEST(Fields, NeedsAnObject) {
  for (const char* text : {"[]", "3", "null", "\"x\""})
    EXPECT_THAT(error_of([&] { Fields(parse_json(text, kPath), kPath); }), HasSubstr("not an object"))
        << text;
}

TEST(Fields, AWhatWithAFieldIsContinued) {
  const Json json = Json::object();
  EXPECT_EQ(error_of([&] { Fields(json, kPath + ": vision_config").integer("depth"); }),
            "models/x/config.json: vision_config.depth is missing; it must be a whole number");
  EXPECT_EQ(error_of([&] { Fields(json, "odd: folder/config.json").integer("depth"); }),
            "odd: folder/config.json: depth is missing; it must be a whole number");
}

TEST(Fields, LongValuesAreCut) {
  const Json json = {{"a", std::string(100000, 'x')}};
  EXPECT_LT(error_of([&] { Fields(json, "x").integer("a"); }).size(), 150u);
}

}  // namespace
}  // namespace nibble::io
