#include "measure/walk.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace nibble::measure {
namespace {

Matrix copy_of(const Matrix& m) {
  Matrix out(m.rows(), m.cols());
  std::copy_n(m.data(), m.rows() * m.cols(), out.data());
  return out;
}

void copy_rows(const Matrix& from, Matrix& to, int64_t at) {
  std::copy_n(from.data(), from.rows() * from.cols(), to.row(at));
}

/// The rows of `copies` equal matrices, one under the other.
Matrix repeated(const Matrix& m, int64_t copies) {
  Matrix out(m.rows() * copies, m.cols());
  for (int64_t i = 0; i < copies; ++i) copy_rows(m, out, i * m.rows());
  return out;
}

/// The features of all branches. Where they are the same, one copy serves all.
std::shared_ptr<const Matrix> stacked_cross(std::span<States::Part* const> parts, bool shared) {
  if (shared || !parts[0]->cross) return parts[0]->cross;
  const int64_t rows = parts[0]->cross->rows();
  auto out = std::make_shared<Matrix>(rows * std::ssize(parts), parts[0]->cross->cols());
  for (size_t i = 0; i < parts.size(); ++i) copy_rows(*parts[i]->cross, *out, static_cast<int64_t>(i) * rows);
  return out;
}

/// The branches of one batch as one batch.
run::Batch stack_parts(const run::Batch& shape, std::span<States::Part* const> parts) {
  const auto n = std::ssize(parts);
  const int64_t rows = parts[0]->hidden.rows();
  run::Batch out;
  out.cosine = repeated(shape.cosine, n);
  out.sine = repeated(shape.sine, n);
  const bool shared = std::all_of(parts.begin(), parts.end(),
                                  [&](const States::Part* p) { return p->cross == parts[0]->cross; });
  out.cross = stacked_cross(parts, shared);
  const int64_t cross_rows = shared || !out.cross ? 0 : out.cross->rows() / n;
  out.hidden = n == 1 ? std::move(parts[0]->hidden) : Matrix(rows * n, parts[0]->hidden.cols());
  for (int64_t i = 0; i < n; ++i) {
    if (n > 1) copy_rows(parts[static_cast<size_t>(i)]->hidden, out.hidden, i * rows);
    out.modality.insert(out.modality.end(), shape.modality.begin(), shape.modality.end());
    for (run::Segment segment : shape.segments) {
      segment.begin += i * rows;
      segment.cross_begin += i * cross_rows;
      out.segments.push_back(std::move(segment));
    }
  }
  return out;
}

Matrix slice(const Matrix& m, int64_t begin, int64_t rows) {
  Matrix out(rows, m.cols());
  std::copy_n(m.row(begin), rows * m.cols(), out.data());
  return out;
}

void unstack(run::Batch& batch, std::span<States::Part* const> parts) {
  const int64_t rows = batch.hidden.rows() / std::ssize(parts);
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * rows;
    for (const auto& [index, kept] : batch.kept) parts[i]->kept[index] = slice(kept, at, rows);
    parts[i]->hidden = parts.size() == 1 ? std::move(batch.hidden) : slice(batch.hidden, at, rows);
  }
}

Matrix gathered(std::span<const float* const> rows, int64_t cols) {
  Matrix out(std::ssize(rows), cols);
  for (int64_t r = 0; r < out.rows(); ++r) std::copy_n(rows[static_cast<size_t>(r)], cols, out.row(r));
  return out;
}

std::vector<const model::Linear*> linears_of(const model::Block& block) {
  std::vector<const model::Linear*> out;
  for (const model::Linear& l : block.qkv) out.push_back(&l);
  out.push_back(&block.attention_out);
  for (const model::Linear& l : block.mlp_in) out.push_back(&l);
  out.push_back(&block.mlp_out);
  return out;
}

States::Part copy_of(const States::Part& part) {
  States::Part out(copy_of(part.hidden), part.cross);
  for (const auto& [index, kept] : part.kept) out.kept[index] = copy_of(kept);
  return out;
}

}  // namespace

Walk::Walk(run::Runner& runner, std::span<const data::Item> items) : runner_(runner), items_(items) {
  const model::Spec& spec = runner.spec();
  for (const data::Item& item : items) {
    const run::Prompt& prompt = prompts_.emplace_back(item.fed());
    for (const run::Picture& p : prompt.pictures) rows_[0] += run::tower_rows(p, *spec.vision);
    const auto modality = run::prompt_modality(prompt.ids, spec);
    rows_[1] +=
        std::count(modality.begin(), modality.end(), run::Modality::text) + std::ssize(prompt.continuation);
  }
  for (std::vector<size_t>& batch : data::batches_apart(items, data::kBatchRows)) {
    const bool pictures = !prompts_[batch[0]].pictures.empty();
    batches_.push_back({.items = std::move(batch), .pictures = pictures, .tower = {}, .text = {}});
  }
  if (std::any_of(batches_.begin(), batches_.end(), [](const Inputs& inputs) { return inputs.pictures; })) {
    for (int64_t i = 0; i < spec.vision->blocks_used; ++i)
      steps_.push_back({Step::Kind::tower, i, linears_of(spec.vision->stack.blocks[static_cast<size_t>(i)])});
    Step& step = steps_.emplace_back(Step{Step::Kind::connector, 0, {}});
    for (const model::Linear& l : spec.vision->connector_linears) step.linears.push_back(&l);
  }
  for (size_t i = 0; i < spec.text.stack.blocks.size(); ++i)
    steps_.push_back({Step::Kind::text, static_cast<int64_t>(i), linears_of(spec.text.stack.blocks[i])});
}

std::vector<const run::Prompt*> Walk::prompts_of(const Inputs& inputs) const {
  std::vector<const run::Prompt*> out;
  for (const size_t i : inputs.items) out.push_back(&prompts_[i]);
  return out;
}

std::vector<run::Sequence> Walk::sequences_of(const Inputs& inputs) const {
  std::vector<run::Sequence> out;
  for (const run::Prompt* prompt : prompts_of(inputs)) out.push_back(runner_.sequence(*prompt));
  return out;
}

States Walk::start() {
  States out;
  for (Inputs& inputs : batches_) {
    if (!inputs.pictures) {
      std::vector<run::Sequence> sequences = sequences_of(inputs);
      out.parts.push_back(std::make_shared<States::Part>(embed(inputs, sequences)));
      continue;
    }
    std::vector<const run::Picture*> pictures;
    for (const run::Prompt* prompt : prompts_of(inputs))
      for (const run::Picture& p : prompt->pictures) pictures.push_back(&p);
    inputs.tower = runner_.embed_patches(pictures);
    out.parts.push_back(std::make_shared<States::Part>(std::move(inputs.tower.hidden)));
  }
  return out;
}

void Walk::go_to(size_t step) {
  const States states = start();
  const auto is_connector = [](const Step& s) { return s.kind == Step::Kind::connector; };
  const auto connector = std::find_if(steps_.begin(), steps_.end(), is_connector) - steps_.begin();
  if (static_cast<ptrdiff_t>(step) <= connector) return;
  for (size_t b = 0; b < batches_.size(); ++b) {
    if (!batches_[b].pictures) continue;
    // Of the text's batch only what stands beside the states is wanted, so any features do.
    States::Part& part = *states.parts[b];
    for (const int64_t index : runner_.spec().vision->stack.kept) part.kept[index] = copy_of(part.hidden);
    connect(batches_[b], part, nullptr);
  }
}

bool Walk::reaches(const Step& step, const Inputs& inputs) const {
  if (inputs.pictures) return true;
  return step.kind == Step::Kind::text &&
         !runner_.spec().text.stack.blocks[static_cast<size_t>(step.index)].cross;
}

int64_t Walk::rows_at(size_t step, const States& states) const {
  int64_t rows = 0;
  for (size_t b = 0; b < batches_.size(); ++b)
    if (reaches(steps_[step], batches_[b])) rows += states.parts[b]->hidden.rows();
  return rows;
}

void Walk::advance(size_t step, std::span<States* const> branches, run::Observer* observer) {
  for (size_t b = 0; b < batches_.size(); ++b) {
    if (!reaches(steps_[step], batches_[b])) continue;
    std::vector<std::shared_ptr<States::Part>> distinct;
    std::vector<size_t> of_branch;
    for (States* states : branches) {
      std::shared_ptr<States::Part>& part = states->parts[b];
      const auto at = std::find(distinct.begin(), distinct.end(), part);
      of_branch.push_back(static_cast<size_t>(at - distinct.begin()));
      if (at == distinct.end())
        distinct.push_back(std::move(part));
      else
        part.reset();
    }
    std::vector<States::Part*> parts;
    for (std::shared_ptr<States::Part>& part : distinct) {
      // Branches that do not come along keep what they have.
      if (part.use_count() > 1) part = std::make_shared<States::Part>(copy_of(*part));
      parts.push_back(part.get());
    }
    advance_parts(steps_[step], batches_[b], parts, observer);
    for (size_t i = 0; i < branches.size(); ++i) branches[i]->parts[b] = distinct[of_branch[i]];
  }
}

void Walk::look(size_t step, size_t batch, const States& branch, run::Observer& observer) {
  if (!reaches(steps_[step], batches_[batch])) return;
  States::Part part = copy_of(*branch.parts[batch]);
  States::Part* const only = &part;
  advance_parts(steps_[step], batches_[batch], {&only, 1}, &observer);
}

void Walk::release(size_t step) {
  for (const model::Linear* l : steps_[step].linears) {
    runner_.weights().release(*l);
    runner_.weights().binding().drop(*l);
  }
}

void Walk::advance_parts(const Step& step, Inputs& inputs, std::span<States::Part* const> parts,
                         run::Observer* observer) {
  if (step.kind == Step::Kind::connector) {
    for (States::Part* part : parts) connect(inputs, *part, observer);
    return;
  }
  const model::Spec& spec = runner_.spec();
  const bool tower = step.kind == Step::Kind::tower;
  const model::Stack& stack = tower ? spec.vision->stack : spec.text.stack;
  const int64_t rows = std::max<int64_t>(1, parts[0]->hidden.rows());
  const auto at_once = static_cast<size_t>(std::max<int64_t>(1, data::kBatchRows / rows));
  for (size_t begin = 0; begin < parts.size(); begin += at_once) {
    const auto stacked = parts.subspan(begin, std::min(at_once, parts.size() - begin));
    run::Batch batch = stack_parts(tower ? inputs.tower : inputs.text, stacked);
    run::run_block(stack, step.index, batch, runner_.weights(), observer);
    unstack(batch, stacked);
  }
}

/// From finished rows of the tower to embedded tokens.
void Walk::connect(Inputs& inputs, States::Part& part, run::Observer* observer) {
  run::Batch batch;
  batch.hidden = std::move(part.hidden);
  batch.kept = std::move(part.kept);
  batch.segments = inputs.tower.segments;
  runner_.observe(observer);
  const Matrix features = runner_.connect(batch);
  runner_.observe(nullptr);
  std::vector<run::Sequence> sequences = sequences_of(inputs);
  runner_.share_features(features, sequences, prompts_of(inputs));
  part = embed(inputs, sequences);
}

States::Part Walk::embed(Inputs& inputs, std::span<run::Sequence> sequences) {
  std::vector<run::Sequence*> pointers;
  for (run::Sequence& sequence : sequences) pointers.push_back(&sequence);
  inputs.text = runner_.embed(pointers, false);
  return States::Part(std::move(inputs.text.hidden), std::move(inputs.text.cross));
}

Walk::AnswerRows Walk::answer_rows(const States& states) const {
  std::vector<size_t> begins = {0};
  for (const data::Item& item : items_) {
    NIBBLE_CHECK(!item.answer.empty(), "{} has no answer", item.id);
    begins.push_back(begins.back() + item.answer.size());
  }
  AnswerRows out(begins.back());
  for (size_t b = 0; b < batches_.size(); ++b) {
    const Inputs& inputs = batches_[b];
    std::vector<int64_t> last;
    for (const size_t i : inputs.items) last.push_back(std::ssize(items_[i].answer));
    const std::vector<int64_t> rows = run::last_rows(inputs.text, last);
    auto row = rows.begin();
    for (const size_t i : inputs.items)
      for (size_t at = begins[i]; at < begins[i + 1]; ++at) out[at] = states.parts[b]->hidden.row(*row++);
  }
  return out;
}

Matrix Walk::answers(const States& states) const {
  return gathered(answer_rows(states), runner_.spec().text.stack.hidden);
}

std::vector<double> Walk::divergence(const Matrix& reference, const Matrix& branch) {
  AnswerRows rows;
  for (int64_t r = 0; r < branch.rows(); ++r) rows.push_back(branch.row(r));
  return divergence(reference, {&rows, 1})[0];
}

std::vector<std::vector<double>> Walk::divergence(const Matrix& reference,
                                                  std::span<const States* const> branches) {
  std::vector<AnswerRows> rows;
  for (const States* states : branches) rows.push_back(answer_rows(*states));
  return divergence(reference, rows);
}

/// Slice by slice of rows, so that few logits are in memory, and in each slice branch by branch.
std::vector<std::vector<double>> Walk::divergence(const Matrix& reference,
                                                  std::span<const AnswerRows> branches) {
  constexpr int64_t kSliceElements = int64_t{1} << 25;  // 128 MiB of logits
  const int64_t slice = std::max<int64_t>(16, kSliceElements / runner_.spec().text.vocabulary);
  std::vector<std::vector<double>> rows(branches.size());
  for (int64_t begin = 0; begin < reference.rows(); begin += slice) {
    const int64_t n = std::min(slice, reference.rows() - begin);
    std::vector<const float*> expected;
    for (int64_t r = begin; r < begin + n; ++r) expected.push_back(reference.row(r));
    const Matrix p = logits(expected);
    std::unordered_map<const float*, double> known;
    for (size_t b = 0; b < branches.size(); ++b) {
      NIBBLE_CHECK(std::ssize(branches[b]) == reference.rows());
      const std::span row_of =
          std::span(branches[b]).subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
      add_divergence(p, row_of, known);
      for (const float* row : row_of) rows[b].push_back(known.at(row));
    }
  }
  std::vector<std::vector<double>> out;
  for (const std::vector<double>& of_branch : rows) out.push_back(means_of_items(of_branch));
  return out;
}

/// Of rows that are not known yet: KL from row i of the logits p to those of row_of[i].
void Walk::add_divergence(const Matrix& p, std::span<const float* const> row_of,
                          std::unordered_map<const float*, double>& known) {
  std::vector<const float*> open;
  std::vector<int64_t> places;
  for (size_t i = 0; i < row_of.size(); ++i) {
    if (known.contains(row_of[i])) continue;
    open.push_back(row_of[i]);
    places.push_back(static_cast<int64_t>(i));
  }
  if (open.empty()) return;
  const Matrix q = logits(open);
  std::vector<double> kl(open.size());
  const auto cols = static_cast<size_t>(q.cols());
  parallel_for(q.rows(), [&](int64_t r) {
    kl[static_cast<size_t>(r)] =
        kernels::kl_divergence({p.row(places[static_cast<size_t>(r)]), cols}, {q.row(r), cols});
  });
  for (size_t i = 0; i < open.size(); ++i) known[open[i]] = kl[i];
}

Matrix Walk::logits(std::span<const float* const> rows) {
  run::Batch batch;
  batch.hidden = gathered(rows, runner_.spec().text.stack.hidden);
  std::vector<int64_t> all(rows.size());
  std::iota(all.begin(), all.end(), int64_t{0});
  return runner_.logits(batch, all);
}

std::vector<double> Walk::means_of_items(std::span<const double> rows) const {
  std::vector<double> out;
  for (const data::Item& item : items_) {
    const auto own = rows.first(item.answer.size());
    out.push_back(std::accumulate(own.begin(), own.end(), 0.0) / static_cast<double>(own.size()));
    rows = rows.subspan(own.size());
  }
  return out;
}

}  // namespace nibble::measure
