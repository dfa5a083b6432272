// Rendering against jinja2: goldens of make_jinja_goldens.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "io/json.h"
#include "text/jinja/template.h"

namespace nibble::text::jinja {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

const std::string kGoldens = NIBBLE_ROOT "/tests/text/goldens/";

io::Json golden(const std::string& name) {
  return io::read_json(kGoldens + name);
}

/// The time that the goldens were rendered at: 2024-07-04 09:05:07.000123, a Thursday.
LocalTime golden_time() {
  LocalTime now;
  now.time.tm_year = 124;
  now.time.tm_mon = 6;
  now.time.tm_mday = 4;
  now.time.tm_hour = 9;
  now.time.tm_min = 5;
  now.time.tm_sec = 7;
  now.time.tm_wday = 4;
  now.time.tm_yday = 185;
  now.time.tm_isdst = -1;
  now.microsecond = 123;
  return now;
}

std::string rendered(const std::string& source, const io::Json& context) {
  return Template::parse(source, "template").render(context, {}, golden_time);
}

/// Renders and compares with what the golden says: a text, raise_exception's message, or that it is an error.
void check(const std::string& source, const io::Json& context, const io::Json& expected) {
  std::string text;
  try {
    text = rendered(source, context);
  } catch (const Error& error) {
    if (expected.contains("raised"))
      EXPECT_EQ(error.what(), "template: " + printable(expected["raised"].get<std::string>(), 2000));
    else
      EXPECT_TRUE(expected.contains("error")) << error.what();
    return;
  }
  ASSERT_TRUE(expected.contains("text")) << "should have failed, gave " << text;
  EXPECT_EQ(text, expected["text"].get<std::string>());
}

TEST(Jinja, RendersTemplatesAsTheReference) {
  const io::Json contexts = golden("jinja_contexts.json")["contexts"];
  int cases = 0;
  for (const io::Json& row : golden("jinja_templates.json")) {
    const std::string file = row["template"], context = row["context"];
    SCOPED_TRACE(file + ", " + context);
    check(io::read_file(kGoldens + "jinja/" + file), contexts[context], row);
    ++cases;
  }
  EXPECT_GE(cases, 400);
}

TEST(Jinja, RendersSnippetsAsTheReference) {
  const io::Json context = golden("jinja_contexts.json")["snippets"];
  int cases = 0;
  for (const io::Json& row : golden("jinja_snippets.json")) {
    SCOPED_TRACE(row["source"].dump());
    check(row["source"], context, row);
    ++cases;
  }
  EXPECT_GE(cases, 3000);
}

TEST(Jinja, ThreadsShareATemplate) {
  const auto shared = Template::parse(io::read_file(kGoldens + "jinja/qwen3_thinking.jinja"), "template");
  const io::Json contexts = golden("jinja_contexts.json")["contexts"];
  const std::string expected = shared.render(contexts["calls"]);
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (std::string& text : texts)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) text = shared.render(contexts["calls"]);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(texts, testing::Each(expected));
}

TEST(Jinja, LocalTimeIsNow) {
  const LocalTime now = local_time();
  std::tm time = now.time;
  EXPECT_NEAR(static_cast<double>(std::mktime(&time)), static_cast<double>(std::time(nullptr)), 5);
  EXPECT_GE(now.microsecond, 0);
  EXPECT_LT(now.microsecond, 1'000'000);
}

std::string message_of(const std::string& source, const io::Json& context = io::Json::object()) {
  try {
    return "no error but: " + rendered(source, context);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(JinjaErrors, NameTheTemplateAndTheLine) {
  EXPECT_EQ(message_of("a\n{{ b.c }}"), "template: line 2: 'b' is undefined");
  EXPECT_EQ(message_of("{% set d = {} %}\n\n{{ d.x.y }}"),
            "template: line 3: 'dict object' has no attribute 'x'");
  EXPECT_EQ(message_of("{% macro m(x) %}\n{{ x / 0 }}\n{% endmacro %}\n\n{{ m(1) }}"),
            "template: line 2: division by zero");
  EXPECT_EQ(message_of("{% macro m() %}\n{{ 1 }}\n{% endmacro %}\n{{ m() + 1 }}"),
            "template: line 4: unsupported operand type(s) for +: 'str' and 'int'");
  EXPECT_EQ(message_of("{% for x in 5 %}{% endfor %}"), "template: line 1: 'int' object is not iterable");
  EXPECT_EQ(message_of("\n{{ [1, 2 }}"), "template: line 2: \"}\" closes nothing");
  EXPECT_EQ(message_of("{% if x %}\n\n"),
            "template: line 1: the template ends before a tag that begins here is closed by endif");
  EXPECT_EQ(message_of("{{ raise_exception('Only\none!') }}"), "template: Only\\none!");
}

TEST(JinjaErrors, SayWhatIsNotSupported) {
  for (const std::string tag :
       {"include 'x'", "import 'x' as y", "extends 'x'", "block b", "autoescape true"})
    EXPECT_THAT(message_of("\n{% " + tag + " %}"),
                testing::AllOf(HasSubstr("template: line 2: the tag "),
                               EndsWith("is not supported; --raw takes a prompt as it is")))
        << tag;
  EXPECT_EQ(message_of("{% foo %}"),
            "template: line 1: the tag foo is unknown, or closes nothing; --raw takes a prompt as it is");
  EXPECT_EQ(message_of("\n{{ x|pprint }}"),
            "template: line 2: the filter pprint is not supported; --raw takes a prompt as it is");
  EXPECT_EQ(message_of("{{ x is nosuch }}"),
            "template: line 1: the test nosuch is not supported; --raw takes a prompt as it is");
  EXPECT_EQ(
      message_of("\n{{ 'x'.encode() }}"),
      "template: line 2: the attribute encode of 'str' is not supported; --raw takes a prompt as it is");
  EXPECT_EQ(message_of("{{ self.x }}"),
            "template: line 1: self is not supported; --raw takes a prompt as it is");
  EXPECT_THROW(Template::parse("{{ x|pprint }}", "template"), Error);
  EXPECT_NO_THROW(Template::parse("{% if x %}{{ x|pprint }}{% endif %}", "template"));
}

TEST(JinjaErrors, RefuseWhatPythonWouldPrintByAddress) {
  EXPECT_THAT(message_of("{{ [1]|map('string') }}"), HasSubstr("prints a generator"));
  EXPECT_THAT(message_of("{{ 'x'.upper }}"), HasSubstr("is a call or |list missing?"));
  EXPECT_THAT(message_of("{% for x in [1] %}{{ loop }}{% endfor %}"), HasSubstr("prints loop"));
}

TEST(JinjaErrors, RefuseIntegersBeyond64Bits) {
  EXPECT_EQ(message_of("{{ 9223372036854775807 }}"), "no error but: 9223372036854775807");
  EXPECT_EQ(message_of("{{ -9223372036854775807 - 1 }}"), "no error but: -9223372036854775808");
  for (const std::string source :
       {"9223372036854775808", "9223372036854775807 + 1", "-9223372036854775807 - 2", "2 ** 63",
        "3037000500 * 3037000500", "(-9223372036854775807 - 1) // -1", "-(-9223372036854775807 - 1)",
        "(-9223372036854775807 - 1)|abs", "1e19|int", "'9223372036854775808'|int",
        "9223372036854775807|round(-1)", "x"})
    EXPECT_THAT(message_of("{{ " + source + " }}", {{"x", uint64_t{1} << 63}}), HasSubstr("64 bits"))
        << source;
}

TEST(JinjaErrors, RefuseAContextThatIsNone) {
  EXPECT_THAT(message_of("{{ x }}", io::Json::array()), HasSubstr("the context is no JSON object"));
  EXPECT_THAT(message_of("{{ x }}", {{"x", "\xff"}}), HasSubstr("not UTF-8"));
  EXPECT_THAT(message_of("{{ x }}", {{"x", {{"\xc0\x80", 1}}}}), HasSubstr("not UTF-8"));
  EXPECT_EQ(message_of("{{ x }}", {{"y", "\xff"}}), "no error but: ");  // only what is asked for is read
}

}  // namespace
}  // namespace nibble::text::jinja
