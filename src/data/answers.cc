#include "data/answers.h"

#include <algorithm>

#include "base/progress.h"

namespace nibble::data {

int64_t rows_of(const Item& item) {
  auto rows = static_cast<int64_t>(item.prompt.ids.size() + item.answer.size());
  for (const run::Picture& p : item.prompt.pictures) rows += p.patches();
  return rows;
}

namespace {

/// Says where batches of at most `limit` rows begin.
class Cut {
 public:
  explicit Cut(int64_t limit) : limit_(limit) {}

  /// True where an item of `rows` does not fit into the batch so far.
  bool begins(int64_t rows) {
    const bool begins = sum_ == 0 || sum_ + rows > limit_;
    sum_ = begins ? rows : sum_ + rows;
    return begins;
  }

 private:
  int64_t limit_, sum_ = 0;
};

}  // namespace

std::vector<std::pair<size_t, size_t>> batches(std::span<const Item> items, int64_t rows) {
  std::vector<std::pair<size_t, size_t>> out;
  Cut cut(rows);
  for (size_t i = 0; i < items.size(); ++i) {
    if (cut.begins(rows_of(items[i]))) out.emplace_back(i, i);
    out.back().second = i + 1;
  }
  return out;
}

std::vector<std::vector<size_t>> batches_apart(std::span<const Item> items, int64_t rows) {
  std::vector<std::vector<size_t>> out;
  for (const bool pictures : {true, false}) {
    Cut cut(rows);
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].prompt.pictures.empty() == pictures) continue;
      if (cut.begins(rows_of(items[i]))) out.emplace_back();
      out.back().push_back(i);
    }
  }
  return out;
}

void complete_answers(std::span<Item> items, run::Runner& model, const PromptMaker& maker, int64_t limit,
                      const std::function<void()>& some) {
  std::vector<Item*> open;
  for (Item& item : items)
    if (item.answer.empty() && !item.plain) open.push_back(&item);
  if (open.empty()) return;
  std::vector<Item> prompts;
  for (const Item* item : open) prompts.push_back(*item);
  Progress progress("answers", static_cast<int64_t>(open.size()), "samples");
  for (const auto& [begin, end] : batches(prompts, kBatchRows)) {
    std::vector<const run::Prompt*> batch;
    for (size_t i = begin; i < end; ++i) batch.push_back(&prompts[i].prompt);
    const auto said = model.generate(batch, limit);
    for (size_t i = begin; i < end; ++i) {
      open[i]->answer_text = maker.decode(said[i - begin]);
      open[i]->answer = said[i - begin];
      const int64_t room = maker.max_tokens() - std::ssize(prompts[i].prompt.ids) + 1;
      const bool ended = std::ssize(said[i - begin]) < std::min(limit, room);
      const auto& end_tokens = model.spec().tokens.end;
      if ((ended && !end_tokens.empty()) || open[i]->answer.empty())
        open[i]->answer.push_back(end_tokens.front());
    }
    if (some) some();
    progress.advance(static_cast<int64_t>(end - begin));
  }
}

}  // namespace nibble::data
