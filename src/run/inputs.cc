#include "run/inputs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::run {

namespace {

/// True for the families whose picture features stand among the embeddings of the text.
bool in_place(const model::Spec& spec) {
  return spec.vision && !spec.sees_across();
}

}  // namespace

int64_t tower_rows(const Picture& picture, const model::Vision& vision) {
  return vision.tiles ? vision.tiles->count * vision.tiles->padded_rows() : picture.patches();
}

int64_t feature_rows(const Picture& picture, const model::Vision& vision) {
  return vision.tiles ? vision.tiles->count * vision.tiles->tile_rows()
                      : picture.patches() / (vision.merge * vision.merge);
}

void check_prompt(const Prompt& prompt, const model::Spec& spec) {
  if (prompt.ids.empty()) fail("the prompt is empty; give at least one token");
  for (const auto* ids : {&prompt.ids, &prompt.continuation})
    for (int64_t id : *ids)
      if (id < 0 || id >= spec.text.embedding_rows)
        fail(
            "token id {} is outside the model's vocabulary of {}; tokenizer.json and config.json do not "
            "belong "
            "together",
            id, spec.text.embedding_rows);
  if (const auto tokens = static_cast<int64_t>(prompt.ids.size() + prompt.continuation.size());
      tokens > spec.text.max_positions)
    fail(
        "the prompt has {} tokens, but the model (max_position_embeddings or sliding_window) takes {}; "
        "shorten it",
        tokens, spec.text.max_positions);
}

std::vector<Position> prompt_positions(const Prompt& prompt, const model::Spec& spec, int64_t& next) {
  std::vector<Position> out;
  out.reserve(prompt.ids.size());
  size_t picture = 0;
  next = 0;
  for (size_t i = 0; i < prompt.ids.size();) {
    if (!spec.vision || prompt.ids[i] != spec.tokens.image) {
      out.push_back({next, next, next});
      ++next;
      ++i;
      continue;
    }
    if (picture == prompt.pictures.size())
      fail("the prompt has more image tokens than its {} picture(s) fill", prompt.pictures.size());
    const Picture& p = prompt.pictures[picture++];
    if (!in_place(spec)) {
      out.push_back({next, next, next});
      ++next;
      ++i;
      continue;
    }
    const int64_t merge = spec.vision->merge;
    const int64_t rows = p.grid_h / merge, cols = p.grid_w / merge, needed = p.grid_t * rows * cols;
    const int64_t start = next;
    // Other tokens may stand between the rows of a picture, unless its positions are spread.
    for (int64_t n = 0; n < needed; ++i) {
      const bool image = i < prompt.ids.size() && prompt.ids[i] == spec.tokens.image;
      if (i >= prompt.ids.size() || (!image && spec.vision->spread_positions))
        fail("picture {} of the prompt needs {} image tokens, but fewer follow each other", picture, needed);
      if (spec.vision->spread_positions) {
        out.push_back({start + n / (rows * cols), start + n / cols % rows, start + n % cols});
      } else {
        out.push_back({next, next, next});
        ++next;
      }
      if (image) ++n;
    }
    if (spec.vision->spread_positions) next = start + std::max({p.grid_t, rows, cols});
  }
  if (picture != prompt.pictures.size())
    fail("the prompt has {} pictures, but image tokens for {}", prompt.pictures.size(), picture);
  return out;
}

Sights prompt_sights(const Prompt& prompt, const model::Spec& spec) {
  Sights out;
  const size_t n = prompt.ids.size();
  out.of_token.assign(n, -1);
  std::vector<size_t> at;
  for (size_t i = 0; i < n; ++i)
    if (prompt.ids[i] == spec.tokens.image) at.push_back(i);
  if (at.empty()) return out;
  // Where the text ends that each picture is seen by.
  std::vector<size_t> end(at.size(), n);
  for (size_t p = at.size() - 1; p-- > 0;) end[p] = at[p] + 1 == at[p + 1] ? end[p + 1] : at[p + 1];
  const auto& tiles = *spec.vision->tiles;
  const int64_t rows = tiles.count * tiles.tile_rows();
  for (size_t i = at.front(); i < n; ++i) {
    std::vector<Range> view;
    for (size_t p = 0; p < at.size(); ++p)
      if (at[p] <= i && i < end[p]) {
        const int64_t begin = static_cast<int64_t>(p) * rows;
        view.push_back({begin, begin + prompt.pictures[p].tiles * tiles.tile_rows()});
      }
    if (out.views.empty() || out.views.back() != view) out.views.push_back(std::move(view));
    out.of_token[i] = static_cast<int32_t>(out.views.size()) - 1;
  }
  return out;
}

std::vector<Position> patch_positions(const Picture& picture, int64_t merge) {
  std::vector<Position> out;
  out.reserve(static_cast<size_t>(picture.patches()));
  for (int64_t t = 0; t < picture.grid_t; ++t)
    for (int64_t r = 0; r < picture.grid_h; r += merge)
      for (int64_t c = 0; c < picture.grid_w; c += merge)
        for (int64_t y = 0; y < merge; ++y)
          for (int64_t x = 0; x < merge; ++x) out.push_back({r + y, c + x, 0});
  return out;
}

std::vector<Modality> prompt_modality(std::span<const int64_t> ids, const model::Spec& spec) {
  std::vector<Modality> out;
  out.reserve(ids.size());
  for (int64_t id : ids)
    out.push_back(in_place(spec) && id == spec.tokens.image ? Modality::vision : Modality::text);
  return out;
}

void rotary_angles(const model::Rope& rope, std::span<const Position> positions, int64_t length,
                   MutableMatrix cosine, MutableMatrix sine) {
  const bool longer = !rope.long_frequency.empty() && length > rope.original_positions;
  const std::vector<float>& frequency = longer ? rope.long_frequency : rope.frequency;
  const size_t n = frequency.size();
  NIBBLE_CHECK(cosine.cols == static_cast<int64_t>(n) && rope.axis.size() == n &&
               cosine.rows == static_cast<int64_t>(positions.size()));
  for (size_t r = 0; r < positions.size(); ++r) {
    float* c = cosine.row(static_cast<int64_t>(r));
    float* s = sine.row(static_cast<int64_t>(r));
    for (size_t j = 0; j < n; ++j) {
      const float angle = static_cast<float>(positions[r][rope.axis[j]]) * frequency[j];
      c[j] = std::cos(angle) * rope.scale;
      s[j] = std::sin(angle) * rope.scale;
    }
  }
}

}  // namespace nibble::run
