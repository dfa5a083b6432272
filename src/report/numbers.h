// Numbers as people read them, and the kept linears of a plan in few lines: shared by tables, cards and
// reports.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "records/interval.h"
#include "records/measurements.h"
#include "records/multiple_choice.h"
#include "records/plan.h"

namespace nibble::report {

/// "1 linear", "82 linears".
std::string counted(int64_t n, std::string_view one, std::string_view many);

/// "1.81 GiB (1943450321 bytes)"; small ones in bytes alone.
std::string size_text(int64_t bytes);

/// Four decimals; "inf" for what is not finite.
std::string error_text(double error);

/// The relative error; "-" for a linear that read no rows.
std::string activation_text(const records::ActivationError& error);

/// "97.4 %".
std::string percent(double share);

/// "85.6 to 96.4", in percent.
std::string percent_range(const records::Interval& share);

/// "0.0123 (0.0100 to 0.0151)": three significant digits, since divergences range over decades.
std::string with_interval(const records::Interval& value);

/// "2.9816 (2.9502 to 3.0140)": losses range over one decade and are told apart by their last digits.
std::string loss_text(const records::Interval& loss);

/// Four significant digits.
std::string perplexity_text(const records::Interval& value);

/// "92.7 % (85.6 to 96.4)"; of counted things "77.0 %, 73.5 to 80.2".
std::string share_text(const records::Interval& share);
std::string share_text(const records::Share& share);

/// "462 of 600".
std::string hits_text(const records::Share& share);

/// "+10.0 %" of the bytes over those of all-4-bit; "" where those are 0.
std::string over_all4(int64_t bytes, int64_t all4);

/// Neighbouring linears of one parent that are kept for one reason.
struct KeptLine {
  std::string parent, names, reason;
  double score = 0;

  /// "model.layers.3.self_attn: q_proj, k_proj"; one name as it is in the checkpoint.
  std::string linears() const;
};

/// The kept linears of a plan, highest score first; ties in the plan's order.
std::vector<KeptLine> kept_lines(const records::Plan& plan);

}  // namespace nibble::report
