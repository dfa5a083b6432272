#include "eval/evaluate.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"
#include "data/answers.h"
#include "eval/finite.h"

namespace nibble::eval {
namespace {

std::span<const float> row(const Matrix& m, int64_t r) {
  return {m.row(r), static_cast<size_t>(m.cols())};
}

/// What one position of an answer says.
struct Position {
  size_t item = 0;
  int64_t token = 0;
  double loss = 0, kl = 0, agreement = 1;
};

std::vector<Position> positions_of(std::span<const data::Item> items) {
  std::vector<Position> out;
  for (size_t i = 0; i < items.size(); ++i)
    for (int64_t token : items[i].answer) out.push_back({.item = i, .token = token});
  return out;
}

/// Logits of positions [begin, begin + n).
Matrix logits(const Reading& reading, size_t begin, size_t n) {
  std::vector<int64_t> rows(n);
  std::iota(rows.begin(), rows.end(), static_cast<int64_t>(begin));
  return reading.model->logits(reading.states, rows);
}

/// Judges all positions, a slice of logits at a time: vocabularies are large.
std::vector<Position> judge(const Reading& model, const Reading* reference,
                            std::span<const data::Item> items) {
  std::vector<Position> out = positions_of(items);
  for (const Reading* reading : {&model, reference})
    NIBBLE_CHECK(!reading || reading->states.hidden.rows() == std::ssize(out));
  constexpr int64_t kSliceElements = int64_t{1} << 25;  // 128 MiB of logits
  const auto slice =
      static_cast<size_t>(std::max<int64_t>(16, kSliceElements / model.model->spec().text.vocabulary));
  Progress progress("judge", std::ssize(out), "tokens");
  for (size_t begin = 0; begin < out.size(); begin += slice) {
    const size_t n = std::min(slice, out.size() - begin);
    const Matrix q = logits(model, begin, n);
    Matrix p;
    if (reference) p = logits(*reference, begin, n);
    parallel_for(static_cast<int64_t>(n), [&](int64_t r) {
      Position& position = out[begin + static_cast<size_t>(r)];
      position.loss = -kernels::log_probability(row(q, r), position.token);
      if (!reference) return;
      position.kl = kernels::kl_divergence(row(p, r), row(q, r));
      position.agreement = kernels::argmax(row(q, r)) == kernels::argmax(row(p, r));
    });
    progress.advance(static_cast<int64_t>(n));
  }
  for (const Position& position : out) {
    check_finite(position.loss, *model.model, items[position.item].id);
    if (reference) check_finite(position.kl, *reference->model, items[position.item].id);
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
  const auto asked = std::count_if(items.begin(), items.end(), [](const auto& item) { return !item.plain; });
  if (asked == 0) return;
  Progress progress("generate", asked, "samples");
  for (const auto& [begin, end] : data::batches(items, data::kBatchRows)) {
    std::vector<const run::Prompt*> prompts;
    std::vector<size_t> places;
    for (size_t i = begin; i < end; ++i) {
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
    progress.advance(std::ssize(prompts));
  }
}

}  // namespace

Reading read(run::Runner& model, std::span<const data::Item> items) {
  int64_t rows = 0, at = 0;
  for (const data::Item& item : items) {
    NIBBLE_CHECK(!item.answer.empty(), "{} has no answer", item.id);
    rows += std::ssize(item.answer);
  }
  Reading out{&model, {}};
  out.states.hidden = Matrix(rows, model.spec().text.stack.hidden);
  Progress progress("eval", std::ssize(items), "samples");
  for (const auto& [begin, end] : data::batches(items, data::kBatchRows)) {
    std::vector<run::Prompt> prompts;
    std::vector<int64_t> last;
    for (const data::Item& item : items.subspan(begin, end - begin)) {
      prompts.push_back(item.fed());
      last.push_back(std::ssize(item.answer));
    }
    std::vector<const run::Prompt*> pointers;
    for (const run::Prompt& p : prompts) pointers.push_back(&p);
    std::vector<run::Sequence> sequences = model.start(pointers);
    std::vector<run::Sequence*> fed;
    for (run::Sequence& s : sequences) fed.push_back(&s);
    const run::Batch batch = model.run(fed, false);
    for (const int64_t r : run::last_rows(batch, last))
      std::copy_n(batch.hidden.row(r), batch.hidden.cols(), out.states.hidden.row(at++));
    progress.advance(std::ssize(prompts));
  }
  return out;
}

records::Evaluation evaluate(const Reading& model, const Reading* reference,
                             std::span<const data::Item> items, const data::PromptMaker& maker,
                             const Options& options) {
  records::Evaluation out;
  run::Weights& weights = model.model->weights();
  out.compute = weights.compute() == kernels::Compute::bf16 ? "bf16" : "f32";
  out.tensor_bytes = weights.binding().tensor_bytes();
  out.samples.resize(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    records::SampleResult& sample = out.samples[i];
    sample.id = items[i].id;
    sample.plain = items[i].plain;
    sample.modality = items[i].prompt.pictures.empty() ? records::Modality::text : records::Modality::vision;
    sample.bytes = items[i].bytes;
    sample.prompt = items[i].prompt_text;
    sample.expected = items[i].answer_text;
    sample.generated = options.generate && !items[i].plain;
  }
  fill_means(judge(model, reference, items), reference != nullptr, out.samples);
  if (options.generate) generate_outputs(*model.model, items, maker, options.max_new_tokens, out.samples);
  records::summarize(out);
  return out;
}

}  // namespace nibble::eval
