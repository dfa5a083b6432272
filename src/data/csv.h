// Comma-separated values as RFC 4180 describes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::data {

/// One record of a file.
struct CsvRow {
  int64_t line = 0;  // on which it begins; the first is 1
  std::vector<std::string> fields;
};

/// The records of a UTF-8 text. A field in quotes may hold commas, line breaks and doubled quotes; a quote
/// inside a field that does not begin with one stands for itself. Lines end with LF or CRLF, the last one
/// with or without; empty lines and a byte order mark are passed over. Throws Error naming `what` and the
/// line: text after a closing quote, a quote that is never closed, bytes that are no UTF-8.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& what);

}  // namespace nibble::data
