#include <cmath>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "io/json.h"

namespace nibble::io {
namespace {

/// Appends the text of one value. `place` is its path from the root, for errors.
void dump(const Json& json, size_t depth, const std::string& place, std::string& out) {
  const std::string inner(2 * (depth + 1), ' ');
  const char* separator = "\n";
  switch (json.type()) {
    case Json::value_t::object:
      if (json.empty()) {
        out += "{}";
        return;
      }
      out += '{';
      for (const auto& [key, value] : json.items()) {
        out += separator + inner + json_string(key) + ": ";
        dump(value, depth + 1, place.empty() ? key : place + "." + key, out);
        separator = ",\n";
      }
      out += '\n' + std::string(2 * depth, ' ') + '}';
      return;
    case Json::value_t::array:
      if (json.empty()) {
        out += "[]";
        return;
      }
      out += '[';
      for (size_t i = 0; i < json.size(); ++i) {
        out += separator + inner;
        dump(json[i], depth + 1, fmt::format("{}[{}]", place, i), out);
        separator = ",\n";
      }
      out += '\n' + std::string(2 * depth, ' ') + ']';
      return;
    case Json::value_t::number_float:
      if (!std::isfinite(json.get<double>()))
        fail("cannot write the number {} of {} as JSON", python_repr(json.get<double>()),
             place.empty() ? "the text" : printable(place));
      out += python_repr(json.get<double>());
      return;
    case Json::value_t::string:
      out += json_string(json.get_ref<const std::string&>());
      return;
    default:
      NIBBLE_CHECK(!json.is_binary() && !json.is_discarded(), "no JSON value");
      out += json.dump();
  }
}

}  // namespace

std::string json_string(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    NIBBLE_CHECK(false, "a string for JSON is not UTF-8: {}", printable(text));
  }
  return {};
}

std::string dump_json(const Json& json) {
  std::string out;
  dump(json, 0, "", out);
  return out;
}

}  // namespace nibble::io
