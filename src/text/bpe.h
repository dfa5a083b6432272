// Byte-pair encoding of single words.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/json.h"

namespace nibble::text {

/// The model part of tokenizer.json. Immutable, hence thread-safe.
class Bpe {
 public:
  /// Ids are below this.
  static constexpr int64_t kMaxIds = int64_t{1} << 24;

  /// Throws Error naming `what` and the part that is wrong or not supported.
  Bpe(const io::Json& model, const std::string& what);

  /// Appends the ids of a word, a part of a text after the pre-tokenizer. Characters that the vocabulary does
  /// not have become unk_token, or vanish where there is none. O(n log n) in the length of the word. Throws
  /// Error when unk_token is needed but not in the vocabulary itself.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;

  std::optional<int64_t> id_of(std::string_view token) const;
  /// The token, or nullptr.
  const std::string* token_of(int64_t id) const;
  /// Number of tokens.
  int64_t tokens() const { return static_cast<int64_t>(vocab_.size()); }
  int64_t max_id() const { return max_id_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  struct Symbol;
  struct Candidate;

  void read_vocab(const io::Json& vocab, const std::string& what);
  void read_merges(const io::Json& merges, const std::string& what);
  const Merge* merge_of(int32_t left, int32_t right) const;
  int32_t unk_id() const;
  std::vector<Symbol> symbols_of(std::string_view word) const;
  void merge_all(std::vector<Symbol>& symbols) const;

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> vocab_;
  std::unordered_map<int32_t, const std::string*> tokens_;  // keys of vocab_ by id
  std::unordered_map<uint64_t, Merge> merges_;              // by left id << 32 | right id
  std::vector<int32_t> id_of_byte_;                         // <0x00>..<0xFF>, -1 where there is none
  std::optional<std::string> unk_;
  std::string what_;
  int64_t max_id_ = -1;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
};

}  // namespace nibble::text
