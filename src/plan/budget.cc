#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/size.h"
#include "base/text.h"
#include "plan/plan.h"

namespace nibble::plan {
namespace {

std::string exact_bytes(int64_t bytes) {
  return bytes < 1024 ? bytes_text(bytes) : fmt::format("{} ({} bytes)", bytes_text(bytes), bytes);
}

/// X of "kl:X"; nothing for another budget. Throws Error where X is no positive number.
std::optional<double> kl_of_budget(std::string_view budget) {
  if (!budget.starts_with("kl:")) return std::nullopt;
  const std::string_view number = budget.substr(3);
  double kl = 0;
  const auto [stop, status] = std::from_chars(number.data(), number.data() + number.size(), kl);
  if (status != std::errc() || stop != number.data() + number.size() || !(kl > 0) || !std::isfinite(kl))
    fail("budget \"{}\": write kl: and a positive number of nats, such as kl:0.001", printable(budget));
  return kl;
}

}  // namespace

int64_t parse_budget(std::string_view budget, const records::Inventory& inventory,
                     std::optional<int64_t> least) {
  std::string_view rest = trim(budget);
  const auto number = take_decimal(rest);
  std::string unit(trim(rest));
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto bytes_of_one = bytes_of_unit(unit);
  const bool percent = unit == "%", per_weight = unit == "bpw";
  if (!number || !(bytes_of_one || percent || per_weight))
    fail(
        "budget \"{}\": expected a share over all-4-bit (10%), a size (1.81GiB; also TiB, MiB, KiB, TB, GB, "
        "MB, KB, "
        "B), bits per weight (4.6bpw), of at most 18 digits, a KL in nats (kl:0.001), or match",
        printable(budget));

  // Every product is below 2^62 * 10^18 < 2^122.
  const int64_t all4 = inventory.bytes_all4(), smallest = least.value_or(all4);
  Wide limit = 0;
  if (percent)
    limit =
        std::max(static_cast<Wide>(all4) + static_cast<Wide>(all4) * number->digits / (100 * number->scale),
                 static_cast<Wide>(smallest));
  else if (per_weight)
    limit = static_cast<Wide>(inventory.parameters) * number->digits / (8 * number->scale);
  else
    limit = static_cast<Wide>(*bytes_of_one) * number->digits / number->scale;
  const auto bytes =
      static_cast<int64_t>(std::min(limit, static_cast<Wide>(std::numeric_limits<int64_t>::max())));
  if (bytes < smallest) {
    // Of sizes that are only known about, what is surely enough.
    const double least =
        8 * static_cast<double>(std::max(smallest, all4)) / static_cast<double>(inventory.parameters);
    fail("budget \"{}\": this model needs at least {} with every linear in 4 bits{}; the budget allows {}",
         budget, exact_bytes(smallest),
         per_weight ? fmt::format(", {:.3f}bpw", std::ceil(least * 1000) / 1000) : "", exact_bytes(bytes));
  }
  return bytes;
}

bool is_kl_budget(std::string_view budget) {
  return budget == "match" || budget.starts_with("kl:");
}

void check_budget(std::string_view budget, const records::Inventory& inventory) {
  if (budget == "match" || kl_of_budget(budget)) return;
  // What is not known before the weights are read are digits of a number in each quant_state.
  constexpr int64_t kDigits = 32;
  parse_budget(budget, inventory, inventory.bytes_all4() - kDigits * std::ssize(inventory.linears));
}

std::optional<std::array<double, 2>> kl_budget(std::string_view budget,
                                               const records::Measurements& measurements) {
  if (budget == "match") {
    if (!measurements.noise)
      fail("budget \"match\" needs solo runs in the measurements; measure with --effort auto or full");
    return measurements.noise;
  }
  const auto kl = kl_of_budget(budget);
  return kl ? std::optional(std::array{*kl, *kl}) : std::nullopt;
}

}  // namespace nibble::plan
