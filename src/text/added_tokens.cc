#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

bool is_space(std::string_view text, size_t at) {
  return space_set().contains(static_cast<UChar32>(code_point_at(text, at)));
}

bool is_word(std::string_view text, size_t at) {
  return added_token_word_set().contains(static_cast<UChar32>(code_point_at(text, at)));
}

/// True when neither neighbour of text[begin, end) belongs to a word.
bool stands_alone(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word(text, utf8_previous(text, begin))) &&
         (end == text.size() || !is_word(text, end));
}

}  // namespace

void AddedTokens::Tree::add(std::string_view text, size_t token) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    uint32_t& next = node == 0 ? root_[byte] : children_[uint64_t{node} << 8 | byte];
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back(kNone);
    }
    node = next;
  }
  // Of two tokens with the same normalized text the first one is found.
  if (nodes_[node] == kNone) nodes_[node] = token;
}

uint32_t AddedTokens::Tree::child(uint32_t node, unsigned char byte) const {
  if (node == 0) return root_[byte];
  const auto it = children_.find(uint64_t{node} << 8 | byte);
  return it == children_.end() ? 0 : it->second;
}

std::optional<AddedTokens::Tree::Match> AddedTokens::Tree::longest_at(std::string_view text,
                                                                      size_t at) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  while (at < text.size()) {
    node = child(node, static_cast<unsigned char>(text[at++]));
    if (node == 0) break;
    if (nodes_[node] != kNone) longest = Match{nodes_[node], at};
  }
  return longest;
}

AddedTokens::AddedTokens(const io::Json& json, const std::string& what, const Bpe& model,
                         const Normalizer& normalizer)
    : normalizer_(normalizer) {
  if (!json.is_null() && !json.is_array()) fail("{} is not an array", what);
  int64_t next_id = model.tokens();
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", what, i);
    Token token = read(json[i], place);
    if (token.content.empty()) continue;
    const std::string shown = printable(token.content, 40);
    if (!by_content_.emplace(token.content, tokens_.size()).second)
      fail("{}: \"{}\" is there twice", place, shown);
    const auto known = model.id_of(token.content);
    const int64_t id = known ? *known : next_id++;
    if (token.id != id)
      fail(
          "{}: \"{}\" has the id {}, but its place in the file gives it {}: put the tokens in the order of "
          "their ids",
          place, shown, token.id, id);
    if (!by_id_.emplace(id, tokens_.size()).second || (!known && model.token_of(id) != nullptr))
      fail("{}: the id {} of \"{}\" belongs to another token", place, id, shown);
    max_id_ = std::max(max_id_, id);
    tokens_.push_back(std::move(token));
  }
  for (const bool special : {true, false})
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].special != special) continue;
      if (tokens_[i].normalized)
        normalized_.add(normalizer.normalize(tokens_[i].content), i);
      else
        raw_.add(tokens_[i].content, i);
    }
}

AddedTokens::Token AddedTokens::read(const io::Json& json, const std::string& what) const {
  const io::Fields fields(json, what);
  Token token = {
      .content = fields.string("content"),
      .id = fields.integer("id"),
      .single_word = fields.boolean("single_word"),
      .lstrip = fields.boolean("lstrip"),
      .rstrip = fields.boolean("rstrip"),
      .normalized = fields.boolean("normalized"),
      .special = fields.boolean("special"),
  };
  if (token.id < 0 || token.id >= Bpe::kMaxIds)
    fail("{}: the id of \"{}\" is {}, not from 0 to {}", what, printable(token.content, 40), token.id,
         Bpe::kMaxIds - 1);
  return token;
}

void AddedTokens::split(const Tree& tree, std::string_view text, std::vector<Piece>& pieces) const {
  size_t done = 0;
  size_t spaces_end = 0;  // of the spaces that a token stripped last
  for (size_t at = 0; !tree.empty() && at < text.size();) {
    const auto match = tree.longest_at(text, at);
    if (!match) {
      ++at;
      continue;
    }
    const Token& token = tokens_[match->token];
    size_t begin = std::exchange(at, match->end);
    size_t end = match->end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) {
      begin = std::max(begin, done);
      while (begin > done && is_space(text, utf8_previous(text, begin))) begin = utf8_previous(text, begin);
    }
    if (token.rstrip) {
      end = std::max(end, std::min(spaces_end, text.size()));
      while (end < text.size() && is_space(text, end)) end += utf8_length(text[end]);
      spaces_end = end;
    }
    if (done < begin) pieces.push_back({std::string(text.substr(done, begin - done))});
    // A token of spaces vanishes where the token before it stripped all of them. The text goes on after this
    // match in any case, even where it ends before the spaces that were stripped.
    if (begin < end) pieces.push_back({{}, token.id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({std::string(text.substr(done))});
}

std::vector<Piece> AddedTokens::extract(std::string_view text) const {
  std::vector<Piece> raw, pieces;
  split(raw_, text, raw);
  for (Piece& piece : raw) {
    if (piece.token >= 0)
      pieces.push_back(std::move(piece));
    else
      split(normalized_, normalizer_.normalize(piece.text), pieces);
  }
  return pieces;
}

std::optional<int64_t> AddedTokens::id_of(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  if (it == by_content_.end()) return std::nullopt;
  return tokens_[it->second].id;
}

const std::string* AddedTokens::content_of(int64_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second].content;
}

bool AddedTokens::is_special(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it != by_content_.end() && tokens_[it->second].special;
}

}  // namespace nibble::text
