#include "data/csv.h"

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer.h"

namespace nibble::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

/// Walks over the text, one field after the other.
class Reader {
 public:
  Reader(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  bool done() const { return at_ == text_.size(); }
  int64_t line() const { return line_; }

  std::string field() { return !done() && text_[at_] == '"' ? quoted() : plain(); }

  /// Steps over what stands after a field; true when it was a comma, so that another field follows.
  bool comma() {
    if (done()) return false;
    if (text_[at_] == ',') {
      ++at_;
      return true;
    }
    if (!line_break()) fail("{}:{}: text follows the closing quote of a field", what_, line_);
    return false;
  }

  /// Steps over a line break, if one stands here.
  bool line_break() {
    const std::string_view rest = text_.substr(at_);
    const size_t size = rest.starts_with("\r\n") ? 2 : rest.starts_with('\n') ? 1 : 0;
    at_ += size;
    line_ += size > 0;
    return size > 0;
  }

 private:
  std::string plain() {
    size_t end = std::min(text_.find_first_of(",\n", at_), text_.size());
    if (end > at_ && end < text_.size() && text_[end] == '\n' && text_[end - 1] == '\r') --end;
    const std::string_view out = text_.substr(at_, end - at_);
    at_ = end;
    return std::string(out);
  }

  std::string quoted() {
    const int64_t begin = line_;
    std::string out;
    for (++at_;;) {
      const size_t end = text_.find('"', at_);
      if (end == std::string_view::npos) fail("{}:{}: a quote is opened here and never closed", what_, begin);
      const std::string_view part = text_.substr(at_, end - at_);
      line_ += std::count(part.begin(), part.end(), '\n');
      out += part;
      at_ = end + 1;
      if (done() || text_[at_] != '"') return out;
      out += '"';
      ++at_;
    }
  }

  std::string_view text_;
  const std::string& what_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

void check_utf8(std::string_view text, const std::string& what) {
  const std::string valid = text::replace_invalid_utf8(text);
  if (valid == text) return;
  const auto [bad, ignored] = std::mismatch(text.begin(), text.end(), valid.begin(), valid.end());
  fail("{}:{}: is no UTF-8; save the file as UTF-8", what, 1 + std::count(text.begin(), bad, '\n'));
}

}  // namespace

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& what) {
  check_utf8(text, what);
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  Reader reader(text, what);
  std::vector<CsvRow> out;
  while (!reader.done()) {
    if (reader.line_break()) continue;
    CsvRow& row = out.emplace_back();
    row.line = reader.line();
    do row.fields.push_back(reader.field());
    while (reader.comma());
  }
  return out;
}

}  // namespace nibble::data
