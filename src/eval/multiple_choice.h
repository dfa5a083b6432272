// Multiple choice by comparing the log-probabilities of " A" to " D" after the prompt.
#pragma once

#include <span>

#include "data/mmlu.h"
#include "records/multiple_choice.h"
#include "run/forward.h"

namespace nibble::eval {

/// Answers every question; shares are filled in, `model`, `against` and `data` are left to the caller. What
/// all prompts of a subject begin with is run once, and each question goes on with a copy of its keys and
/// values. The same bits as running every prompt whole (`share` false), for any number of threads. Throws
/// Error as data::mmlu_prompts and data::choice_tokens do.
records::MultipleChoice answer_choices(run::Runner& model, const data::PromptMaker& maker,
                                       std::span<const data::ChoiceSubject> subjects,
                                       const data::ChoiceOptions& options, bool share = true);

}  // namespace nibble::eval
