// Tables for people: aligned plain text and Markdown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::report {

/// Columns of a terminal that UTF-8 text takes: a code point is one, East Asian wide ones and emoji two,
/// combining marks none. A byte that is no UTF-8 counts as one (it is shown as U+FFFD).
int64_t display_width(std::string_view text);

/// The text as one line that is safe to print: line breaks and tabs become spaces, other control characters
/// are shown as \x1b, and bytes that are no UTF-8 become U+FFFD.
std::string one_line(std::string_view text);

/// one_line() for Markdown: what would be read as markup is escaped.
std::string markdown_text(std::string_view text);

enum class Align { left, right };

struct Column {
  std::string header;
  Align align = Align::left;
  int64_t widest = 0;  // cells wider than this are wrapped at spaces; 0 for no limit
};

/// Rows of cells under headers. Not thread-safe.
class Table {
 public:
  /// A table whose headers are all empty has no head. At least one column.
  explicit Table(std::vector<Column> columns);

  /// Adds a row; missing cells at the end are empty, more cells than columns are a broken promise
  /// (NIBBLE_CHECK).
  void add_row(std::vector<std::string> cells);

  /// Lines of columns two spaces apart, a rule under the head, no spaces at line ends, a newline after each
  /// line. width > 0: the last column is wrapped at spaces (words longer than a line are cut) so that lines
  /// are at most this wide, but it is never narrower than 16.
  std::string to_text(int64_t width = 0) const;

  /// A GitHub table; '|' and what else would be read as markup is escaped. An empty head stays empty.
  std::string to_markdown() const;

  /// A <table> with every text escaped; right-aligned cells have the class "right", those of
  /// other columns with a wide cell the class "long".
  std::string to_html() const;

 private:
  bool has_head() const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace nibble::report
