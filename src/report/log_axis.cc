#include "report/log_axis.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace nibble::report {
namespace {

// Powers of ten that doubles hold with room for the places at both ends; what lies beyond is drawn at the
// end.
constexpr int kLowest = -150, kHighest = 150;

}  // namespace

LogAxis::LogAxis(std::span<const double> values) {
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const double value : values) {
    NIBBLE_CHECK(value >= 0, "{} on a logarithmic axis", value);
    if (value == 0) {
      zero_ = true;
    } else if (std::isinf(value)) {
      infinite_ = true;
    } else {
      least = std::min(least, value);
      most = std::max(most, value);
    }
  }
  if (most > 0) {
    low_ = std::clamp(static_cast<int>(std::floor(std::log10(least))), kLowest, kHighest - 1);
    high_ = std::clamp(static_cast<int>(std::ceil(std::log10(most))), low_ + 1, kHighest);
  }
  gap_ = std::max(0.12, 0.1 * (high_ - low_));
}

double LogAxis::at(double power) const {
  return std::pow(10.0, power);
}

double LogAxis::low() const {
  return at(low_);
}

double LogAxis::high() const {
  return at(high_);
}

double LogAxis::place(double value) const {
  if (value == 0) return at(low_ - gap_);
  if (std::isinf(value)) return at(high_ + gap_);
  return std::clamp(value, low(), high());
}

io::Json LogAxis::domain() const {
  return {at(zero_ ? low_ - 1.5 * gap_ : low_), at(infinite_ ? high_ + 1.5 * gap_ : high_)};
}

io::Json LogAxis::ticks() const {
  constexpr int kMost = 5;
  io::Json out = io::Json::array();
  if (zero_) out.push_back(place(0));
  const int decades = high_ - low_, step = (decades + kMost - 1) / kMost;
  for (int power = low_; power <= high_; power += step) {
    out.push_back(at(power));
    // One or two decades need finer marks.
    if (decades == 1 && power < high_)
      for (const double part : {2.0, 5.0}) out.push_back(part * at(power));
    if (decades == 2 && power < high_) out.push_back(3 * at(power));
  }
  if (infinite_) out.push_back(place(std::numeric_limits<double>::infinity()));
  return out;
}

std::string LogAxis::note() const {
  std::string out;
  if (zero_)
    out = "A value of exactly 0 has no place on a logarithmic scale: it is drawn below it, at the mark 0.";
  if (infinite_) {
    if (!out.empty()) out += ' ';
    out +=
        "An error is infinite where the 16-bit output is zero: it is drawn above the scale, at the mark "
        "\u221e.";
  }
  return out;
}

}  // namespace nibble::report
