// The added_tokens part of tokenizer.json: tokens that are found in a text before it is split into words.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/json.h"
#include "text/bpe.h"
#include "text/normalizer.h"

namespace nibble::text {

/// A part of a text: text that is still to be encoded, or an added token by its id.
struct Piece {
  std::string text;
  int64_t token = -1;
};

/// Immutable, hence thread-safe.
class AddedTokens {
 public:
  /// `json` is the array, or null. Throws Error naming `what` and the token that is wrong: contents and ids
  /// must be unique, and each id the one that the reference gives the token (that of the vocabulary, or the
  /// next free one).
  AddedTokens(const io::Json& json, const std::string& what, const Bpe& model, const Normalizer& normalizer);

  /// Cuts a text, valid UTF-8, at the added tokens and normalizes what lies between them. Tokens with
  /// normalized=false are looked for in the text as it is, the others after it was normalized; the leftmost
  /// token goes first, and the longest of those that begin there.
  std::vector<Piece> extract(std::string_view text) const;

  std::optional<int64_t> id_of(std::string_view content) const;
  /// The content, or nullptr.
  const std::string* content_of(int64_t id) const;
  /// True when a special token has this content, wherever its id comes from.
  bool is_special(std::string_view content) const;
  int64_t max_id() const { return max_id_; }

 private:
  struct Token {
    std::string content;
    int64_t id;
    bool single_word, lstrip, rstrip, normalized, special;
  };

  /// Texts to look for, as a tree of bytes.
  class Tree {
   public:
    Tree() { root_.fill(0); }
    void add(std::string_view text, size_t token);
    bool empty() const { return nodes_.size() == 1; }
    struct Match {
      size_t token, end;
    };
    /// The longest text of the tree that begins at text[at].
    std::optional<Match> longest_at(std::string_view text, size_t at) const;

   private:
    static constexpr size_t kNone = ~size_t{0};
    uint32_t child(uint32_t node, unsigned char byte) const;

    std::vector<size_t> nodes_ = {kNone};  // the token that ends at each node
    std::array<uint32_t, 256> root_;       // children of node 0; 0 where there is none
    std::unordered_map<uint64_t, uint32_t> children_;
  };

  Token read(const io::Json& json, const std::string& what) const;
  void split(const Tree& tree, std::string_view text, std::vector<Piece>& pieces) const;

  std::vector<Token> tokens_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_map<int64_t, size_t> by_id_;
  Tree raw_, normalized_;
  const Normalizer& normalizer_;
  int64_t max_id_ = -1;
};

}  // namespace nibble::text
