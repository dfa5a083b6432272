// Answers for samples that come without one, and the cutting of items into batches.
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "data/prompts.h"
#include "run/forward.h"

namespace nibble::data {

/// Longest answer that a model is asked for, in tokens.
inline constexpr int64_t kAnswerTokens = 64;

/// Gives every item without an answer the model's own greedy one, of at most `limit` tokens: one that was cut
/// there, or where the model takes no more, has no end-of-turn token. `model` should be the 16-bit model.
/// `some` (may be empty) is called whenever there are further answers.
void complete_answers(std::span<Item> items, run::Runner& model, const PromptMaker& maker,
                      int64_t limit = kAnswerTokens, const std::function<void()>& some = {});

/// Rows of an item: patches plus tokens, answers included.
int64_t rows_of(const Item& item);

/// Cuts items into consecutive ranges [begin, end) whose rows come to at most `rows`, each of at least one
/// item. The cut depends on the items alone.
std::vector<std::pair<size_t, size_t>> batches(std::span<const Item> items, int64_t rows);

/// The same for items with pictures, then for items without, so that no batch has both: the indices of each
/// batch's items, ascending.
std::vector<std::vector<size_t>> batches_apart(std::span<const Item> items, int64_t rows);

/// Rows of a batch for whole passes: enough for tall products, little memory.
inline constexpr int64_t kBatchRows = 8192;

}  // namespace nibble::data
