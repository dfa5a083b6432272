#include "report/table.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "report/html.h"

namespace nibble::report {
namespace {

constexpr char32_t kReplacement = 0xfffd;
constexpr int64_t kNarrowest = 16;  // of a last column that is wrapped
constexpr int64_t kGap = 2;         // spaces between columns
constexpr int64_t kLong = 32;       // of a cell that HTML keeps from getting narrow

struct Range {
  char32_t first, last;
};

/// Blocks of East Asian wide characters and emoji (Unicode's EastAsianWidth W and F, by block).
constexpr std::array<Range, 11> kWide = {{{0x1100, 0x115f},
                                          {0x2e80, 0x303e},
                                          {0x3041, 0xa4cf},
                                          {0xa960, 0xa97f},
                                          {0xac00, 0xd7a3},
                                          {0xf900, 0xfaff},
                                          {0xfe30, 0xfe6f},
                                          {0xff00, 0xff60},
                                          {0xffe0, 0xffe6},
                                          {0x1f300, 0x1f9ff},
                                          {0x20000, 0x3fffd}}};

/// Blocks of characters that take no column: combining marks, joiners and direction marks, variation
/// selectors.
constexpr std::array<Range, 6> kNarrow = {{{0x300, 0x36f},
                                           {0x1ab0, 0x1aff},
                                           {0x200b, 0x200f},
                                           {0x20d0, 0x20ff},
                                           {0xfe00, 0xfe0f},
                                           {0xfe20, 0xfe2f}}};

template <size_t N>
bool in_ranges(char32_t c, const std::array<Range, N>& ranges) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [c](const Range& r) { return c >= r.first && c <= r.last; });
}

int64_t width_of(char32_t c) {
  return in_ranges(c, kNarrow) ? 0 : in_ranges(c, kWide) ? 2 : 1;
}

/// A code point and the bytes it was read from; U+FFFD and one byte where the text is no UTF-8.
struct Decoded {
  char32_t c;
  size_t size;
};

Decoded decode(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t size = lead >= 0xf0 && lead <= 0xf4  ? 4
                      : lead >= 0xe0 && lead < 0xf0 ? 3
                      : lead >= 0xc2 && lead < 0xe0 ? 2
                                                    : 0;
  if (size == 0 || text.size() < size) return {kReplacement, 1};
  char32_t c = lead & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0u) != 0x80) return {kReplacement, 1};
    c = (c << 6) | (byte(i) & 0x3fu);
  }
  constexpr std::array<char32_t, 5> smallest = {0, 0, 0x80, 0x800, 0x10000};
  if (c < smallest[size] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return {kReplacement, 1};
  return {c, size};
}

/// The bytes of the longest start of the text that is at most `width` wide; at least one code point.
size_t prefix_of_width(std::string_view text, int64_t width) {
  size_t end = 0;
  int64_t used = 0;
  while (end < text.size()) {
    const Decoded next = decode(text.substr(end));
    used += width_of(next.c);
    if (end > 0 && used > width) break;
    end += next.size;
  }
  return end;
}

/// The text cut at spaces into lines of at most `width`; words longer than a line are cut. At least one line.
std::vector<std::string> wrap(std::string_view text, int64_t width) {
  std::vector<std::string> lines;
  while (display_width(text) > width) {
    size_t end = prefix_of_width(text, width);
    size_t next = end;
    if (end < text.size() && text[end] != ' ') {
      const size_t space = text.rfind(' ', end - 1);
      if (space != std::string_view::npos && text.find_first_not_of(' ') < space) end = next = space;
    }
    while (next < text.size() && text[next] == ' ') ++next;
    std::string_view line = text.substr(0, end);
    line = line.substr(0, line.find_last_not_of(' ') + 1);
    lines.emplace_back(line);
    text.remove_prefix(next);
  }
  if (!text.empty() || lines.empty()) lines.emplace_back(text);
  return lines;
}

/// The lines of each cell of a row.
using CellLines = std::vector<std::vector<std::string>>;

/// The widest line of each column.
std::vector<int64_t> widths_of(const std::vector<CellLines>& rows, size_t columns) {
  std::vector<int64_t> widths(columns, 0);
  for (const auto& row : rows)
    for (size_t c = 0; c < columns; ++c)
      for (const auto& line : row[c]) widths[c] = std::max(widths[c], display_width(line));
  return widths;
}

/// Puts the cells beside each other, as many lines as the highest of them has.
void append_row(const CellLines& row, const std::vector<Column>& columns, const std::vector<int64_t>& widths,
                std::string& text) {
  size_t height = 0;
  for (const auto& cell : row) height = std::max(height, cell.size());
  for (size_t i = 0; i < height; ++i) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string_view cell = i < row[c].size() ? std::string_view(row[c][i]) : std::string_view();
      const std::string spaces(static_cast<size_t>(widths[c] - display_width(cell)), ' ');
      if (c > 0) line.append(kGap, ' ');
      if (columns[c].align == Align::right) line += spaces;
      line += cell;
      if (columns[c].align == Align::left) line += spaces;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
}

}  // namespace

int64_t display_width(std::string_view text) {
  int64_t width = 0;
  while (!text.empty()) {
    const Decoded next = decode(text);
    width += width_of(next.c);
    text.remove_prefix(next.size);
  }
  return width;
}

std::string one_line(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const auto [c, size] = decode(text);
    if (c == '\n' || c == '\r' || c == '\t')
      line += ' ';
    else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
      line += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    else if (c == kReplacement)
      line += "\xef\xbf\xbd";
    else
      line += text.substr(0, size);
    text.remove_prefix(size);
  }
  return line;
}

std::string markdown_text(std::string_view text) {
  std::string escaped;
  for (const char c : one_line(text)) {
    if (c == '<')
      escaped += "&lt;";
    else if (std::string_view("\\|*`[").find(c) != std::string_view::npos)
      (escaped += '\\') += c;
    else
      escaped += c;
  }
  return escaped;
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
  NIBBLE_CHECK(!columns_.empty());
}

void Table::add_row(std::vector<std::string> cells) {
  NIBBLE_CHECK(cells.size() <= columns_.size(), "{} cells in {} columns", cells.size(), columns_.size());
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

bool Table::has_head() const {
  return std::any_of(columns_.begin(), columns_.end(),
                     [](const Column& column) { return !column.header.empty(); });
}

std::string Table::to_text(int64_t width) const {
  std::vector<CellLines> rows;
  const auto add = [&](const auto& text_of) {
    CellLines& row = rows.emplace_back();
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string text = one_line(text_of(c));
      row.push_back(columns_[c].widest > 0 ? wrap(text, columns_[c].widest) : std::vector{text});
    }
  };
  if (has_head()) add([this](size_t c) { return columns_[c].header; });
  for (const auto& cells : rows_) add([&cells](size_t c) { return cells[c]; });

  std::vector<int64_t> widths = widths_of(rows, columns_.size());
  if (width > 0) {
    int64_t others = 0;
    for (size_t c = 0; c + 1 < widths.size(); ++c) others += widths[c] + kGap;
    const int64_t room = std::max(kNarrowest, width - others);
    for (auto& row : rows)
      if (widths.back() > room) row.back() = wrap(fmt::format("{}", fmt::join(row.back(), " ")), room);
    widths = widths_of(rows, columns_.size());
  }

  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    append_row(rows[r], columns_, widths, text);
    if (r > 0 || !has_head()) continue;
    CellLines rule;
    for (const int64_t w : widths) rule.push_back({std::string(static_cast<size_t>(w), '-')});
    append_row(rule, columns_, widths, text);
  }
  return text;
}

std::string Table::to_markdown() const {
  std::string text = "|";
  for (const auto& column : columns_) text += fmt::format(" {} |", markdown_text(column.header));
  text += "\n|";
  for (const auto& column : columns_) text += column.align == Align::right ? " ---: |" : " --- |";
  text += '\n';
  for (const auto& cells : rows_) {
    text += '|';
    for (const auto& cell : cells) text += fmt::format(" {} |", markdown_text(cell));
    text += '\n';
  }
  return text;
}

std::string Table::to_html() const {
  std::vector<std::string_view> kinds(columns_.size());
  for (size_t c = 0; c < columns_.size(); ++c) {
    const bool is_long = std::any_of(rows_.begin(), rows_.end(),
                                     [c](const auto& cells) { return display_width(cells[c]) > kLong; });
    kinds[c] = columns_[c].align == Align::right ? " class=\"right\"" : is_long ? " class=\"long\"" : "";
  }
  std::string text = "<table>";
  const auto add = [&](std::string_view tag, const auto& text_of) {
    text += "<tr>";
    for (size_t c = 0; c < columns_.size(); ++c)
      text += fmt::format("<{0}{1}>{2}</{0}>", tag, kinds[c], html_text(text_of(c)));
    text += "</tr>\n";
  };
  if (has_head()) {
    text += "<thead>";
    add("th", [this](size_t c) -> const std::string& { return columns_[c].header; });
    text += "</thead>";
  }
  text += "<tbody>\n";
  for (const auto& cells : rows_) add("td", [&cells](size_t c) -> const std::string& { return cells[c]; });
  return text + "</tbody></table>\n";
}

}  // namespace nibble::report
