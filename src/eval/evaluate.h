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

/// A model's pass over some items, kept so that several models are judged against one pass of the reference:
/// the finished hidden states that predict the answers' tokens, one row for each, before the last norm and
/// the head. A row takes the model's width in fp32, where its logits would take the vocabulary.
struct Reading {
  run::Runner* model = nullptr;
  run::Batch states;  // hidden: (tokens of all answers, width); nothing else
};

/// Feeds every item with its answer, which it must have. Rows are in the order of the items.
Reading read(run::Runner& model, std::span<const data::Item> items);

/// Judges the items by a model's reading of them, and against the reading of a reference model with the same
/// vocabulary when it is given. KL is KL(reference || model) in nats at each position of the answer (its
/// tokens and the end-of-turn token; of a window of plain text all tokens but the first), softmax in fp64;
/// the answer is teacher-forced. Then the model's own greedy text. Totals are filled in. The same result for
/// any number of threads.
records::Evaluation evaluate(const Reading& model, const Reading* reference,
                             std::span<const data::Item> items, const data::PromptMaker& maker,
                             const Options& options);

}  // namespace nibble::eval
