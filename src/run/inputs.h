// What goes into a forward pass: token ids with pictures, and the positions that rotary embedding turns by.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/spec.h"
#include "records/inventory.h"
#include "tensor/tensor.h"

namespace nibble::run {

using records::Modality;

/// A picture as its image processor gives it. Copies share the pixels.
struct Picture {
  std::shared_ptr<const Matrix> pixels;        // (grid_t * grid_h * grid_w, patch features), in merge order
  int64_t grid_t = 1, grid_h = 0, grid_w = 0;  // in patches

  int64_t patches() const { return grid_t * grid_h * grid_w; }
};

/// A prompt, ready for the model: image tokens stand once for every merged patch of their picture.
struct Prompt {
  std::vector<int64_t> ids;
  std::vector<Picture> pictures;      // in the order of their tokens
  std::vector<int64_t> continuation;  // what follows, text whatever its ids: an answer that is teacher-forced
};

/// Position of a row on the axes of rotary embedding: time, height, width for text; row and column for
/// patches.
using Position = std::array<int64_t, 3>;

/// Positions of the prompt's ids (M-RoPE: a picture holds the time and spreads height and width; text after
/// it goes on from the largest position so far), and the position of the next token in `next`. Throws Error
/// when the image tokens do not fit the pictures.
std::vector<Position> prompt_positions(const Prompt& prompt, const model::Spec& spec, int64_t& next);

/// Row and column of every patch in merge order, frame after frame.
std::vector<Position> patch_positions(const Picture& picture, int64_t merge);

/// vision for the image tokens of the prompt's ids, text for the others.
std::vector<Modality> prompt_modality(std::span<const int64_t> ids, const model::Spec& spec);

/// cosine and sine (rows, head_dim / 2) of the rotary angles at the positions, in fp32 like the reference.
void rotary_angles(const model::Rope& rope, int64_t head_dim, std::span<const Position> positions,
                   MutableMatrix cosine, MutableMatrix sine);

}  // namespace nibble::run
