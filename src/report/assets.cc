#include "report/assets.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::report {

std::string_view asset(std::string_view name) {
  const auto all = assets();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Asset& a) { return a.name == name; });
  NIBBLE_CHECK(it != all.end(), "no asset {}", name);
  return it->text;
}

}  // namespace nibble::report
