// Questions of MMLU as a model is fed them.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/threads.h"
#include "data/mmlu.h"

namespace nibble::data {
namespace {

ChoicePrompt prompt_of(const ChoiceSubject& subject, const ChoiceRow& question, const PromptMaker& maker,
                       const ChoiceTokens& tokens, const ChoiceOptions& options) {
  const std::string place = fmt::format("{}:{}", subject.file, question.line);
  const auto all = static_cast<int64_t>(subject.examples.size());
  for (int64_t shots = std::min(options.shots, all);; --shots) {
    const std::string text = mmlu_prompt(subject, question, static_cast<size_t>(shots));
    ChoicePrompt out{maker.tokenizer().encode(text, options.special_tokens), shots};
    out.ids.insert(out.ids.end(), tokens.lead.begin(), tokens.lead.end());
    if (static_cast<int64_t>(out.ids.size()) > maker.max_tokens()) {
      if (shots > 0) continue;
      fail(
          "{}: the question takes {} tokens, but the model (max_position_embeddings or sliding_window) takes "
          "{}; leave it out",
          place, out.ids.size(), maker.max_tokens());
    }
    if (std::any_of(out.ids.begin(), out.ids.end(), [&](int64_t id) { return maker.is_image(id); }))
      fail("{}: the prompt of this question holds an image token; take it out", place);
    return out;
  }
}

}  // namespace

ChoiceTokens choice_tokens(const PromptMaker& maker) {
  std::array<std::vector<int64_t>, 4> all;
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = maker.tokenizer().encode(fmt::format(" {}", "ABCD"[i]), false);
  ChoiceTokens out;
  const auto agree = [&all](size_t at) {
    return std::all_of(all.begin(), all.end(), [&](const auto& ids) {
      return at < ids.size() && at < all[0].size() && ids[at] == all[0][at];
    });
  };
  while (agree(out.lead.size())) out.lead.push_back(all[0][out.lead.size()]);
  std::set<int64_t> distinct;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].size() != out.lead.size() + 1) break;
    out.ids[i] = all[i].back();
    distinct.insert(out.ids[i]);
  }
  if (distinct.size() != all.size())
    fail(
        "the tokenizer does not tell \" A\", \" B\", \" C\" and \" D\" apart by one token each, so that no "
        "multiple choice can be judged");
  return out;
}

std::vector<ChoicePrompt> mmlu_prompts(const ChoiceSubject& subject, const PromptMaker& maker,
                                       const ChoiceTokens& tokens, const ChoiceOptions& options) {
  std::vector<ChoicePrompt> out(subject.questions.size());
  parallel_for(std::ssize(out), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    out[at] = prompt_of(subject, subject.questions[at], maker, tokens, options);
  });
  return out;
}

}  // namespace nibble::data
