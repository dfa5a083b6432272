// A logarithmic axis that also has a place for zero and for infinity.
#pragma once

#include <span>
#include <string>

#include "io/json.h"

namespace nibble::report {

/// The axis spans the decades of the finite positive values. Below it lies the place of 0, above it that of
/// infinity, each only where such a value exists. Values that are negative or NaN are a broken promise
/// (CHECK).
class LogAxis {
 public:
  explicit LogAxis(std::span<const double> values);

  /// Where a value is drawn, as a number on the logarithmic scale.
  double place(double value) const;
  bool has_zero() const { return zero_; }
  bool has_infinity() const { return infinite_; }

  /// The ends of the decades: what lies below `low` is the place of 0, above `high` that of infinity.
  double low() const;
  double high() const;
  /// [from, to] with the places of 0 and infinity.
  io::Json domain() const;
  /// At most about seven, those of 0 and infinity among them.
  io::Json ticks() const;
  /// "0 is drawn at the lower edge, ..." for people; "" where every value is finite and positive.
  std::string note() const;

 private:
  /// 10 to a power, which need not be whole.
  double at(double power) const;

  bool zero_ = false, infinite_ = false;
  int low_ = -1, high_ = 0;  // powers of ten
  double gap_ = 0.1;         // between the decades and the places beyond them, in decades
};

}  // namespace nibble::report
