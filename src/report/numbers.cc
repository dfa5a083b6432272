#include "report/numbers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace nibble::report {
namespace {

/// The name up to its last dot, and the rest.
std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {{}, name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

}  // namespace

std::string counted(int64_t n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

std::string size_text(int64_t bytes) {
  return bytes < 1024 ? bytes_text(bytes) : fmt::format("{} ({} bytes)", bytes_text(bytes), bytes);
}

std::string error_text(double error) {
  return std::isfinite(error) ? fmt::format("{:.4f}", error) : "inf";
}

std::string activation_text(const records::ActivationError& error) {
  return error.rows == 0 ? "-" : error_text(error.relative());
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

std::string percent_range(const records::Interval& share) {
  return fmt::format("{:.1f} to {:.1f}", 100 * share.low, 100 * share.high);
}

std::string with_interval(const records::Interval& value) {
  return fmt::format("{:#.3g} ({:#.3g} to {:#.3g})", value.mean, value.low, value.high);
}

std::string loss_text(const records::Interval& loss) {
  return fmt::format("{:.4f} ({:.4f} to {:.4f})", loss.mean, loss.low, loss.high);
}

std::string perplexity_text(const records::Interval& value) {
  return fmt::format("{:#.4g} ({:#.4g} to {:#.4g})", value.mean, value.low, value.high);
}

std::string share_text(const records::Interval& share) {
  return fmt::format("{} ({})", percent(share.mean), percent_range(share));
}

std::string hits_text(const records::Share& share) {
  return fmt::format("{} of {}", share.hits, share.total);
}

std::string share_text(const records::Share& share) {
  return fmt::format("{}, {}", percent(share.value()), percent_range({0, share.low, share.high}));
}

std::string over_all4(int64_t bytes, int64_t all4) {
  if (all4 == 0) return "";
  const double percent =
      100 * (static_cast<double>(bytes) - static_cast<double>(all4)) / static_cast<double>(all4);
  // No sign before what rounds to nothing.
  return std::abs(percent) < 0.05 ? "+0.0 %" : fmt::format("{:+.1f} %", percent);
}

std::vector<KeptLine> kept_lines(const records::Plan& plan) {
  std::vector<KeptLine> lines;
  bool neighbour = false;  // the linear before was kept
  for (const auto& decision : plan.decisions) {
    const bool after = std::exchange(neighbour, decision.keep);
    if (!decision.keep) continue;
    const auto [parent, name] = split_name(decision.name);
    if (after && lines.back().parent == parent && lines.back().reason == decision.reason &&
        lines.back().score == decision.score) {
      lines.back().names += fmt::format(", {}", name);
    } else {
      lines.push_back({std::string(parent), std::string(name), decision.reason, decision.score});
    }
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.score > b.score; });
  return lines;
}

std::string KeptLine::linears() const {
  if (parent.empty()) return names;
  return names.find(", ") == std::string::npos ? parent + "." + names : parent + ": " + names;
}

}  // namespace nibble::report
