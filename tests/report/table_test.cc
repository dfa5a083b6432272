// Tables as text and as Markdown.
#include "report/table.h"

#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "base/error.h"

namespace nibble::report {
namespace {

Table sample() {
  Table table({{"name"}, {"size", Align::right}, {"reason"}});
  table.add_row({"q", "1.5 MiB", "error 0.41 on vision, rank 3 of 98 groups"});
  table.add_row({"a longer name", "7 B"});
  return table;
}

TEST(Table, AlignsColumns) {
  EXPECT_EQ(sample().to_text(),
            "name              size  reason\n"
            "-------------  -------  -----------------------------------------\n"
            "q              1.5 MiB  error 0.41 on vision, rank 3 of 98 groups\n"
            "a longer name      7 B\n");
}

TEST(Table, WrapsTheLastColumn) {
  EXPECT_EQ(sample().to_text(44),
            "name              size  reason\n"
            "-------------  -------  --------------------\n"
            "q              1.5 MiB  error 0.41 on\n"
            "                        vision, rank 3 of 98\n"
            "                        groups\n"
            "a longer name      7 B\n");
  EXPECT_EQ(sample().to_text(1000), sample().to_text());
  EXPECT_EQ(sample().to_text(1), sample().to_text(24 + 16));
}

TEST(Table, WrapsColumnsThatHaveALimit) {
  Table table({{"a", Align::left, 5}, {"b", Align::right}});
  table.add_row({"ab cd ef", "1"});
  table.add_row({"abcdefgh", "22"});
  EXPECT_EQ(table.to_text(),
            "a       b\n"
            "-----  --\n"
            "ab cd   1\n"
            "ef\n"
            "abcde  22\n"
            "fgh\n");
}

TEST(Table, WithoutAHead) {
  Table table({{""}, {"", Align::right}});
  EXPECT_EQ(table.to_text(), "");
  table.add_row({"x", "1"});
  table.add_row({"yy", "10"});
  EXPECT_EQ(table.to_text(), "x    1\nyy  10\n");
  EXPECT_EQ(table.to_markdown(), "|  |  |\n| --- | ---: |\n| x | 1 |\n| yy | 10 |\n");
}

TEST(Table, NoLineIsWiderThanAsked) {
  std::mt19937_64 generator(1);
  for (int trial = 0; trial < 300; ++trial) {
    Table table({{"head"}, {"text"}});
    std::string words;
    for (uint64_t i = generator() % 40; i > 0; --i) {
      for (uint64_t j = generator() % 30; j > 0; --j) words += generator() % 5 ? "x" : "\xe7\x94\xbb";
      words += ' ';
    }
    table.add_row({"key", words});
    const auto width = static_cast<int64_t>(22 + generator() % 60);
    std::istringstream lines(table.to_text(width));
    std::string all;
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(display_width(line), width);
      EXPECT_FALSE(line.ends_with(' '));
      all += line.substr(std::min<size_t>(6, line.size()));
    }
    // Nothing but spaces is lost.
    const auto letters = [](std::string text) {
      std::erase(text, ' ');
      return text;
    };
    EXPECT_NE(all.find("text----"), std::string::npos);
    EXPECT_TRUE(letters(all).ends_with(letters(words)));
  }
}

TEST(Table, WidthsOfUtf8) {
  EXPECT_EQ(display_width(""), 0);
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("\xc3\xa9t\xc3\xa9"), 3);                     // e acute, t, e acute
  EXPECT_EQ(display_width("e\xcc\x81"), 1);                             // e and a combining acute
  EXPECT_EQ(display_width("\xe7\x94\xbb\xe5\x83\x8f"), 4);              // two ideographs
  EXPECT_EQ(display_width("\xed\x95\x9c\xe3\x81\x82\xef\xbc\xa1"), 6);  // hangul, hiragana, full-width A
  EXPECT_EQ(display_width("\xf0\x9f\x98\x80"), 2);                      // an emoji
  EXPECT_EQ(display_width("\xe2\x80\xa6\xe2\x82\xac"), 2);              // ellipsis, euro
  Table table({{"a"}, {"b"}});
  table.add_row({"\xe7\x94\xbb", "1"});
  table.add_row({"xyz", "2"});
  EXPECT_EQ(table.to_text(), "a    b\n---  -\n\xe7\x94\xbb   1\nxyz  2\n");
}

TEST(Table, CellsAreSafeToPrint) {
  EXPECT_EQ(one_line("a\nb\tc\r"), "a b c ");
  EXPECT_EQ(one_line("\x1b[31mred\x7f"), "\\x1b[31mred\\x7f");
  EXPECT_EQ(one_line("\xc2\x9b"
                     "31m"),
            "\\x9b31m");  // the one-character form of ESC [
  EXPECT_EQ(one_line(std::string_view("a\0b", 3)), "a\\x00b");
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(one_line("caf\xe9"), "caf" + bad);
  EXPECT_EQ(one_line("\xc0\xaf"), bad + bad);                      // an overlong slash
  EXPECT_EQ(one_line("\xed\xa0\x80"), bad + bad + bad);            // a surrogate
  EXPECT_EQ(one_line("\xf4\x90\x80\x80"), bad + bad + bad + bad);  // above U+10FFFF
  EXPECT_EQ(one_line("\xe7\x94"), bad + bad);                      // cut off
  EXPECT_EQ(one_line("\xef\xbf\xbd\xe7\x94\xbb"), bad + "\xe7\x94\xbb");
  Table table({{"a"}});
  table.add_row({"x\n\x1b[2J"});
  EXPECT_EQ(table.to_text(), "a\n---------\nx \\x1b[2J\n");
}

TEST(Table, AnyBytesMakeWholeLines) {
  std::mt19937_64 generator(2);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string bytes;
    for (uint64_t i = generator() % 60; i > 0; --i) bytes += static_cast<char>(generator() & 0xff);
    const std::string line = one_line(bytes);
    EXPECT_EQ(one_line(line), line);
    for (const char c : line) EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20 || c == 0x7f);
    EXPECT_LE(display_width(line), 2 * static_cast<int64_t>(line.size()));
    Table table({{"a"}});
    table.add_row({bytes});
    EXPECT_NO_THROW(table.to_text(20));
  }
}

TEST(Table, MarkdownEscapesMarkup) {
  Table table({{"a|b"}, {"n", Align::right}});
  table.add_row({"x | y \\| <b> *z* `c` [l](u)\nq_proj", "1"});
  table.add_row({"short"});
  EXPECT_EQ(table.to_markdown(),
            "| a\\|b | n |\n"
            "| --- | ---: |\n"
            "| x \\| y \\\\\\| &lt;b> \\*z\\* \\`c\\` \\[l](u) q_proj | 1 |\n"
            "| short |  |\n");
}

TEST(Table, HtmlEscapesMarkup) {
  Table table({{"a<b"}, {"n", Align::right}});
  table.add_row({"x & <script> \"q\"", "1"});
  table.add_row({"short"});
  EXPECT_EQ(table.to_html(),
            "<table><thead><tr><th>a&lt;b</th><th class=\"right\">n</th></tr>\n"
            "</thead><tbody>\n"
            "<tr><td>x &amp; &lt;script&gt; &quot;q&quot;</td><td class=\"right\">1</td></tr>\n"
            "<tr><td>short</td><td class=\"right\"></td></tr>\n"
            "</tbody></table>\n");
  Table wide({{""}});
  wide.add_row({std::string(33, 'x')});
  EXPECT_EQ(wide.to_html(), "<table><tbody>\n<tr><td class=\"long\">" + std::string(33, 'x') +
                                "</td></tr>\n</tbody></table>\n");
}

TEST(Table, BrokenPromises) {
  EXPECT_THROW(Table({}), InternalError);
  Table table({{"a"}});
  EXPECT_THROW(table.add_row({"1", "2"}), InternalError);
}

}  // namespace
}  // namespace nibble::report
