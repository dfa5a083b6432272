// Multiple-choice questions answered by one model: every choice, and shares of right ones.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"

namespace nibble::records {

/// hits of total, with the 95 % Wilson interval of the share.
struct Share {
  int64_t hits = 0, total = 0;
  double low = 0, high = 0;

  /// 0 where there is nothing.
  double value() const { return total == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(total); }
  friend bool operator==(const Share&, const Share&) = default;
};

/// The share with the score interval of E. B. Wilson (1927): with z the normal quantile of 0.975 and
/// p = hits / total, (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). 0 of 0 has none.
Share wilson(int64_t hits, int64_t total);

/// One question. Choices are 0 for A to 3 for D.
struct ChoiceResult {
  int64_t line = 0;                           // of the subject's file
  int64_t shots = 0;                          // worked examples in its prompt
  int answer = 0;                             // the right one
  int choice = 0;                             // the model's: the largest log-probability, the first of equals
  std::array<double, 4> log_probabilities{};  // of the four, in nats, among all tokens
  std::optional<int> reference;               // the choice of the reference model

  friend bool operator==(const ChoiceResult&, const ChoiceResult&) = default;
};

struct SubjectResult {
  std::string name;      // "abstract_algebra"
  std::string category;  // "" for none
  Share accuracy;
  std::vector<ChoiceResult> questions;

  friend bool operator==(const SubjectResult&, const SubjectResult&) = default;
};

struct CategoryResult {
  std::string name;
  Share accuracy;
  friend bool operator==(const CategoryResult&, const CategoryResult&) = default;
};

struct MultipleChoice {
  static constexpr int kVersion = 1;
  std::string model;    // as the user gave it
  std::string against;  // the reference model, "" for none
  std::string compute;  // "f32" or "bf16"
  int64_t tensor_bytes = 0;
  std::string data;            // the folder
  int64_t shots = 0;           // asked for; a question may have fewer
  bool special_tokens = true;  // those of the tokenizer's post-processor were added
  std::vector<SubjectResult> subjects;
  std::vector<CategoryResult> categories;  // of the subjects that have one, by name
  Share accuracy;                          // of all questions
  std::optional<Share> agreement;          // questions on which the reference made the same choice

  friend bool operator==(const MultipleChoice&, const MultipleChoice&) = default;
};

/// Fills all shares from the questions. agreement is there when there is a reference model.
void summarize(MultipleChoice& result);

/// Takes over the choices and the name of a reference model, which answered the same questions (CHECK), and
/// summarizes.
void set_reference(MultipleChoice& result, const MultipleChoice& reference);

io::Json to_json(const MultipleChoice& result);
/// Throws Error naming `what` and the field.
MultipleChoice multiple_choice_from_json(const io::Json& json, const std::string& what);
MultipleChoice read_multiple_choice(const std::filesystem::path& path);

}  // namespace nibble::records
