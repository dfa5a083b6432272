// What `nibble compare --json` prints: several models judged on the same questions, the 16-bit one first.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "records/evaluation.h"
#include "records/multiple_choice.h"
#include "records/plan.h"

namespace nibble::records {

/// What a mean KL is taken over: answers to prompts with pictures, answers to text-only prompts, plain texts.
enum class KlKind { pictures, prompts, texts };
inline constexpr std::array kKlKinds = {KlKind::pictures, KlKind::prompts, KlKind::texts};
std::string_view kl_kind_name(KlKind kind);  // "pictures", "prompts", "texts"

/// The mean KL of a kind, where the evaluation has such samples and a reference.
std::optional<Interval> kl_of(const Evaluation& evaluation, KlKind kind);

/// What other calibration samples make of a policy.
struct Spread {
  struct Range {
    double low = 0, high = 0;  // mean KL
    friend bool operator==(const Range&, const Range&) = default;
  };
  int64_t seeds = 0;                       // resamples of the calibration data, besides the data itself
  std::array<std::optional<Range>, 3> kl;  // by KlKind: the lowest and the highest of all of these

  friend bool operator==(const Spread&, const Spread&) = default;
};

struct ComparedModel {
  std::string description;  // "16 bit", "dynamic 10%: 13 of 126 linears in 16 bit"
  std::string result;       // a text of the model to look at; "" for none
  std::string unchanged;    // outputs equal to the first model's: "93 of 96"; "" for none
  int64_t bytes = 0;        // of tensor data
  std::optional<Evaluation> evaluation;
  std::optional<MultipleChoice> choices;
  // Of a checkpoint that was made for the comparison.
  std::string policy, rounding;  // "" for finished checkpoints
  bool over_budget = false;      // the policy keeps more than the budget allows, whatever it is
  std::optional<Plan> plan;
  std::optional<Spread> spread;  // where the calibration data was resampled and the policy depends on it

  friend bool operator==(const ComparedModel&, const ComparedModel&) = default;
};

/// An array with an object for each model.
io::Json to_json(std::span<const ComparedModel> models);
/// Throws Error naming `what` and the field.
std::vector<ComparedModel> comparison_from_json(const io::Json& json, const std::string& what);
std::vector<ComparedModel> read_comparison(const std::filesystem::path& path);

}  // namespace nibble::records
