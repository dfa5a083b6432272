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
  std::shared_ptr<const Matrix> pixels;        // (patches, patch features), tile after tile, in merge order
  int64_t grid_t = 1, grid_h = 0, grid_w = 0;  // in patches; of one tile, where there are tiles
  int64_t tiles = 1;                           // that the picture fills
  int64_t aspect_ratio = 0;                    // of its canvas of tiles: a row of the tower's embeddings

  int64_t patches() const { return tiles * grid_t * grid_h * grid_w; }
};

/// Rows that a picture has in the tower, and rows of features that the language model gets of it.
int64_t tower_rows(const Picture& picture, const model::Vision& vision);
int64_t feature_rows(const Picture& picture, const model::Vision& vision);

/// Rows [begin, end).
struct Range {
  int64_t begin = 0, end = 0;

  friend bool operator==(const Range&, const Range&) = default;
};

/// A prompt, ready for the model: image tokens stand once for every row of features of their picture, or once
/// for a picture that is seen by cross attention.
struct Prompt {
  std::vector<int64_t> ids;
  std::vector<Picture> pictures;      // in the order of their tokens
  std::vector<int64_t> continuation;  // what follows, text whatever its ids: an answer that is teacher-forced
};

/// Position of a row on the axes of rotary embedding: time, height, width for text; row and column for
/// patches.
using Position = std::array<int64_t, 3>;

/// Throws Error for a prompt that no model of this spec takes: without tokens, with one outside of the
/// vocabulary, or longer than it takes.
void check_prompt(const Prompt& prompt, const model::Spec& spec);

/// Positions of the prompt's ids, and the position of the next token in `next`. Where the family spreads
/// positions (M-RoPE), a picture holds the time and spreads height and width, and text after it goes on from
/// the largest position so far; otherwise tokens are counted. Throws Error when the image tokens do not fit
/// the pictures.
std::vector<Position> prompt_positions(const Prompt& prompt, const model::Spec& spec, int64_t& next);

/// What each of the prompt's ids sees by cross attention, as rows of the features of all pictures: the
/// picture whose token came last, up to the next one; pictures whose tokens follow each other are seen
/// together, by the text behind them. Ids before the first picture see nothing. Source: transformers 4.57,
/// models/mllama/processing_mllama.py.
struct Sights {
  std::vector<std::vector<Range>> views;
  std::vector<int32_t> of_token;  // index into views, -1 for nothing
};
Sights prompt_sights(const Prompt& prompt, const model::Spec& spec);

/// Row and column of every patch in merge order, frame after frame.
std::vector<Position> patch_positions(const Picture& picture, int64_t merge);

/// vision where a picture's features stand in the prompt's ids, text elsewhere.
std::vector<Modality> prompt_modality(std::span<const int64_t> ids, const model::Spec& spec);

/// cosine and sine (rows, frequencies) of the rotary angles at the positions, in fp32 like the reference, for
/// a sequence of `length` tokens.
void rotary_angles(const model::Rope& rope, std::span<const Position> positions, int64_t length,
                   MutableMatrix cosine, MutableMatrix sine);

}  // namespace nibble::run
