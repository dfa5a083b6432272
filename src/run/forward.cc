#include "run/forward.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::run {
namespace {

/// Which rows of a segment see what, from the views of the sequence's tokens not yet fed. A row that sees no
/// picture attends to all of them, empty tiles too: so does the reference, whose mask is zero there; what the
/// MLP makes of it is dropped.
void sight_ranges(const Sequence& s, Segment& segment) {
  for (int64_t r = 0; r < segment.rows;) {
    const int32_t view = s.sights.of_token[static_cast<size_t>(s.fed + r)];
    int64_t end = r;
    while (end < segment.rows && s.sights.of_token[static_cast<size_t>(s.fed + end)] == view) ++end;
    if (view < 0) segment.blind.push_back({r, end});
    segment.sights.push_back(
        {{{r, end}},
         view < 0 ? std::vector{Range{0, s.cross_rows}} : s.sights.views[static_cast<size_t>(view)]});
    r = end;
  }
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
    for (int64_t t = 0; t < p->grid_t; ++t)
      batch.segments.push_back(
          {.begin = at + t * p->grid_h * p->grid_w, .rows = p->grid_h * p->grid_w, .picture = p});
    at += p->patches();
  }
  batch.hidden = Matrix(rows, vision.stack.hidden);
  kernels::linear(pixels.view(), weights_.matrix(vision.patch_linear), {}, batch.hidden.mut());
  if (observer_)
    for (const std::string& module : {vision.patch_linear, vision.patch_embed})
      if (!module.empty()) observer_->output(module, batch.hidden.view());
  if (vision.tiles) return embed_tiles(pictures, batch.hidden);
  for (const Picture* p : pictures)
    for (const Position& position : patch_positions(*p, vision.merge)) positions.push_back(position);
  if (vision.embedding_norm)
    batch.hidden = apply(*vision.embedding_norm, batch.hidden.view(), weights_, observer_);
  const auto angles = static_cast<int64_t>(vision.stack.rope.frequency.size());
  batch.cosine = Matrix(rows, angles);
  batch.sine = Matrix(rows, angles);
  rotary_angles(vision.stack.rope, positions, 0, batch.cosine.mut(), batch.sine.mut());
  batch.modality.assign(static_cast<size_t>(rows), Modality::vision);
  return batch;
}

/// Tiles with their embeddings of place, the empty ones too. The mask of the reference hides filled-up rows
/// and empty tiles from each other only: every row of the picture sees all rows, and those see the picture's.
Batch Runner::embed_tiles(std::span<const Picture* const> pictures, const Matrix& patches) {
  const model::Vision& vision = *spec().vision;
  const model::Tiles& tiles = *vision.tiles;
  const int64_t hidden = vision.stack.hidden, per_tile = tiles.side * tiles.side,
                padded = tiles.padded_rows();
  const auto count = static_cast<int64_t>(pictures.size());
  Batch batch;
  batch.hidden = Matrix::zeros(count * tiles.count * padded, hidden);
  batch.cosine = Matrix(batch.hidden.rows(), 0);
  batch.sine = Matrix(batch.hidden.rows(), 0);
  batch.modality.assign(static_cast<size_t>(batch.hidden.rows()), Modality::vision);
  const auto class_row = weights_.vector(tiles.class_embedding);
  const Matrix place = [&] {
    Matrix out(tiles.tile_rows(), hidden);
    const auto values = weights_.vector(tiles.position + ".embedding");
    const float gate = 1 - std::tanh(weights_.vector(tiles.position + ".gate")[0]);
    for (size_t i = 0; i < values.size(); ++i) out.data()[i] = values[i] * gate;
    return out;
  }();
  const float tile_gate = std::tanh(weights_.vector(tiles.position + ".gate")[0]);
  const TensorView table = weights_.binding().tensor(tiles.position + ".tile_embedding.weight");
  Matrix tile_place(1, table.shape[1]), rows(tiles.count * tiles.tile_rows(), hidden);
  int64_t from = 0;
  for (int64_t p = 0; p < count; ++p) {
    const Picture& picture = *pictures[static_cast<size_t>(p)];
    Matrix embedded = Matrix::zeros(tiles.count * per_tile, hidden);
    std::copy_n(patches.row(from), picture.patches() * hidden, embedded.data());
    from += picture.patches();
    add_tile_embedding(tiles.before, picture.aspect_ratio, weights_, embedded.mut());
    kernels::gather_rows(table, {&picture.aspect_ratio, 1}, tile_place.mut());
    for (int64_t t = 0; t < tiles.count; ++t)
      for (int64_t r = 0; r < tiles.tile_rows(); ++r) {
        const float* x = r == 0 ? class_row.data() : embedded.row(t * per_tile + r - 1);
        const float* in_tile = tile_place.data() + (t * tiles.tile_rows() + r) * hidden;
        float* y = rows.row(t * tiles.tile_rows() + r);
        for (int64_t c = 0; c < hidden; ++c) y[c] = x[c] + place.row(r)[c] + in_tile[c] * tile_gate;
      }
    const Matrix normed = apply(*vision.embedding_norm, rows.view(), weights_, observer_);
    const int64_t begin = p * tiles.count * padded;
    Segment segment{.begin = begin, .rows = tiles.count * padded, .picture = &picture};
    std::vector<Range> own, filled;
    for (int64_t t = 0; t < tiles.count; ++t) {
      std::copy_n(normed.row(t * tiles.tile_rows()), tiles.tile_rows() * hidden,
                  batch.hidden.row(begin + t * padded));
      const int64_t end = t < picture.tiles ? tiles.tile_rows() : 0;
      if (end > 0) own.push_back({t * padded, t * padded + end});
      if (end < padded) filled.push_back({t * padded + end, (t + 1) * padded});
    }
    segment.reach = {{own, {{0, segment.rows}}}};
    if (!filled.empty()) segment.reach.push_back({filled, own});
    batch.segments.push_back(std::move(segment));
  }
  return batch;
}

/// The rows of all tiles without those that fill up, the kept blocks' outputs behind the last one's: feature
/// c of kept block k stands at hidden + c * kept + k.
Matrix Runner::join_tiles(const Batch& tower) {
  const model::Vision& vision = *spec().vision;
  const model::Tiles& tiles = *vision.tiles;
  const auto& kept = vision.stack.kept;
  const int64_t hidden = vision.stack.hidden, padded = tiles.padded_rows();
  const int64_t count = tower.hidden.rows() / padded;
  Matrix out(count * tiles.tile_rows(), hidden * static_cast<int64_t>(1 + kept.size()));
  for (int64_t t = 0; t < count; ++t)
    for (int64_t r = 0; r < tiles.tile_rows(); ++r) {
      float* y = out.row(t * tiles.tile_rows() + r);
      std::copy_n(tower.hidden.row(t * padded + r), hidden, y);
      for (size_t k = 0; k < kept.size(); ++k) {
        const float* x = tower.kept.at(kept[k]).row(t * padded + r);
        const auto step = std::ssize(kept), at = static_cast<int64_t>(k);
        for (int64_t c = 0; c < hidden; ++c) y[hidden + c * step + at] = x[c];
      }
    }
  return out;
}

Matrix Runner::connect(const Batch& tower) {
  const model::Vision& vision = *spec().vision;
  const bool inside = vision.connector.starts_with(vision.name + ".");
  const auto told = [&](const std::string& module, const Matrix& y) {
    if (observer_ && !module.empty()) observer_->output(module, y.view());
  };
  Matrix joined, normed;
  if (vision.tiles) joined = join_tiles(tower);
  const Matrix* rows = vision.tiles ? &joined : &tower.hidden;
  if (!inside) told(vision.name, *rows);
  if (vision.connector_norm) {
    normed = apply(*vision.connector_norm, rows->view(), weights_, observer_);
    rows = &normed;
  }
  const int64_t neighbours = vision.merge * vision.merge, features = rows->cols() * neighbours;
  ConstMatrix x{rows->data(), rows->rows() / neighbours, features, features};
  const std::vector<Modality> modality(static_cast<size_t>(x.rows), Modality::vision);
  std::vector<Range> calls;
  for (const Segment& s : tower.segments) {
    const int64_t begin = calls.empty() ? 0 : calls.back().end;
    calls.push_back({begin, begin + s.rows * rows->rows() / tower.hidden.rows() / neighbours});
  }
  Matrix out;
  for (size_t i = 0; i < vision.connector_linears.size(); ++i) {
    const model::Linear& linear = vision.connector_linears[i];
    tell_tap(observer_, {&linear, 1}, x, modality);
    Matrix y = apply(linear, x, calls, weights_, observer_);
    if (i + 1 < vision.connector_linears.size()) {
      kernels::activate(vision.connector_activation, y.mut());
      told(vision.connector_activation_name, y);
    }
    out = std::move(y);
    x = out.view();
  }
  told(vision.connector_mlp, out);
  told(vision.connector, out);
  if (inside) told(vision.name, out);
  return out;
}

Matrix Runner::encode(std::span<const Picture* const> pictures) {
  Batch batch = embed_patches(pictures);
  for (int64_t i = 0; i < spec().vision->blocks_used; ++i)
    run_block(spec().vision->stack, i, batch, weights_, observer_);
  return connect(batch);
}

Batch Runner::embed(std::span<Sequence* const> sequences, bool keep) {
  const model::Text& text = spec().text;
  const model::Rope& rope = text.stack.rope;
  std::vector<int64_t> ids;
  Batch batch;
  for (Sequence* s : sequences) {
    NIBBLE_CHECK(keep || s->fed == 0, "a sequence with a cache is fed on with it");
    const auto length = static_cast<int64_t>(s->ids.size());
    if (!rope.long_frequency.empty() && s->fed <= rope.original_positions &&
        length > rope.original_positions) {
      s->cache = std::vector<LayerCache>(s->cache.size());
      s->fed = 0;
    }
    batch.segments.push_back({.begin = static_cast<int64_t>(ids.size()),
                              .rows = length - s->fed,
                              .cache = keep ? &s->cache : nullptr});
    const auto fed = static_cast<ptrdiff_t>(s->fed);
    ids.insert(ids.end(), s->ids.begin() + fed, s->ids.end());
    batch.modality.insert(batch.modality.end(), s->modality.begin() + fed, s->modality.end());
  }
  const auto rows = static_cast<int64_t>(ids.size()), angles = static_cast<int64_t>(rope.frequency.size());
  batch.hidden = Matrix(rows, text.stack.hidden);
  const TensorView table = weights_.binding().tensor(text.embedding + ".weight");
  kernels::gather_rows(table, ids, batch.hidden.mut());
  // Each row brings in its neighbours, up to some MiB: a long answer would bring in the whole table.
  weights_.binding().checkpoint().drop(table);
  if (observer_) observer_->output(text.embedding, batch.hidden.view());
  batch.cosine = Matrix(rows, angles);
  batch.sine = Matrix(rows, angles);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& s = *sequences[i];
    const Segment& segment = batch.segments[i];
    rotary_angles(rope, std::span(s.positions).subspan(static_cast<size_t>(s.fed)),
                  static_cast<int64_t>(s.ids.size()),
                  batch.cosine.mut().row_range(segment.begin, segment.rows),
                  batch.sine.mut().row_range(segment.begin, segment.rows));
  }
  place_features(sequences, batch);
  for (Sequence* s : sequences) s->fed = static_cast<int64_t>(s->ids.size());
  return batch;
}

/// Puts the pictures' features where image tokens stand, or beside the batch for cross attention.
void Runner::place_features(std::span<Sequence* const> sequences, Batch& batch) {
  const int64_t hidden = spec().text.stack.hidden;
  std::shared_ptr<Matrix> cross;
  if (spec().sees_across()) {
    int64_t rows = 0;
    for (const Sequence* s : sequences) rows += s->features.rows();
    if (rows > 0) cross = std::make_shared<Matrix>(rows, hidden);
  }
  int64_t at = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& s = *sequences[i];
    Segment& segment = batch.segments[i];
    if (!s.sights.views.empty()) {
      segment.cross_begin = at;
      segment.cross_rows = s.features.rows();
      if (cross) std::copy_n(s.features.data(), s.features.rows() * hidden, cross->row(at));
      at += s.features.rows();
      sight_ranges(s, segment);
    } else if (s.features.rows() > 0) {
      int64_t feature = 0;
      for (int64_t r = 0; r < segment.rows; ++r)
        if (batch.modality[static_cast<size_t>(segment.begin + r)] == Modality::vision)
          std::copy_n(s.features.row(feature++), hidden, batch.hidden.row(segment.begin + r));
      NIBBLE_CHECK(feature == s.features.rows());
    }
    s.features = Matrix();
  }
  batch.cross = std::move(cross);
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
  if (!sights.of_token.empty()) sights.of_token.push_back(sights.of_token.back());
  ++next_position;
}

void go_on_from(const Sequence& prefix, Sequence& sequence) {
  NIBBLE_CHECK(sequence.fed == 0 && prefix.fed < std::ssize(sequence.ids));
  NIBBLE_CHECK(std::equal(prefix.positions.begin(), prefix.positions.begin() + prefix.fed,
                          sequence.positions.begin()) &&
               std::equal(prefix.ids.begin(), prefix.ids.begin() + prefix.fed, sequence.ids.begin()));
  NIBBLE_CHECK(sequence.features.rows() == 0, "the pictures of a prefix are not told from later ones");
  sequence.fed = prefix.fed;
  for (size_t i = 0; i < prefix.cache.size(); ++i)
    if (const LayerCache& cache = prefix.cache[i]; cache.rows() > 0)
      sequence.cache[i].append(cache.keys(), cache.values());
}

Sequence Runner::sequence(const Prompt& prompt) const {
  check_prompt(prompt, spec());
  Sequence out;
  out.ids = prompt.ids;
  out.positions = prompt_positions(prompt, spec(), out.next_position);
  out.modality = prompt_modality(prompt.ids, spec());
  if (spec().sees_across()) out.sights = prompt_sights(prompt, spec());
  for (int64_t id : prompt.continuation) out.append(id);
  out.cache.resize(spec().text.stack.blocks.size());
  return out;
}

void Runner::share_features(const Matrix& features, std::span<Sequence> sequences,
                            std::span<const Prompt* const> prompts) const {
  int64_t at = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    int64_t rows = 0;
    for (const Picture& p : prompts[i]->pictures) rows += feature_rows(p, *spec().vision);
    if (rows == 0) continue;
    if (spec().sees_across()) sequences[i].cross_rows = rows;
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
      if (std::ssize(s.ids) <= spec().text.max_positions) still.push_back(i);
    }
    running = std::move(still);
  }
  return out;
}

}  // namespace nibble::run
