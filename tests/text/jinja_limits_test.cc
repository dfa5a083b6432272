// Hostile templates: every one ends in an error, soon, and none in a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/json.h"
#include "text/jinja/template.h"

namespace nibble::text::jinja {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& source, const Limits& limits = {},
                       const io::Json& context = io::Json::object()) {
  try {
    return "no error but " +
           std::to_string(Template::parse(source, "t", limits).render(context, limits).size()) + " bytes";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string repeated(const std::string& part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += part;
  return text;
}

TEST(JinjaLimits, EachHasItsError) {
  const std::string loops =
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(message_of(std::string(size_t{2} << 20, ' ')),
              HasSubstr("the template has 2.00 MiB, more than 1.00 MiB"));
  EXPECT_THAT(message_of("\n" + loops), HasSubstr("t: line 2: takes more than 20000000 steps"));
  EXPECT_THAT(message_of("{{ 'a' * 10 ** 9 }}"), HasSubstr("makes a string of more than 32.0 MiB"));
  EXPECT_THAT(message_of("{{ [1] * 10 ** 9 }}"), HasSubstr("makes a list of more than 1000000 items"));
  EXPECT_THAT(message_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
              HasSubstr("nests calls and expressions deeper than 2000 levels"));
  EXPECT_THAT(message_of("{{ " + repeated("(", 10000) + "1" + repeated(")", 10000) + " }}"),
              HasSubstr("is nested deeper than 300 levels"));
  EXPECT_THAT(message_of("{% set s = 'a' * 2 ** 24 %}{% set n = namespace(l=[]) %}"
                         "{% for i in range(100) %}{% set n.l = n.l + [s ~ i] %}{% endfor %}"),
              HasSubstr("needs more than 512 MiB of memory"));
  EXPECT_THAT(
      message_of("{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = [n.l] %}{% endfor %}"),
      HasSubstr("nests lists and dicts deeper than 200 levels"));
  EXPECT_THAT(message_of("{% set s = 'a' * 2 ** 23 %}{% for i in range(9) %}{{ s }}{% endfor %}"),
              HasSubstr("makes a string of more than 32.0 MiB"));
}

TEST(JinjaLimits, AreTheCallers) {
  Limits limits;
  limits.steps = 1000;
  EXPECT_THAT(message_of("{% for i in range(10) %}{{ i }}{% endfor %}", limits), HasSubstr("no error"));
  EXPECT_THAT(message_of("{% for i in range(1000) %}{{ i }}{% endfor %}", limits), HasSubstr("1000 steps"));
  limits = {};
  limits.text_bytes = 100;
  EXPECT_THAT(message_of(repeated("a", 100), limits), HasSubstr("no error"));
  EXPECT_THAT(message_of(repeated("a", 101), limits), HasSubstr("a string of more than 100 B"));
  limits = {};
  limits.items = 10;
  EXPECT_THAT(message_of("{{ range(10)|list }}", limits), HasSubstr("no error"));
  EXPECT_THAT(message_of("{{ range(11)|list }}", limits), HasSubstr("more than 10 items"));
  limits = {};
  limits.recursion = 50;
  EXPECT_THAT(
      message_of("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(20) }}", limits),
      HasSubstr("deeper than 50 levels"));
}

/// Templates that each try to take time or memory in a way of their own.
std::vector<std::string> hostile() {
  const std::string big = "{% set s = 'a' * 10 ** 7 %}", list = "{% set l = [0] * 10 ** 6 %}";
  const std::string forever = "{% for i in range(100000) %}", end = "{% endfor %}";
  std::vector<std::string> all = {
      big + "{% set p = 'a' * 5000000 ~ 'b' %}" + forever + "{{ s.find(p) }}" + end,
      big + "{% set p = 'b' ~ 'a' * 5000000 %}" + forever + "{{ s.rfind(p) }}{{ s.rsplit(p)|length }}" + end,
      big + "{{ s.replace('a', s) }}",
      big + "{{ s.replace('', s) }}",
      big + "{{ s.join(s) }}",
      big + "{{ s|list|length }}",
      big + forever + "{% if s == s ~ '' %}{% endif %}" + end,
      big + forever + "{{ s[5000000] }}" + end,
      big + forever + "{{ s|upper|length }}" + end,
      big + "{% set u = 'é' * 10 ** 6 %}" + forever + "{{ u[999999] }}" + end,
      big + "{{ s.strip('b' * 10 ** 7 ~ 'a') }}" + forever + "{{ s.count('a') }}" + end,
      big + "{% set d = {s: 1} %}" + forever + "{{ d[s] }}" + end,
      list + forever + "{% if l == [0] * 10 ** 6 %}{% endif %}" + end,
      list + forever + "{{ l|sum }}" + end,
      list + forever + "{{ l[1:]|length }}" + end,
      list + forever + "{{ 1 in l }}" + end,
      list + "{{ l|sort|unique|list }}" + forever + "{{ l|sort }}" + end,
      list + "{{ l|join('a' * 1000) }}",
      list + "{{ l|batch(1)|list|batch(1)|list|tojson(indent=1000000) }}",
      "{% set n = namespace(l=[1]) %}{% for i in range(50) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
      "{% set n = namespace(l=[1]) %}{% for i in range(50) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l == "
      "[n.l[0]] + [n.l[1]] }}{{ n.l|tojson }}",
      "{% set n = namespace(l=(1,)) %}{% for i in range(50) %}{% set n.l = (n.l, n.l) %}{% endfor %}{{ {n.l: "
      "1} }}",
      "{% set n = namespace(g=[1]) %}" + forever + "{% set n.g = n.g|map('string') %}" + end +
          "{{ n.g|list }}",
      "{% set n = namespace() %}{% set n.n = n %}" + forever + "{% set n.n = namespace(n=n.n) %}" + end +
          "{{ n }}",
      forever + "{% set n = namespace() %}{% set n.n = n %}" + forever + "{% set n = namespace(n=n) %}" +
          end + end,
      forever + "{% macro m() %}{{ caller() }}{% endmacro %}" + forever + "{% call m() %}{% endcall %}" +
          end + end,
      "{% macro m(s) %}{{ s }}{{ m(s ~ s) }}{% endmacro %}{{ m('a') }}",
      "{% macro m() %}{{ 'a' * 30000000 }}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '%.1000000000f' % 1 }}",
      "{{ '%*d' % (10 ** 18, 1) }}",
      "{{ '%.99999999999999999999d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ '{:.1000000000f}'.format(1) }}",
      "{{ '{:>99999999999999999999}'.format(1) }}",
      "{{ '{:010000000,}'.format(1) }}",
      "{{ 'a'.center(10 ** 18) }}",
      "{{ 'a'.ljust(10 ** 10, 'é') }}",
      "{{ 'a'.zfill(10 ** 12) }}",
      "{{ '\\t'.expandtabs(10 ** 12) }}",
      "{{ 'a'|indent(10 ** 12) }}",
      "{{ 'a'|center(10 ** 12) }}",
      "{{ [1]|tojson(indent=10 ** 12) }}",
      "{{ [1]|batch(10 ** 12, 0)|list }}",
      "{{ [1]|slice(10 ** 12)|list }}",
      "{{ strftime_now('%A' * 1000000) }}",
      "{{ 10 ** 10 ** 10 }}",
      "{{ (-1) ** (10 ** 18) }}{{ 2 ** (10 ** 18) }}",
      "{{ range(10 ** 9)|list }}",
      "{{ [0] * 10 ** 18 }}",
      "{{ '" + repeated("%", 100000) + "' % 1 }}",
      "{{ '" + repeated("{", 100001) + "'.format(1) }}",
      "{{ '{0" + repeated(".real", 10000) + "}'.format(1) }}" + forever + "{{ 1 }}" + forever + end + end,
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ x" + repeated(".y", 100000) + " }}",
      "{{ x" + repeated("|e", 100000) + " }}",
      "{{ x" + repeated("()", 100000) + " }}",
      "{{ 1" + repeated(" if 1", 100000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 50000) + " }}",
      "{{ " + repeated("[", 100000),
      "{{ " + repeated("{1:", 100000),
      repeated("{% if 1 %}", 50000),
      repeated("{% for i in [1] %}", 50000),
      "{{ 1" + repeated(" ** 1", 100000) + " }}",
      "{{ 1" + repeated(" and 1", 100000) + " }}",
      "{{ 1 is eq " + repeated("(", 10000),
      repeated("{{ (", 10000),
      repeated("{%", 10000),
      repeated("{#", 10000) + "a",
      "{{ x[" + repeated("x[", 50000),
      "{% set " + repeated("(", 10000) + "x" + repeated(",)", 10000) + " = 1 %}",
      "{% macro m(" + repeated("a=m(", 10000),
  };
  return all;
}

TEST(JinjaLimits, HostileTemplatesEndSoon) {
  Limits limits;
  limits.steps /= 10;  // the same errors ten times as soon
  for (const std::string& source : hostile()) {
    SCOPED_TRACE(source.substr(0, 200));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(message_of(source, limits), testing::StartsWith("t: "));
    // Less than a second; a machine under load or a sanitizer may be far slower.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  }
}

TEST(JinjaLimits, LongChainsOfUsualLengthPass) {
  EXPECT_THAT(message_of("{{ 1" + repeated(" + 1", 200) + " }}"), HasSubstr("no error but 3 bytes"));
  EXPECT_THAT(message_of("{{ 'a'" + repeated(" ~ 'a'", 5000) + " }}"), HasSubstr("no error but 5001 bytes"));
  EXPECT_THAT(message_of("{% if 0 %}" + repeated("{% elif 0 %}", 5000) + "{% else %}a{% endif %}"),
              HasSubstr("no error but 1 bytes"));
  EXPECT_THAT(message_of("{{ " + repeated("(", 70) + "1" + repeated(")", 70) + " }}"),
              HasSubstr("no error but 1 bytes"));
  EXPECT_THAT(message_of("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(150) }}"),
              HasSubstr("no error but 0 bytes"));
  EXPECT_THAT(message_of("{% set n = namespace(s='') %}{% for i in range(1000) %}{% set n.s = n.s ~ 'a' * "
                         "1000 %}{% endfor %}{{ n.s }}"),
              HasSubstr("no error but 1000000 bytes"));
}

/// Bytes that look like a template: pieces of the syntax, letters, and any bytes at all.
std::string noise(std::mt19937& random) {
  static const std::vector<std::string> pieces = {"{{",
                                                  "}}",
                                                  "{%",
                                                  "%}",
                                                  "{#",
                                                  "#}",
                                                  "-",
                                                  "+",
                                                  " ",
                                                  "\n",
                                                  "for",
                                                  "in",
                                                  "if",
                                                  "else",
                                                  "elif",
                                                  "endif",
                                                  "endfor",
                                                  "set",
                                                  "endset",
                                                  "macro",
                                                  "endmacro",
                                                  "call",
                                                  "endcall",
                                                  "filter",
                                                  "endfilter",
                                                  "with",
                                                  "endwith",
                                                  "raw",
                                                  "endraw",
                                                  "generation",
                                                  "endgeneration",
                                                  "break",
                                                  "continue",
                                                  "x",
                                                  "y",
                                                  "loop",
                                                  "1",
                                                  "2.5",
                                                  "'a'",
                                                  "\"",
                                                  "'",
                                                  "\\",
                                                  "(",
                                                  ")",
                                                  "[",
                                                  "]",
                                                  "{",
                                                  "}",
                                                  ",",
                                                  ":",
                                                  ".",
                                                  "|",
                                                  "=",
                                                  "==",
                                                  "*",
                                                  "**",
                                                  "//",
                                                  "%",
                                                  "~",
                                                  "is",
                                                  "not",
                                                  "and",
                                                  "or",
                                                  "none",
                                                  "true",
                                                  "upper",
                                                  "list",
                                                  "map",
                                                  "recursive",
                                                  "é",
                                                  "\xff",
                                                  "\x80",
                                                  "\xed\xa0\x80",
                                                  "%d",
                                                  "\xf0\x9f\x98\x80",
                                                  "caller",
                                                  "namespace",
                                                  "range"};
  std::string text;
  const size_t count = 1 + random() % 40;
  for (size_t i = 0; i < count; ++i) {
    text += pieces[random() % pieces.size()];
    if (random() % 2 != 0) text += ' ';
    if (random() % 200 == 0) text += static_cast<char>(random() % 256);
  }
  return text;
}

TEST(JinjaLimits, NoBytesCrash) {
  std::mt19937 random(1);
  const io::Json context = {{"x", {1, "a", {{"k", nullptr}}}}, {"y", "aé"}};
  int failed = 0, passed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string source = noise(random);
    if (i % 2 != 0) source = "{{ " + source + " }}";
    try {
      Template::parse(source, "t").render(context);
      ++passed;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("t: ")) << source;
      ++failed;
    }
  }
  EXPECT_GT(failed, 10000);
  EXPECT_GT(passed, 100);
}

}  // namespace
}  // namespace nibble::text::jinja
