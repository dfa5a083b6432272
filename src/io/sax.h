// Events of the JSON parser for readers that build their own data, with errors of ours.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace nibble::io {

/// A JSON text (RFC 8259) as events. A handler derives from it, throws Error where it does not like an event,
/// and keeps what it needs; parse() throws Error with line and column where the text is no JSON.
class SaxHandler : public nlohmann::json_sax<nlohmann::ordered_json> {
 public:
  /// `text` and what `what` names must outlive the handler. `one_line`: `what` names the line that the text
  /// is, and errors only the column.
  SaxHandler(std::string_view text, std::string_view what, bool one_line = false)
      : text_(text), what_(what), one_line_(one_line) {}

  /// Goes through the whole text once.
  void parse();

  bool binary(binary_t&) final { return false; }
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception& problem) final;

 protected:
  std::string_view what() const { return what_; }

 private:
  [[noreturn]] void fail_at(size_t offset, std::string_view problem) const;

  std::string_view text_, what_;
  bool one_line_;
};

}  // namespace nibble::io
