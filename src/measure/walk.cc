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

std::vector<const model::Linear*> linears_of(const model::Block& block) {
  std::vector<const model::Linear*> out;
  for (const model::Linear& l : block.qkv) out.push_back(&l);
  out.push_back(&block.attention_out);
  for (const model::Linear& l : block.mlp_in) out.push_back(&l);
  out.push_back(&block.mlp_out);
  return out;
}

}  // namespace

States States::copy() const {
  States out;
  for (const Part& part : parts) {
    Part& p = out.parts.emplace_back();
    p.hidden = copy_of(part.hidden);
    for (const auto& [index, kept] : part.kept) p.kept[index] = copy_of(kept);
    p.cross = part.cross;
  }
  return out;
}

int64_t States::bytes() const {
  int64_t sum = 0;
  for (const Part& part : parts) sum += part.hidden.tensor().bytes();
  return sum;
}

Walk::Walk(run::Runner& runner, std::span<const data::Item> items) : runner_(runner), items_(items) {
  for (const data::Item& item : items) prompts_.push_back(item.fed());
  const model::Spec& spec = runner.spec();
  const bool sees = std::any_of(prompts_.begin(), prompts_.end(),
                                [](const run::Prompt& prompt) { return !prompt.pictures.empty(); });
  if (sees) {
    for (int64_t i = 0; i < spec.vision->blocks_used; ++i)
      steps_.push_back(
          {Step::Kind::tower, i, linears_of(spec.vision->stack.blocks[static_cast<size_t>(i)])});
    Step& step = steps_.emplace_back(Step{Step::Kind::connector, 0, {}});
    for (const model::Linear& l : spec.vision->connector_linears) step.linears.push_back(&l);
  }
  for (size_t i = 0; i < spec.text.stack.blocks.size(); ++i)
    steps_.push_back({Step::Kind::text, static_cast<int64_t>(i), linears_of(spec.text.stack.blocks[i])});
}

States Walk::start() {
  States out;
  rows_ = {};
  towers_.clear();
  texts_.clear();
  for (const auto& [begin, end] : data::batches(items_, data::kBatchRows)) {
    texts_.push_back({begin, end, {}});
    std::vector<const run::Picture*> pictures;
    for (size_t i = begin; i < end; ++i)
      for (const run::Picture& p : prompts_[i].pictures) pictures.push_back(&p);
    if (pictures.empty()) continue;
    Inputs& inputs = towers_.emplace_back(Inputs{begin, end, runner_.embed_patches(pictures)});
    out.parts.emplace_back(std::move(inputs.shape.hidden));
    rows_[0] += out.parts.back().hidden.rows();
  }
  if (towers_.empty()) connect(out, nullptr);
  return out;
}

void Walk::go_to(size_t step) {
  States states = start();
  const auto is_connector = [](const Step& s) { return s.kind == Step::Kind::connector; };
  const auto connector = std::find_if(steps_.begin(), steps_.end(), is_connector) - steps_.begin();
  if (towers_.empty() || static_cast<ptrdiff_t>(step) <= connector) return;
  // Of the text's batches only what stands beside the states is wanted, so any features do.
  for (States::Part& part : states.parts)
    for (const int64_t index : runner_.spec().vision->stack.kept) part.kept[index] = copy_of(part.hidden);
  connect(states, nullptr);
}

void Walk::advance(size_t step, std::span<States* const> branches, run::Observer* observer) {
  const Step& s = steps_[step];
  if (s.kind == Step::Kind::connector) {
    for (States* states : branches) connect(*states, observer);
    return;
  }
  const model::Spec& spec = runner_.spec();
  const bool tower = s.kind == Step::Kind::tower;
  const model::Stack& stack = tower ? spec.vision->stack : spec.text.stack;
  const std::vector<Inputs>& inputs = tower ? towers_ : texts_;
  for (size_t part = 0; part < inputs.size(); ++part)
    advance_blocks(stack, s.index, inputs[part], part, branches, observer);
}

void Walk::release(size_t step) {
  for (const model::Linear* l : steps_[step].linears) {
    runner_.weights().release(*l);
    runner_.weights().binding().drop(*l);
  }
}

void Walk::advance_blocks(const model::Stack& stack, int64_t index, const Inputs& inputs, size_t part,
                          std::span<States* const> branches, run::Observer* observer) {
  const int64_t rows = std::max<int64_t>(1, branches[0]->parts[part].hidden.rows());
  const auto at_once = static_cast<size_t>(std::max<int64_t>(1, data::kBatchRows / rows));
  for (size_t begin = 0; begin < branches.size(); begin += at_once) {
    std::vector<States::Part*> parts;
    for (size_t i = begin; i < std::min(begin + at_once, branches.size()); ++i)
      parts.push_back(&branches[i]->parts[part]);
    run::Batch batch = stack_parts(inputs.shape, parts);
    run::run_block(stack, index, batch, runner_.weights(), observer);
    unstack(batch, parts);
  }
}

/// From finished rows of the tower, if there are any, to embedded tokens.
void Walk::connect(States& states, run::Observer* observer) {
  std::vector<run::Sequence> sequences;
  for (const run::Prompt& prompt : prompts_) sequences.push_back(runner_.sequence(prompt));
  runner_.observe(observer);
  for (size_t k = 0; k < towers_.size(); ++k) {
    run::Batch batch;
    batch.hidden = std::move(states.parts[k].hidden);
    batch.kept = std::move(states.parts[k].kept);
    batch.segments = towers_[k].shape.segments;
    std::vector<const run::Prompt*> prompts;
    for (size_t i = towers_[k].begin; i < towers_[k].end; ++i) prompts.push_back(&prompts_[i]);
    runner_.share_features(runner_.connect(batch),
                           std::span(sequences).subspan(towers_[k].begin, prompts.size()), prompts);
  }
  runner_.observe(nullptr);
  states.parts.clear();
  rows_[1] = 0;
  for (Inputs& inputs : texts_) {
    states.parts.push_back(embed(inputs, sequences));
    const auto& modality = inputs.shape.modality;
    rows_[1] += std::count(modality.begin(), modality.end(), run::Modality::text);
  }
}

States::Part Walk::embed(Inputs& inputs, std::span<run::Sequence> sequences) {
  std::vector<run::Sequence*> pointers;
  for (size_t i = inputs.begin; i < inputs.end; ++i) pointers.push_back(&sequences[i]);
  inputs.shape = runner_.embed(pointers, false);
  return States::Part(std::move(inputs.shape.hidden), std::move(inputs.shape.cross));
}

Matrix Walk::answers(const States& states) const {
  int64_t rows = 0, at = 0;
  for (const data::Item& item : items_) {
    NIBBLE_CHECK(!item.answer.empty(), "{} has no answer", item.id);
    rows += std::ssize(item.answer);
  }
  Matrix out(rows, runner_.spec().text.stack.hidden);
  for (size_t part = 0; part < texts_.size(); ++part) {
    const Inputs& inputs = texts_[part];
    std::vector<int64_t> last;
    for (size_t i = inputs.begin; i < inputs.end; ++i) last.push_back(std::ssize(items_[i].answer));
    const Matrix& hidden = states.parts[part].hidden;
    for (const int64_t r : run::last_rows(inputs.shape, last)) {
      std::copy_n(hidden.row(r), hidden.cols(), out.row(at++));
    }
  }
  return out;
}

std::vector<double> Walk::divergence(const Matrix& reference, const Matrix& branch) {
  NIBBLE_CHECK(reference.rows() == branch.rows());
  std::vector<double> rows(static_cast<size_t>(branch.rows()));
  constexpr int64_t kSliceElements = int64_t{1} << 25;  // 128 MiB of logits
  const int64_t slice_rows = std::max<int64_t>(16, kSliceElements / runner_.spec().text.vocabulary);
  const auto logits = [&](const Matrix& states, int64_t begin, int64_t n) {
    run::Batch batch;
    batch.hidden = slice(states, begin, n);
    std::vector<int64_t> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), int64_t{0});
    return runner_.logits(batch, all);
  };
  for (int64_t begin = 0; begin < branch.rows(); begin += slice_rows) {
    const int64_t n = std::min(slice_rows, branch.rows() - begin);
    const Matrix p = logits(reference, begin, n), q = logits(branch, begin, n);
    parallel_for(n, [&](int64_t r) {
      rows[static_cast<size_t>(begin + r)] =
          kernels::kl_divergence({p.row(r), static_cast<size_t>(p.cols())}, {q.row(r), static_cast<size_t>(q.cols())});
    });
  }
  std::vector<double> out;
  size_t at = 0;
  for (const data::Item& item : items_) {
    const double sum = std::accumulate(rows.begin() + static_cast<ptrdiff_t>(at),
                                       rows.begin() + static_cast<ptrdiff_t>(at + item.answer.size()), 0.0);
    at += item.answer.size();
    out.push_back(sum / static_cast<double>(item.answer.size()));
  }
  return out;
}

}  // namespace nibble::measure
