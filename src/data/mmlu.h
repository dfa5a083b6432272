// Multiple choice in the layout of MMLU: questions and worked examples from CSV files, made into prompts.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/prompts.h"

namespace nibble::data {

/// A question with four options, of which one is right.
struct ChoiceRow {
  int64_t line = 0;  // of its file
  std::string question;
  std::array<std::string, 4> options;
  size_t answer = 0;  // 0 for A to 3 for D
};

/// A pair of files.
struct ChoiceSubject {
  std::string name;                  // "abstract_algebra", as in the names of the files
  std::string file;                  // of the questions, for errors
  std::vector<ChoiceRow> examples;   // dev/SUBJECT_dev.csv
  std::vector<ChoiceRow> questions;  // test/SUBJECT_test.csv
};

struct ChoiceOptions {
  int64_t shots = 5;           // worked examples before each question
  int64_t limit = 0;           // the first questions of each subject; 0 for all
  bool special_tokens = true;  // those that the tokenizer's post-processor adds
};

/// The subjects of a folder by name: every test/SUBJECT_test.csv with its dev/SUBJECT_dev.csv; other files
/// are passed over. A row is question, A, B, C, D and the letter of the answer, without a header. With 0
/// shots the dev files are not read. Throws Error naming folder, file or line: no such folder, no subjects, a
/// subject without its pair, no rows, another number of columns, an answer that is no letter from A to D, no
/// UTF-8.
std::vector<ChoiceSubject> read_mmlu(const std::filesystem::path& folder, const ChoiceOptions& options);

/// The published category of a subject: "STEM", "humanities", "social sciences" or "other (business, health,
/// misc.)"; "" for a subject that is none of the 57.
std::string_view mmlu_category(std::string_view subject);

/// The prompt of a question after the first `shots` examples:
///   The following are multiple choice questions (with answers) about abstract algebra.
///   (an empty line)
///   QUESTION, "A. OPTION" to "D. OPTION", "Answer: LETTER", each on its lines, and an empty line, per
///   example QUESTION, "A. OPTION" to "D. OPTION", "Answer:"
/// Texts stand as they are in the file. (The original program writes two spaces after "about", by accident.)
std::string mmlu_prompt(const ChoiceSubject& subject, const ChoiceRow& question, size_t shots);

/// How a model names an option. " A" to " D" are tokenized; what the four begin with alike (usually nothing)
/// is fed after the prompt, and the one token that each has after it is the option's.
struct ChoiceTokens {
  std::vector<int64_t> lead;
  std::array<int64_t, 4> ids{};
};

/// Throws Error when the four do not differ in one token each.
ChoiceTokens choice_tokens(const PromptMaker& maker);

/// A question as it is fed: everything up to the token that is the answer.
struct ChoicePrompt {
  std::vector<int64_t> ids;
  int64_t shots = 0;  // examples in it
};

/// The prompts of a subject's questions. A prompt has options.shots examples, or all that there are; examples
/// are left out from the last until it fits into the model's positions, as the original program does. Throws
/// Error naming file and line when it does not fit without examples either, or holds an image token.
std::vector<ChoicePrompt> mmlu_prompts(const ChoiceSubject& subject, const PromptMaker& maker,
                                       const ChoiceTokens& tokens, const ChoiceOptions& options);

}  // namespace nibble::data
