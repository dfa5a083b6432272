// The post_processor and decoder parts of tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"

namespace nibble::text {

/// ByteLevel (which has no effect on ids), TemplateProcessing, or a Sequence of them with at most one
/// template. Immutable, hence thread-safe.
class PostProcessor {
 public:
  /// `json` may be null. Throws Error naming `what` and the part that is wrong or not supported.
  PostProcessor(const io::Json& json, const std::string& what);

  /// The ids of a text, put where the template for a single text has them, between the template's special
  /// tokens if these are wanted.
  std::vector<int64_t> apply(std::vector<int64_t> ids, bool add_special_tokens) const;

 private:
  /// Ids of a special token, or nothing for the place of the text.
  using Part = std::optional<std::vector<int64_t>>;

  void add(const io::Json& json, const std::string& what, int depth);
  static std::vector<Part> read_template(const io::Fields& fields);

  std::optional<std::vector<Part>> template_;
};

/// ByteLevel, Fuse, or a Sequence of them. Immutable, hence thread-safe.
class Decoder {
 public:
  /// `json` may be null: then tokens are joined by spaces. Throws Error naming `what` and the part that is
  /// not supported.
  Decoder(const io::Json& json, const std::string& what);

  /// The text of tokens.
  std::string decode(std::vector<std::string> tokens) const;
  /// The bytes of the text that one token stands for; a part of a character where the token holds no more.
  std::string bytes_of(std::string token) const;

 private:
  enum class Step { byte_level, fuse };

  void add(const io::Json& json, const std::string& what, int depth);

  bool join_by_spaces_ = false;
  std::vector<Step> steps_;
};

}  // namespace nibble::text
