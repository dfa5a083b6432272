// How codes are chosen inside NF4, as the records name it.
#pragma once

#include <array>
#include <string>

#include "io/json.h"

namespace nibble::records {

/// Dampings beyond this leave nothing of the statistics.
inline constexpr double kMostDamping = 1e6;

/// Everything that codes depend on besides the weight and the inputs that were measured on.
struct Rounding {
  std::string kind = "plain";  // "plain" (byte-equal to bitsandbytes), "search" or "feedback"
  /// Of the Gram matrices, by Modality of the rows: what is added to each, as a share of its diagonal. 0 for
  /// plain.
  std::array<double, 2> damping{};
  int64_t guard = 0;  // windows of nibble's own texts beside the inputs
  double mix = 0;     // share of vision rows against text rows in them; 0 for plain
  /// Where memory is short: of inputs wider than this, codes are chosen by the diagonal of the Gram matrix
  /// alone, for which feedback is search; 0: of none.
  int64_t widest = 0;
  /// Of a plan with feedback: linears are rounded one after the other, each for what those before it leave of
  /// its inputs, and not for the inputs of the 16-bit model, as they are when they are measured.
  bool in_order = false;

  bool plain() const { return kind == "plain"; }
  friend bool operator==(const Rounding&, const Rounding&) = default;
};

io::Json to_json(const Rounding& rounding);
/// Reads the field `key`; throws Error naming it.
Rounding rounding_field(const io::Fields& fields, std::string_view key);
/// "plain", "search" or "feedback"; throws Error naming the field.
std::string rounding_kind(const io::Fields& fields, std::string_view key);

}  // namespace nibble::records
