#include "io/sax.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace nibble::io {

void SaxHandler::parse() {
  // The parser takes a NUL byte for the end of the text, whatever follows.
  if (const size_t nul = text_.find('\0'); nul != std::string_view::npos) fail_at(nul, "a NUL byte");
  if (text_.find_first_not_of(" \t\r\n") == std::string_view::npos)
    fail("{}: is empty; it must hold JSON", what_);
  const bool ok = nlohmann::ordered_json::sax_parse(text_.begin(), text_.end(), this);
  NIBBLE_CHECK(ok, "a handler stopped without an error");
}

bool SaxHandler::parse_error(size_t position, const std::string&,
                             const nlohmann::detail::exception& problem) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...": the place is
  // counted here, as some of the parser's messages have none.
  std::string_view text = problem.what();
  if (const size_t end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
  if (text.starts_with("parse error"))
    if (const size_t colon = text.find(": "); colon != std::string_view::npos) text.remove_prefix(colon + 2);
  fail_at(position == 0 ? 0 : position - 1, text);
}

void SaxHandler::fail_at(size_t offset, std::string_view problem) const {
  const std::string_view before = text_.substr(0, std::min(offset, text_.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t start = before.rfind('\n');
  const size_t column = before.size() - (start == std::string_view::npos ? 0 : start + 1) + 1;
  const std::string place = one_line_ ? "" : fmt::format("line {}, ", line);
  fail("{}: {}column {}: {}", what_, place, column, printable(problem));
}

}  // namespace nibble::io
