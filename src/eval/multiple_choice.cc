#include "eval/multiple_choice.h"

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "data/answers.h"
#include "eval/finite.h"

namespace nibble::eval {
namespace {

/// Attention works on tiles of so many queries (kernels/cpu/attention.cc): a prompt that is cut between two
/// of them has the same tiles in two passes as in one, and so the same bits.
constexpr int64_t kTile = 32;
/// Keys and values of the questions that run side by side.
constexpr int64_t kCacheBytes = int64_t{1} << 30;
/// Elements of logits of the questions that run side by side: 128 MiB.
constexpr int64_t kLogits = int64_t{1} << 25;

/// Tokens that all prompts begin with, as far as they can be run apart: whole tiles, and at least two tokens
/// of every prompt after them, since a query alone goes another way through attention.
int64_t shared_tokens(std::span<const data::ChoicePrompt> prompts) {
  if (prompts.size() < 2) return 0;
  const std::vector<int64_t>& first = prompts[0].ids;
  auto out = std::ssize(first);
  for (const data::ChoicePrompt& prompt : prompts) {
    out = std::min(out, std::ssize(prompt.ids) - 2);
    out = std::min<int64_t>(
        out, std::mismatch(first.begin(), first.end(), prompt.ids.begin(), prompt.ids.end()).first -
                 first.begin());
  }
  return std::max<int64_t>(out, 0) / kTile * kTile;
}

/// How many questions run side by side, `shared` tokens of each copied.
size_t side_by_side(const model::Spec& spec, std::span<const data::ChoicePrompt> prompts, int64_t shared) {
  int64_t longest = 1;
  for (const data::ChoicePrompt& prompt : prompts) longest = std::max(longest, std::ssize(prompt.ids));
  const model::Stack& stack = spec.text.stack;
  const int64_t row =
      2 * stack.kv_heads * stack.head_dim * std::ssize(stack.blocks) * static_cast<int64_t>(sizeof(float));
  int64_t out = std::min(data::kBatchRows / (longest - shared), kLogits / spec.text.vocabulary);
  // A cache that grows doubles.
  if (shared > 0) out = std::min(out, kCacheBytes / (row * std::max(longest, 2 * shared)));
  return static_cast<size_t>(std::max<int64_t>(out, 1));
}

records::ChoiceResult result_of(std::span<const float> logits, const data::ChoiceTokens& tokens) {
  records::ChoiceResult out;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    out.log_probabilities[i] = kernels::log_probability(logits, tokens.ids[i]);
    if (out.log_probabilities[i] > out.log_probabilities[static_cast<size_t>(out.choice)])
      out.choice = static_cast<int>(i);
  }
  return out;
}

std::vector<records::ChoiceResult> answer_subject(run::Runner& model,
                                                  std::span<const data::ChoicePrompt> prompts,
                                                  const data::ChoiceTokens& tokens, bool share,
                                                  Progress& progress) {
  const int64_t shared = share ? shared_tokens(prompts) : 0;
  run::Sequence prefix;
  if (shared > 0) {
    prefix = model.sequence({.ids = {prompts[0].ids.begin(), prompts[0].ids.begin() + shared},
                             .pictures = {},
                             .continuation = {}});
    run::Sequence* pointer = &prefix;
    model.run({&pointer, 1}, true);
  }
  std::vector<records::ChoiceResult> out;
  const size_t step = side_by_side(model.spec(), prompts, shared);
  for (size_t begin = 0; begin < prompts.size(); begin += step) {
    const auto batch = prompts.subspan(begin, std::min(step, prompts.size() - begin));
    std::vector<run::Sequence> sequences;
    for (const data::ChoicePrompt& prompt : batch) {
      sequences.push_back(model.sequence({.ids = prompt.ids, .pictures = {}, .continuation = {}}));
      if (shared > 0) run::go_on_from(prefix, sequences.back());
    }
    std::vector<run::Sequence*> pointers;
    for (run::Sequence& s : sequences) pointers.push_back(&s);
    const Matrix logits = model.feed(pointers, std::vector<int64_t>(batch.size(), 1), shared > 0);
    for (size_t i = 0; i < batch.size(); ++i) {
      out.push_back(
          result_of({logits.row(static_cast<int64_t>(i)), static_cast<size_t>(logits.cols())}, tokens));
      out.back().shots = batch[i].shots;
    }
    progress.advance(std::ssize(batch));
  }
  return out;
}

}  // namespace

records::MultipleChoice answer_choices(run::Runner& model, const data::PromptMaker& maker,
                                       std::span<const data::ChoiceSubject> subjects,
                                       const data::ChoiceOptions& options, bool share) {
  records::MultipleChoice out;
  out.compute = model.weights().compute() == kernels::Compute::bf16 ? "bf16" : "f32";
  out.tensor_bytes = model.weights().binding().tensor_bytes();
  out.shots = options.shots;
  out.special_tokens = options.special_tokens;
  const data::ChoiceTokens tokens = data::choice_tokens(maker);
  int64_t questions = 0;
  for (const data::ChoiceSubject& subject : subjects) questions += std::ssize(subject.questions);
  Progress progress("mmlu", questions, "questions");
  for (const data::ChoiceSubject& subject : subjects) {
    records::SubjectResult& result = out.subjects.emplace_back();
    result.name = subject.name;
    result.category = data::mmlu_category(subject.name);
    result.questions =
        answer_subject(model, data::mmlu_prompts(subject, maker, tokens, options), tokens, share, progress);
    for (size_t i = 0; i < result.questions.size(); ++i) {
      result.questions[i].line = subject.questions[i].line;
      for (const double value : result.questions[i].log_probabilities)
        check_finite(value, model, fmt::format("{}:{}", subject.file, result.questions[i].line));
      result.questions[i].answer = static_cast<int>(subject.questions[i].answer);
    }
  }
  records::summarize(out);
  return out;
}

}  // namespace nibble::eval
