// The tokens of a template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text::jinja {

enum class TokenKind {
  data,
  print_begin,
  print_end,
  tag_begin,
  tag_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;  // of data, a name, a string (its value) or an operator
  int64_t integer = 0;
  double real = 0;
};

/// Cuts a template into tokens, the last one `end`. Comments and raw blocks are resolved, white space is
/// trimmed as the tags ask for and as trim_blocks and lstrip_blocks do, line ends become \n, and one at the
/// end of the source is dropped. Throws Error naming `what` and the line.
std::vector<Token> tokenize(std::string_view source, std::string_view what);

/// Throws Error about a place in a template.
[[noreturn]] void fail_at(std::string_view what, int line, std::string_view problem);

}  // namespace nibble::text::jinja
