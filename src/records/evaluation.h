// The evaluation of one model on samples, against a reference model or alone.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "records/interval.h"
#include "records/inventory.h"

namespace nibble::records {

/// One prompt with its answer, whose positions are the answer's tokens and the end-of-turn token after it; or
/// one window of a plain text, whose positions are all its tokens but the first, which nothing predicts.
struct SampleResult {
  std::string id;                      // "images/0003.jpg" or the file and line of a text
  bool plain = false;                  // a window of plain text, which is only read
  Modality modality = Modality::text;  // vision: the prompt has pictures
  int64_t bytes = 0;                   // of a window: UTF-8 bytes that its predicted tokens stand for
  std::string prompt;
  std::string expected;   // the answer that was judged against
  bool generated = true;  // false where the model was not asked for its own text: no output, never exact
  std::string output;     // the model's own greedy text
  bool exact = false;     // output equals expected
  int64_t positions = 0;
  double loss = 0;       // mean negative log-probability of the answer's tokens, nats
  double kl = 0;         // mean KL(reference || model), nats; 0 without a reference
  double agreement = 0;  // share of positions with the same most probable token; 1 without a reference

  friend bool operator==(const SampleResult&, const SampleResult&) = default;
};

/// Totals of the samples with an answer: exact is a share of those that were generated, the others are means
/// over positions.
struct AnswerTotals {
  Interval exact, loss, kl, agreement;
  friend bool operator==(const AnswerTotals&, const AnswerTotals&) = default;
};

/// Totals of the windows of plain texts: means over all predicted tokens, whatever window they are in.
/// perplexity is exp(loss); loss_per_byte divides the nats of all predicted tokens by the UTF-8 bytes that
/// they stand for, so that tokenizers can be compared.
struct TextTotals {
  Interval loss, perplexity, loss_per_byte, kl, agreement;
  friend bool operator==(const TextTotals&, const TextTotals&) = default;
};

struct Evaluation {
  static constexpr int kVersion = 3;
  std::string model;    // as the user gave it
  std::string against;  // the reference model, "" for none
  std::string compute;  // "f32" or "bf16"
  int64_t tensor_bytes = 0;
  std::vector<SampleResult> samples;
  std::optional<AnswerTotals> answers;  // where there are samples with an answer
  // Of these, by what was asked; where there are such samples.
  std::optional<AnswerTotals> picture_answers, prompt_answers;  // prompts with pictures, text-only prompts
  std::optional<TextTotals> texts;                              // where there are windows of plain text

  friend bool operator==(const Evaluation&, const Evaluation&) = default;
};

/// Fills the totals from the samples, answers (together and by modality) and windows of text apart. A total
/// is a ratio of two sums over samples (its sum over positions, by positions or by bytes), so that samples
/// weigh by what is in them; its interval is the percentile bootstrap of that ratio over samples (or
/// windows), 2000 resamples, fixed seed, the same resamples for all totals of a kind. Zeros where nothing was
/// generated or no position predicted. A total with a value that is not finite is not finite itself, and has
/// no interval; a perplexity above the largest double is that.
void summarize(Evaluation& evaluation);

io::Json to_json(const Evaluation& evaluation);
/// Throws Error naming `what` and the field.
Evaluation evaluation_from_json(const io::Json& json, const std::string& what);
Evaluation read_evaluation(const std::filesystem::path& path);

}  // namespace nibble::records
