// tokenizer.json as published: byte-level BPE with Split patterns (ICU), NFC, added and special tokens,
// ignore_merges, ByteLevel and template post-processors, ByteLevel decoder. Ids are equal to the `tokenizers`
// library's on any text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::text {

/// Bytes as valid UTF-8: what is not is replaced by U+FFFD, as Python's bytes.decode("utf-8", "replace")
/// does.
std::string replace_invalid_utf8(std::string_view bytes);

/// Thread-safe after construction.
class Tokenizer {
 public:
  /// Throws Error naming `what` (a path) and the part of the file that is wrong or not supported.
  Tokenizer(const io::Json& tokenizer_json, std::string what);
  static Tokenizer load(const std::filesystem::path& tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Ids of a text; invalid UTF-8 is replaced first. With add_special_tokens, the post-processor's template
  /// is applied (begin-of-text and the like). Special tokens written out in the text are recognised in both
  /// cases.
  std::vector<int64_t> encode(std::string_view text, bool add_special_tokens) const;

  /// Text of ids, as the library's decode. Ids outside the vocabulary are skipped.
  std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const;

  /// Bytes of UTF-8 text that a token stands for: those of a byte-level token, the content of an added one; 0
  /// for an id outside the vocabulary. Over the ids of a text (without special tokens) they sum up to the
  /// bytes of the text as the normalizer leaves it.
  int64_t byte_count(int64_t id) const;

  /// Id of a token by its content (added tokens and vocabulary).
  std::optional<int64_t> id_of(std::string_view token) const;
  /// Content of a token, or nothing.
  std::optional<std::string> token_of(int64_t id) const;
  /// One more than the largest id.
  int64_t size() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace nibble::text
