// The charts of a report, as Vega specifications (version 5) filled with the numbers of records. Colours are
// the page's custom properties ("var(--vision)"), so that a chart is right on light and dark ground.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "io/json.h"
#include "records/measurements.h"
#include "records/plan.h"

namespace nibble::report {

struct Chart {
  std::string group;  // charts of one group stand together under it; "" for none
  std::string title;
  io::Json spec;  // its "description" says what is to be seen, for those who cannot see it
};

/// Charts that are read together, with the remark that their scales need ("" for none).
struct Charts {
  std::vector<Chart> charts;
  std::string note;
};

/// How the linears of a role are drawn.
struct RoleStyle {
  records::Role role;
  std::string_view color;  // a custom property of the page
  std::string_view shape;  // of Vega's symbols
};
/// All roles, those of one kind in one colour.
std::span<const RoleStyle> role_styles();

/// Weight error and activation error by depth, one chart for each part and modality that has rows; kept
/// linears of `plan` (may be null) are filled. Projector linears stand behind the last block of the vision
/// tower. All charts share one scale.
Charts error_charts(const records::Measurements& measurements, const records::Plan* plan);

/// Activation error of the measurements' other rounding over that of plain rounding, likewise by depth;
/// nothing where no linear was measured with another rounding.
Charts rounding_charts(const records::Measurements& measurements);

/// KL of each group alone in 4 bits by depth of its first linear, one chart for each part and modality of the
/// inputs; where there is another rounding a line leads from the plain one to it. Nothing without solo runs.
Charts solo_charts(const records::Measurements& measurements, const records::Plan* plan);

/// The plan as a map: a row for each role, a column for each block; one chart for each part.
Charts map_charts(const records::Measurements& measurements, const records::Plan& plan);

/// Predicted against real KL of the verification's runs; nothing without them.
Charts predicted_charts(const records::Plan& plan);

/// The curve of the best plans by size, with the verified plans on it; nothing without a curve or runs.
Charts curve_charts(const records::Plan& plan);

/// Both modalities, or the one that has inputs.
std::vector<records::Modality> verified_modalities(const records::Verification& verification);

}  // namespace nibble::report
