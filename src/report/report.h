// The report: one HTML page from records, which needs nothing besides itself.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "records/comparison.h"
#include "records/measurements.h"
#include "records/plan.h"
#include "report/captions.h"

namespace nibble::report {

/// What there is to report; everything may be missing. A plan is of the same model as the measurements.
struct Records {
  std::string version;  // of nibble
  std::optional<records::Measurements> measurements;
  std::optional<records::Plan> plan;
  std::vector<records::ComparedModel> models;  // the 16-bit one first
};

/// The page. A section whose records are not given is left out. Texts of records are escaped; the page loads
/// nothing and its content security policy forbids it to. The same records and pictures give the same bytes.
/// Throws Error when a picture that is there cannot be read.
std::string report_html(const Records& records, const PictureFinder& pictures);

/// True when a file's first bytes (4096 are enough) are those of a page that report_html() made.
bool is_report(std::string_view start);

}  // namespace nibble::report
