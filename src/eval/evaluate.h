// How well a model answers: exact matches, loss of the answers, KL and agreement against a reference model.
#pragma once

#include <span>
#include <string>

#include "data/prompts.h"
#include "records/evaluation.h"
#include "run/forward.h"

namespace nibble::eval {

struct Options {
  int64_t max_new_tokens = 64;  // of the greedy text that is compared with the answer
  bool generate = true;         // false: loss, KL and agreement only; `output` stays empty
};

/// Runs the items through `model`, and through `reference` when it is given. Every item must have its answer.
/// KL is KL(reference || model) in nats at each position of the answer (its tokens and the end-of-turn
/// token), softmax in fp32; the answer is teacher-forced. Totals are filled in. The same result for any
/// number of threads.
records::Evaluation evaluate(run::Runner& model, run::Runner* reference, std::span<const data::Item> items,
                             const data::PromptMaker& maker, const Options& options);

}  // namespace nibble::eval
