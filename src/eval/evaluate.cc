#include "eval/evaluate.h"

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"
#include "data/answers.h"

namespace nibble::eval {
namespace {

std::span<const float> row(const Matrix& m, int64_t r) {
  return {m.row(r), static_cast<size_t>(m.cols())};
}

/// Finished hidden states of items with their answers, and the rows that predict an answer's tokens.
struct Answers {
  run::Batch batch;
  std::vector<int64_t> rows;
};

Answers run_answers(run::Runner& runner, std::span<const data::Item> items) {
  std::vector<run::Prompt> prompts;
  std::vector<int64_t> last;
  for (const data::Item& item : items) {
    NIBBLE_CHECK(!item.answer.empty(), "{} has no answer", item.id);
    prompts.push_back(item.fed());
    last.push_back(static_cast<int64_t>(item.answer.size()));
  }
  std::vector<const run::Prompt*> pointers;
  for (const run::Prompt& p : prompts) pointers.push_back(&p);
  std::vector<run::Sequence> sequences = runner.start(pointers);
  std::vector<run::Sequence*> fed;
  for (run::Sequence& s : sequences) fed.push_back(&s);
  Answers out{runner.run(fed, false), {}};
  out.rows = run::last_rows(out.batch, last);
  return out;
}

/// What one position of an answer says.
struct Position {
  size_t item = 0;  // of the batch
  int64_t token = 0;
  double loss = 0, kl = 0, agreement = 1;
};

/// Judges all positions, a slice of logits at a time: vocabularies are large.
std::vector<Position> judge(run::Runner& model, run::Runner* reference, std::span<const data::Item> items) {
  const Answers own = run_answers(model, items);
  Answers other;
  if (reference) other = run_answers(*reference, items);
  std::vector<Position> out;
  for (size_t i = 0; i < items.size(); ++i)
    for (int64_t token : items[i].answer) out.push_back({.item = i, .token = token});
  constexpr int64_t kSliceElements = int64_t{1} << 25;  // 128 MiB of logits
  const auto slice =
      static_cast<size_t>(std::max<int64_t>(16, kSliceElements / model.spec().text.vocabulary));
  for (size_t begin = 0; begin < out.size(); begin += slice) {
    const size_t n = std::min(slice, out.size() - begin);
    const Matrix q = model.logits(own.batch, std::span(own.rows).subspan(begin, n));
    Matrix p;
    if (reference) p = reference->logits(other.batch, std::span(other.rows).subspan(begin, n));
    parallel_for(static_cast<int64_t>(n), [&](int64_t r) {
      Position& position = out[begin + static_cast<size_t>(r)];
      position.loss = -kernels::log_probability(row(q, r), position.token);
      if (!reference) return;
      position.kl = kernels::kl_divergence(row(p, r), row(q, r));
      position.agreement = kernels::argmax(row(q, r)) == kernels::argmax(row(p, r));
    });
  }
  return out;
}

/// Means over each item's positions.
void fill_means(std::span<const Position> positions, bool compared, std::span<records::SampleResult> out) {
  for (records::SampleResult& r : out) r.agreement = 0;
  for (const Position& p : positions) {
    records::SampleResult& r = out[p.item];
    ++r.positions;
    r.loss += p.loss;
    r.kl += p.kl;
    r.agreement += p.agreement;
  }
  for (records::SampleResult& r : out) {
    const auto n = static_cast<double>(r.positions);
    r.loss /= n;
    r.kl = compared ? r.kl / n : 0;
    r.agreement = compared ? r.agreement / n : 1;
  }
}

void generate_outputs(run::Runner& model, std::span<const data::Item> items, const data::PromptMaker& maker,
                      int64_t limit, std::span<records::SampleResult> out) {
  std::vector<const run::Prompt*> prompts;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].plain) continue;
    prompts.push_back(&items[i].prompt);
    places.push_back(i);
  }
  const auto said = model.generate(prompts, limit);
  for (size_t k = 0; k < places.size(); ++k) {
    records::SampleResult& result = out[places[k]];
    result.output = maker.decode(said[k]);
    result.exact = result.output == result.expected;
  }
}

}  // namespace

records::Evaluation evaluate(run::Runner& model, run::Runner* reference, std::span<const data::Item> items,
                             const data::PromptMaker& maker, const Options& options) {
  records::Evaluation out;
  out.compute = model.weights().compute() == kernels::Compute::bf16 ? "bf16" : "f32";
  out.tensor_bytes = model.weights().binding().tensor_bytes();
  out.samples.resize(items.size());
  Progress progress("eval", static_cast<int64_t>(items.size()), "samples");
  for (const auto& [begin, end] : data::batches(items, data::kBatchRows)) {
    const auto batch = items.subspan(begin, end - begin);
    const auto results = std::span(out.samples).subspan(begin, end - begin);
    for (size_t i = 0; i < batch.size(); ++i) {
      results[i].id = batch[i].id;
      results[i].prompt = batch[i].prompt_text;
      results[i].expected = batch[i].answer_text;
      results[i].generated = options.generate && !batch[i].plain;
    }
    fill_means(judge(model, reference, batch), reference != nullptr, results);
    if (options.generate) generate_outputs(model, batch, maker, options.max_new_tokens, results);
    progress.advance(static_cast<int64_t>(batch.size()));
  }
  records::summarize(out);
  return out;
}

}  // namespace nibble::eval
