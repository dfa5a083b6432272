// Files that a report is made of, built into the program: the page's style and scripts, the charts' Vega
// specifications (src/report/page), and the modules of Vega as Debian's libjs-vega ships them.
#pragma once

#include <span>
#include <string_view>

namespace nibble::report {

struct Asset {
  std::string_view name;  // "style.css", "charts/points.json", "vega-util.min.js"
  std::string_view text;
};

/// All of them, by name.
std::span<const Asset> assets();

/// The text of one; there must be one of that name (CHECK).
std::string_view asset(std::string_view name);

}  // namespace nibble::report
