#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/post.h"
#include "text/pre_tokenizer.h"

namespace nibble::text {
namespace {

constexpr size_t kMaxText = (size_t{1} << 30) - 1;
/// Words of up to this many bytes are encoded once for each text.
constexpr size_t kShortWord = 64;

/// A member of an object, or null when it is missing.
const io::Json& member(const io::Json& object, const char* key) {
  static const io::Json null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(const io::Json& json, const std::string& what)
      : model(member(json, "model"), what + ": model"),
        normalizer(member(json, "normalizer"), what + ": normalizer"),
        added(member(json, "added_tokens"), what + ": added_tokens", model, normalizer),
        pre_tokenizer(member(json, "pre_tokenizer"), what + ": pre_tokenizer"),
        post_processor(member(json, "post_processor"), what + ": post_processor"),
        decoder(member(json, "decoder"), what + ": decoder") {}

  const std::string* token_of(int64_t id) const {
    const std::string* content = added.content_of(id);
    return content != nullptr ? content : model.token_of(id);
  }

  Bpe model;
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
};

Tokenizer::Tokenizer(const io::Json& tokenizer_json, std::string what) {
  // truncation and padding are left out: they are for batches, and transformers resets them as well.
  const io::Fields fields(tokenizer_json, what);
  if (const auto version = fields.string("version", "1.0"); version != "1.0")
    fail("{}: the version of the format is {}, not 1.0", what, printable(version, 20));
  impl_ = std::make_unique<const Impl>(tokenizer_json, what);
}

Tokenizer Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  if (std::error_code ignored; !std::filesystem::exists(tokenizer_json, ignored))
    fail(
        "{}: is not there; copy it from where the weights come from, or let transformers make it of older "
        "files "
        "(AutoTokenizer.from_pretrained, then save_pretrained)",
        tokenizer_json.string());
  return Tokenizer(io::read_json(tokenizer_json), tokenizer_json.string());
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  const std::string valid = replace_invalid_utf8(text);
  if (valid.size() > kMaxText)
    fail("a text of {} is too long to be encoded at once", bytes_text(static_cast<int64_t>(valid.size())));
  std::vector<int64_t> ids;
  PreTokenizer::Splitter splitter(impl_->pre_tokenizer);
  // Ids of short words that came before: begin and end in `ids`.
  std::unordered_map<std::string, std::pair<size_t, size_t>> seen;
  for (const Piece& piece : impl_->added.extract(valid)) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
      continue;
    }
    for (const std::string_view word : splitter.words(piece.text)) {
      const size_t begin = ids.size();
      if (word.size() > kShortWord) {
        impl_->model.encode(word, ids);
        continue;
      }
      const auto [it, added] = seen.try_emplace(std::string(word), begin, begin);
      if (!added) {
        for (size_t i = it->second.first; i < it->second.second; ++i) ids.push_back(ids[i]);
        continue;
      }
      impl_->model.encode(word, ids);
      it->second.second = ids.size();
    }
  }
  return impl_->post_processor.apply(std::move(ids), add_special_tokens);
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int64_t id : ids) {
    const std::string* token = impl_->token_of(id);
    if (token == nullptr || (skip_special_tokens && impl_->added.is_special(*token))) continue;
    tokens.push_back(*token);
  }
  return impl_->decoder.decode(std::move(tokens));
}

int64_t Tokenizer::byte_count(int64_t id) const {
  if (const std::string* added = impl_->added.content_of(id)) return static_cast<int64_t>(added->size());
  const std::string* token = impl_->model.token_of(id);
  return token == nullptr ? 0 : static_cast<int64_t>(impl_->decoder.bytes_of(*token).size());
}

std::optional<int64_t> Tokenizer::id_of(std::string_view token) const {
  const auto id = impl_->added.id_of(token);
  return id ? id : impl_->model.id_of(token);
}

std::optional<std::string> Tokenizer::token_of(int64_t id) const {
  const std::string* token = impl_->token_of(id);
  if (token == nullptr) return std::nullopt;
  return *token;
}

int64_t Tokenizer::size() const {
  return std::max(impl_->model.max_id(), impl_->added.max_id()) + 1;
}

}  // namespace nibble::text
