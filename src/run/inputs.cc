#include "run/inputs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::run {

std::vector<Position> prompt_positions(const Prompt& prompt, const model::Spec& spec, int64_t& next) {
  const int64_t merge = spec.vision ? spec.vision->merge : 1;
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
    const int64_t rows = p.grid_h / merge, cols = p.grid_w / merge;
    for (int64_t t = 0; t < p.grid_t; ++t)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c, ++i) {
          if (i >= prompt.ids.size() || prompt.ids[i] != spec.tokens.image)
            fail("picture {} of the prompt needs {} image tokens, but fewer follow each other", picture,
                 p.grid_t * rows * cols);
          out.push_back({next + t, next + r, next + c});
        }
    next += std::max({p.grid_t, rows, cols});
  }
  if (picture != prompt.pictures.size())
    fail("the prompt has {} pictures, but image tokens for {}", prompt.pictures.size(), picture);
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
    out.push_back(spec.vision && id == spec.tokens.image ? Modality::vision : Modality::text);
  return out;
}

void rotary_angles(const model::Rope& rope, int64_t head_dim, std::span<const Position> positions,
                   MutableMatrix cosine, MutableMatrix sine) {
  const int64_t half = head_dim / 2;
  NIBBLE_CHECK(cosine.cols == half && cosine.rows == static_cast<int64_t>(positions.size()));
  // Frequency of each angle and the axis that it follows.
  const auto n = static_cast<size_t>(half);
  std::vector<float> frequency(n);
  std::vector<size_t> axis(n);
  const auto theta = static_cast<float>(rope.theta);
  if (rope.kind == model::Rope::Kind::sections) {
    size_t j = 0;
    for (size_t s = 0; s < rope.sections.size(); ++s)
      for (int64_t i = 0; i < rope.sections[s]; ++i) axis[j++] = s;
    NIBBLE_CHECK(j == n);
    for (j = 0; j < n; ++j)
      frequency[j] = 1.0f / std::pow(theta, static_cast<float>(2 * j) / static_cast<float>(head_dim));
  } else {
    const size_t quarter = n / 2;
    for (size_t j = 0; j < n; ++j) {
      axis[j] = j / quarter;
      frequency[j] = 1.0f / std::pow(theta, static_cast<float>(2 * (j % quarter)) / static_cast<float>(half));
    }
  }
  for (size_t r = 0; r < positions.size(); ++r) {
    float* c = cosine.row(static_cast<int64_t>(r));
    float* s = sine.row(static_cast<int64_t>(r));
    for (size_t j = 0; j < n; ++j) {
      const float angle = static_cast<float>(positions[r][axis[j]]) * frequency[j];
      c[j] = std::cos(angle);
      s[j] = std::sin(angle);
    }
  }
}

}  // namespace nibble::run
