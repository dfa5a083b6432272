// The evaluation of one model on samples, against a reference model or alone.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "records/inventory.h"

namespace nibble::records {

/// One prompt with its answer. Positions are the answer's tokens and the end-of-turn token after it.
struct SampleResult {
  std::string id;  // "images/0003.jpg" or the file and line of a text
  std::string prompt;
  std::string expected;   // the answer that was judged against
  bool generated = true;  // false for plain text, which is only read: no output, never exact
  std::string output;     // the model's own greedy text
  bool exact = false;     // output equals expected
  int64_t positions = 0;
  double loss = 0;       // mean negative log-probability of the answer's tokens, nats
  double kl = 0;         // mean KL(reference || model), nats; 0 without a reference
  double agreement = 0;  // share of positions with the same most probable token; 1 without a reference

  friend bool operator==(const SampleResult&, const SampleResult&) = default;
};

/// A mean with its 95 % bootstrap interval over samples.
struct Interval {
  double mean = 0, low = 0, high = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

struct Evaluation {
  static constexpr int kVersion = 1;
  std::string model;    // as the user gave it
  std::string against;  // the reference model, "" for none
  std::string compute;  // "f32" or "bf16"
  int64_t tensor_bytes = 0;
  std::vector<SampleResult> samples;
  Interval exact, loss, kl, agreement;  // exact over generated samples; the others over positions

  friend bool operator==(const Evaluation&, const Evaluation&) = default;
};

/// Fills the four totals from the samples. exact is a share of the samples that were generated; loss, kl and
/// agreement are means over positions (samples weigh by their positions); intervals are percentile bootstrap
/// over samples, 2000 resamples, fixed seed, the same resamples for all four. Zeros where there are no such
/// samples or no positions. A total with a value that is not finite is not finite itself, and has no
/// interval.
void summarize(Evaluation& evaluation);

io::Json to_json(const Evaluation& evaluation);
/// Throws Error naming `what` and the field.
Evaluation evaluation_from_json(const io::Json& json, const std::string& what);
Evaluation read_evaluation(const std::filesystem::path& path);

}  // namespace nibble::records
