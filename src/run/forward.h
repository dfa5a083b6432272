// Whole forward passes: vision tower, language model, greedy generation with a key-value cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "run/block.h"
#include "run/inputs.h"

namespace nibble::run {

/// A sequence that is being run. Make it with start(), then feed it.
struct Sequence {
  std::vector<int64_t> ids;         // all tokens so far
  int64_t fed = 0;                  // how many of them the cache holds
  int64_t next_position = 0;        // of the token after the last
  std::vector<Position> positions;  // of the tokens in ids
  std::vector<Modality> modality;   // of the tokens in ids: vision where a picture's features stand
  Sights sights;                    // of the tokens in ids, for cross attention; no views: no pictures
  int64_t cross_rows = 0;           // of its pictures' features, for cross attention

  /// Appends a token of text, whatever its id.
  void append(int64_t id);
  std::vector<LayerCache> cache;  // one for each text block
  Matrix features;                // of its pictures, until they are fed
};

/// Gives a new sequence of text that begins with the tokens of `prefix` a copy of its cache, so that what
/// several sequences begin with is fed once.
void go_on_from(const Sequence& prefix, Sequence& sequence);

/// The rows of the last `last[i]` tokens of each segment i, one after the other.
std::vector<int64_t> last_rows(const Batch& batch, std::span<const int64_t> last);

/// Drives a model over batches of sequences. Not thread-safe; uses nibble's threads inside.
class Runner {
 public:
  explicit Runner(Weights& weights, Observer* observer = nullptr) : weights_(weights), observer_(observer) {}

  const model::Spec& spec() const { return weights_.binding().spec(); }
  Weights& weights() { return weights_; }
  void observe(Observer* observer) { observer_ = observer; }

  /// The rows of a picture batch as they enter the tower's first block: one segment a frame, or a picture.
  Batch embed_patches(std::span<const Picture* const> pictures);
  /// The connector over finished tower rows: the language model's features of all pictures.
  Matrix connect(const Batch& tower);
  /// All of the tower.
  Matrix encode(std::span<const Picture* const> pictures);

  /// A batch of the not yet fed tokens of some sequences, embedded, with picture features in place of image
  /// tokens, or beside them for cross attention. With `keep`, keys and values go to the sequences' caches. A
  /// sequence that has grown past the length from which other rotary frequencies count is fed again whole.
  Batch embed(std::span<Sequence* const> sequences, bool keep);
  /// Logits (rows, vocabulary) of chosen rows of finished hidden states.
  Matrix logits(const Batch& batch, std::span<const int64_t> rows);

  /// The sequence of a prompt, its pictures not yet encoded. Throws Error when image tokens do not fit the
  /// pictures, an id is outside the vocabulary, or the prompt is empty.
  Sequence sequence(const Prompt& prompt) const;
  /// Gives each sequence its rows of the merged features of all prompts' pictures, in order.
  void share_features(const Matrix& features, std::span<Sequence> sequences,
                      std::span<const Prompt* const> prompts) const;
  /// Sequences of prompts with their pictures encoded.
  std::vector<Sequence> start(std::span<const Prompt* const> prompts);
  /// Feeds all tokens not yet fed; a segment of finished hidden states for each sequence.
  Batch run(std::span<Sequence* const> sequences, bool keep);
  /// The same, then the logits of the last `last[i]` tokens of sequence i, one
  /// sequence after the other.
  Matrix feed(std::span<Sequence* const> sequences, std::span<const int64_t> last, bool keep);

  /// Greedy continuations of at most `limit` tokens, end tokens not included. All sequences run side by side.
  /// One ends too where it has grown as long as the model takes (Text::max_positions), after
  /// max_positions - prompt + 1 tokens.
  std::vector<std::vector<int64_t>> generate(std::span<const Prompt* const> prompts, int64_t limit);

 private:
  bool is_end(int64_t id) const;
  Batch embed_tiles(std::span<const Picture* const> pictures, const Matrix& patches);
  Matrix join_tiles(const Batch& tower);
  void place_features(std::span<Sequence* const> sequences, Batch& batch);

  Weights& weights_;
  Observer* observer_;
};

}  // namespace nibble::run
