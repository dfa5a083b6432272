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

/// Logits at the answers' positions, one item after the other.
Matrix answer_logits(run::Runner& runner, std::span<const data::Item> items) {
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
  std::vector<run::Sequence*> batch;
  for (run::Sequence& s : sequences) batch.push_back(&s);
  return runner.feed(batch, last, false);
}

/// Loss, KL and agreement of one item, whose logits begin at row `begin`.
void judge(const data::Item& item, const Matrix& logits, const Matrix* reference, int64_t begin,
           records::SampleResult& out) {
  const auto n = static_cast<int64_t>(item.answer.size());
  double loss = 0, kl = 0, agreement = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto own = row(logits, begin + i);
    loss -= kernels::log_probability(own, item.answer[static_cast<size_t>(i)]);
    if (!reference) continue;
    const auto other = row(*reference, begin + i);
    kl += kernels::kl_divergence(other, own);
    agreement += kernels::argmax(own) == kernels::argmax(other);
  }
  const auto count = static_cast<double>(n);
  out.positions = n;
  out.loss = loss / count;
  out.kl = reference ? kl / count : 0;
  out.agreement = reference ? agreement / count : 1;
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
  // Logits take most of the memory: at most about 256 MB of them at a time.
  const int64_t rows =
      std::clamp<int64_t>((int64_t{1} << 26) / model.spec().text.vocabulary, 256, data::kBatchRows);
  for (const auto& [begin, end] : data::batches(items, rows)) {
    const auto batch = items.subspan(begin, end - begin);
    const Matrix logits = answer_logits(model, batch);
    Matrix other;
    if (reference) other = answer_logits(*reference, batch);
    std::vector<int64_t> first(batch.size(), 0);
    for (size_t i = 1; i < batch.size(); ++i)
      first[i] = first[i - 1] + static_cast<int64_t>(batch[i - 1].answer.size());
    parallel_for(static_cast<int64_t>(batch.size()), [&](int64_t k) {
      const auto i = static_cast<size_t>(k);
      records::SampleResult& result = out.samples[begin + i];
      result.id = batch[i].id;
      result.prompt = batch[i].prompt_text;
      result.expected = batch[i].answer_text;
      result.generated = options.generate && !batch[i].plain;
      judge(batch[i], logits, reference ? &other : nullptr, first[i], result);
    });
    if (options.generate)
      generate_outputs(model, batch, maker, options.max_new_tokens,
                       std::span(out.samples).subspan(begin, end - begin));
    progress.advance(static_cast<int64_t>(end - begin));
  }
  records::summarize(out);
  return out;
}

}  // namespace nibble::eval
