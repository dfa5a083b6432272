// Models judged on questions: what eval and compare share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/stages.h"
#include "data/mmlu.h"
#include "eval/evaluate.h"
#include "records/multiple_choice.h"

namespace nibble::app {

/// What a model is judged on.
struct Questions {
  std::vector<std::string> data;
  int64_t window = 2048, max_new_tokens = data::kAnswerTokens;
  bool generate = true;
  std::string mmlu;
  data::ChoiceOptions choices;
};

/// A reference model with what it says to the items.
struct Reference {
  LoadedModel& model;
  eval::Reading reading;
};

/// Completes open answers with a 16-bit model: the reference, or the model itself. Throws Error where that is
/// quantized.
void complete(std::vector<data::Item>& items, LoadedModel& model, LoadedModel* reference,
              int64_t max_new_tokens);

/// Throws Error unless the models are of one origin: the items are made for one of them, and their ids must
/// stand for the same to the other.
void check_origin(const LoadedModel& model, const LoadedModel& reference,
                  const std::vector<data::Item>& items);

/// Reads the items with a model that is judged against a reference, of one origin with it.
eval::Reading read(LoadedModel& model, const LoadedModel* reference, const std::vector<data::Item>& items);

/// Judges a reading, against the reference where it is not null.
records::Evaluation evaluate(LoadedModel& model, const eval::Reading& reading, const Reference* reference,
                             const std::vector<data::Item>& items, const Questions& questions);

/// Asks the multiple-choice questions.
records::MultipleChoice answer_choices(LoadedModel& model, const Questions& questions,
                                       const std::vector<data::ChoiceSubject>& subjects);

/// Options of what a model is judged on.
void add_questions(CLI::App* command, Questions& questions);

}  // namespace nibble::app
