#include "run/forward.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::run {
namespace {

int64_t merged_patches(const Picture& p, int64_t merge) {
  return p.grid_t * (p.grid_h / merge) * (p.grid_w / merge);
}

}  // namespace

Batch Runner::embed_patches(std::span<const Picture* const> pictures) {
  const model::Vision& vision = *spec().vision;
  int64_t rows = 0;
  for (const Picture* p : pictures) rows += p->patches();
  Matrix pixels(rows, vision.patch_features());
  std::vector<Position> positions;
  Batch batch;
  int64_t at = 0;
  for (const Picture* p : pictures) {
    NIBBLE_CHECK(p->pixels->rows() == p->patches() && p->pixels->cols() == vision.patch_features());
    std::copy_n(p->pixels->data(), p->patches() * pixels.cols(), pixels.row(at));
    for (const Position& position : patch_positions(*p, vision.merge)) positions.push_back(position);
    for (int64_t t = 0; t < p->grid_t; ++t)
      batch.segments.push_back(
          {.begin = at + t * p->grid_h * p->grid_w, .rows = p->grid_h * p->grid_w, .cache = nullptr});
    at += p->patches();
  }
  batch.hidden = Matrix(rows, vision.stack.hidden);
  kernels::linear(pixels.view(), weights_.matrix(vision.patch_linear), {}, batch.hidden.mut());
  if (observer_) {
    observer_->output(vision.patch_linear, batch.hidden.view());
    observer_->output(vision.patch_embed, batch.hidden.view());
  }
  batch.cosine = Matrix(rows, vision.stack.head_dim / 2);
  batch.sine = Matrix(rows, vision.stack.head_dim / 2);
  rotary_angles(vision.stack.rope, vision.stack.head_dim, positions, batch.cosine.mut(), batch.sine.mut());
  batch.modality.assign(static_cast<size_t>(rows), Modality::vision);
  return batch;
}

Matrix Runner::merge(const Batch& tower) {
  const model::Vision& vision = *spec().vision;
  const Matrix normed = apply(vision.merger_norm, tower.hidden.view(), weights_, observer_);
  const int64_t neighbours = vision.merge * vision.merge;
  const ConstMatrix x{normed.data(), normed.rows() / neighbours, normed.cols() * neighbours,
                      normed.cols() * neighbours};
  const std::vector<Modality> modality(static_cast<size_t>(x.rows), Modality::vision);
  const auto tap = [&](const model::Linear& reader, ConstMatrix input) {
    const model::Linear* pointer = &reader;
    if (observer_) observer_->tap({&pointer, 1}, input, modality);
  };
  tap(vision.merger_in, x);
  Matrix inner = apply(vision.merger_in, x, weights_, observer_);
  kernels::activate(vision.merger_activation, inner.mut());
  if (observer_) observer_->output(vision.merger_activation_name, inner.view());
  tap(vision.merger_out, inner.view());
  Matrix out = apply(vision.merger_out, inner.view(), weights_, observer_);
  if (observer_)
    for (const std::string& module : {vision.merger_mlp, vision.merger, vision.name})
      observer_->output(module, out.view());
  return out;
}

Matrix Runner::encode(std::span<const Picture* const> pictures) {
  Batch batch = embed_patches(pictures);
  const model::Stack& stack = spec().vision->stack;
  for (size_t i = 0; i < stack.blocks.size(); ++i)
    run_block(stack, static_cast<int64_t>(i), batch, weights_, observer_);
  return merge(batch);
}

Batch Runner::embed(std::span<Sequence* const> sequences, bool keep) {
  const model::Text& text = spec().text;
  std::vector<int64_t> ids;
  std::vector<Position> positions;
  Batch batch;
  for (Sequence* s : sequences) {
    const auto fed = static_cast<ptrdiff_t>(s->fed);
    batch.segments.push_back({.begin = static_cast<int64_t>(ids.size()),
                              .rows = static_cast<int64_t>(s->ids.size()) - s->fed,
                              .cache = keep ? &s->cache : nullptr});
    NIBBLE_CHECK(keep || s->fed == 0, "a sequence with a cache is fed on with it");
    ids.insert(ids.end(), s->ids.begin() + fed, s->ids.end());
    positions.insert(positions.end(), s->positions.begin() + fed, s->positions.end());
    batch.modality.insert(batch.modality.end(), s->modality.begin() + fed, s->modality.end());
  }
  const auto rows = static_cast<int64_t>(ids.size());
  batch.hidden = Matrix(rows, text.stack.hidden);
  kernels::gather_rows(weights_.binding().tensor(text.embedding + ".weight"), ids, batch.hidden.mut());
  if (observer_) observer_->output(text.embedding, batch.hidden.view());
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& s = *sequences[i];
    const Segment& segment = batch.segments[i];
    int64_t feature = 0;
    for (int64_t r = 0; r < segment.rows; ++r)
      if (batch.modality[static_cast<size_t>(segment.begin + r)] == Modality::vision)
        std::copy_n(s.features.row(feature++), text.stack.hidden, batch.hidden.row(segment.begin + r));
    NIBBLE_CHECK(feature == s.features.rows());
    s.features = Matrix();
    s.fed = static_cast<int64_t>(s.ids.size());
  }
  batch.cosine = Matrix(rows, text.stack.head_dim / 2);
  batch.sine = Matrix(rows, text.stack.head_dim / 2);
  rotary_angles(text.stack.rope, text.stack.head_dim, positions, batch.cosine.mut(), batch.sine.mut());
  return batch;
}

Matrix Runner::logits(const Batch& batch, std::span<const int64_t> rows) {
  const model::Text& text = spec().text;
  Matrix picked(static_cast<int64_t>(rows.size()), text.stack.hidden);
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(batch.hidden.row(rows[i]), picked.cols(), picked.row(static_cast<int64_t>(i)));
  const Matrix normed = apply(text.norm, picked.view(), weights_, observer_);
  if (observer_) observer_->output(text.name, normed.view());
  Matrix out(picked.rows(), text.vocabulary);
  kernels::linear(normed.view(), weights_.matrix(text.tied ? text.embedding : text.head), {}, out.mut());
  if (observer_) observer_->output(text.head, out.view());
  return out;
}

void Sequence::append(int64_t id) {
  ids.push_back(id);
  positions.push_back({next_position, next_position, next_position});
  modality.push_back(Modality::text);
  ++next_position;
}

Sequence Runner::sequence(const Prompt& prompt) const {
  if (prompt.ids.empty()) fail("the prompt is empty; give at least one token");
  for (const auto* ids : {&prompt.ids, &prompt.continuation})
    for (int64_t id : *ids)
      if (id < 0 || id >= spec().text.vocabulary)
        fail(
            "token id {} is outside the model's vocabulary of {}; tokenizer.json and config.json do not "
            "belong together",
            id, spec().text.vocabulary);
  if (const auto tokens = static_cast<int64_t>(prompt.ids.size() + prompt.continuation.size());
      tokens > spec().text.max_positions)
    fail("the prompt has {} tokens, but the model (max_position_embeddings) takes {}; shorten it", tokens,
         spec().text.max_positions);
  Sequence out;
  out.ids = prompt.ids;
  out.positions = prompt_positions(prompt, spec(), out.next_position);
  out.modality = prompt_modality(prompt.ids, spec());
  for (int64_t id : prompt.continuation) out.append(id);
  out.cache.resize(spec().text.stack.blocks.size());
  return out;
}

void Runner::share_features(const Matrix& features, std::span<Sequence> sequences,
                            std::span<const Prompt* const> prompts) const {
  int64_t at = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    int64_t rows = 0;
    for (const Picture& p : prompts[i]->pictures) rows += merged_patches(p, spec().vision->merge);
    if (rows == 0) continue;
    sequences[i].features = Matrix(rows, features.cols());
    std::copy_n(features.row(at), rows * features.cols(), sequences[i].features.data());
    at += rows;
  }
  NIBBLE_CHECK(at == features.rows());
}

std::vector<Sequence> Runner::start(std::span<const Prompt* const> prompts) {
  std::vector<Sequence> out;
  std::vector<const Picture*> pictures;
  for (const Prompt* prompt : prompts) {
    out.push_back(sequence(*prompt));
    for (const Picture& p : prompt->pictures) pictures.push_back(&p);
  }
  if (!pictures.empty()) share_features(encode(pictures), out, prompts);
  return out;
}

Batch Runner::run(std::span<Sequence* const> sequences, bool keep) {
  Batch batch = embed(sequences, keep);
  const model::Stack& stack = spec().text.stack;
  for (size_t i = 0; i < stack.blocks.size(); ++i)
    run_block(stack, static_cast<int64_t>(i), batch, weights_, observer_);
  return batch;
}

Matrix Runner::feed(std::span<Sequence* const> sequences, std::span<const int64_t> last, bool keep) {
  const Batch batch = run(sequences, keep);
  return logits(batch, last_rows(batch, last));
}

std::vector<int64_t> last_rows(const Batch& batch, std::span<const int64_t> last) {
  NIBBLE_CHECK(last.size() == batch.segments.size());
  std::vector<int64_t> rows;
  for (size_t i = 0; i < last.size(); ++i) {
    const Segment& s = batch.segments[i];
    NIBBLE_CHECK(last[i] >= 0 && last[i] <= s.rows);
    for (int64_t r = s.rows - last[i]; r < s.rows; ++r) rows.push_back(s.begin + r);
  }
  return rows;
}

bool Runner::is_end(int64_t id) const {
  const auto& end = spec().tokens.end;
  return std::find(end.begin(), end.end(), id) != end.end();
}

std::vector<std::vector<int64_t>> Runner::generate(std::span<const Prompt* const> prompts, int64_t limit) {
  std::vector<Sequence> sequences = start(prompts);
  std::vector<std::vector<int64_t>> out(prompts.size());
  std::vector<size_t> running(prompts.size());
  for (size_t i = 0; i < running.size(); ++i) running[i] = i;
  for (int64_t step = 0; step < limit && !running.empty(); ++step) {
    std::vector<Sequence*> batch;
    for (size_t i : running) batch.push_back(&sequences[i]);
    const Matrix logits = feed(batch, std::vector<int64_t>(batch.size(), 1), true);
    std::vector<size_t> still;
    for (size_t k = 0; k < running.size(); ++k) {
      const size_t i = running[k];
      Sequence& s = sequences[i];
      const int64_t id =
          kernels::argmax({logits.row(static_cast<int64_t>(k)), static_cast<size_t>(logits.cols())});
      if (is_end(id)) {
        s = {};
        continue;
      }
      out[i].push_back(id);
      s.append(id);
      still.push_back(i);
    }
    running = std::move(still);
  }
  return out;
}

}  // namespace nibble::run
