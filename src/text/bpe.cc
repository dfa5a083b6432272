#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

/// Both tokens of a merge, written "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> merge_parts(const io::Json& merge, const std::string& place) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  if (!merge.is_string()) fail("{} is neither \"a b\" nor [\"a\", \"b\"]", place);
  const std::string_view line = merge.get_ref<const std::string&>();
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
    fail("{} is \"{}\", not two tokens with one space between them", place, printable(line, 60));
  return {line.substr(0, space), line.substr(space + 1)};
}

}  // namespace

/// A piece of a word: pieces that were merged into their left neighbour have no length.
struct Bpe::Symbol {
  int32_t id;
  int64_t previous, next;  // -1 at the ends
  bool merged = false;
};

/// A merge that is possible at a symbol; the lowest rank goes first, then the leftmost.
struct Bpe::Candidate {
  uint32_t rank;
  int64_t at;
  int32_t id;

  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

Bpe::Bpe(const io::Json& model, const std::string& what) : what_(what) {
  const io::Fields fields(model, what);
  if (const auto type = fields.string("type", "BPE"); type != "BPE")
    fail("{}: models of type {} are not supported, only BPE", what, printable(type, 40));
  if (fields.number("dropout", 0.0) != 0.0) fail("{}: dropout other than 0 is not supported", what);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!fields.string(key, "").empty()) fail("{}: {} is not supported", what, key);
  fuse_unk_ = fields.boolean("fuse_unk", false);
  ignore_merges_ = fields.boolean("ignore_merges", false);
  read_vocab(fields.object("vocab").json(), what + ".vocab");
  read_merges(fields.array("merges"), what + ".merges");
  if (fields.has("unk_token")) unk_ = fields.string("unk_token");
  if (fields.boolean("byte_fallback", false))
    for (int byte = 0; byte < 256; ++byte)
      id_of_byte_.push_back(static_cast<int32_t>(id_of(fmt::format("<0x{:02X}>", byte)).value_or(-1)));
}

void Bpe::read_vocab(const io::Json& vocab, const std::string& what) {
  vocab_.reserve(vocab.size());
  tokens_.reserve(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() >= kMaxIds) ||
        value.get<int64_t>() < 0 || value.get<int64_t>() >= kMaxIds)
      fail("{}: the id of \"{}\" is {}, not a whole number from 0 to {}", what, printable(token, 40),
           printable(value.dump(), 40), kMaxIds - 1);
    const auto id = value.get<int32_t>();
    const auto entry = vocab_.emplace(token, id).first;
    if (const auto [other, added] = tokens_.emplace(id, &entry->first); !added)
      fail("{}: \"{}\" and \"{}\" have the same id {}", what, printable(*other->second, 40),
           printable(token, 40), id);
    max_id_ = std::max<int64_t>(max_id_, id);
  }
}

void Bpe::read_merges(const io::Json& merges, const std::string& what) {
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", what, i);
    // A first line of merges.txt that was taken along.
    if (merges[i].is_string() && merges[i].get_ref<const std::string&>().starts_with("#version")) continue;
    if (merges[i].type() != merges[0].type())
      fail("{} is written in another way than the first merge", place);
    const auto [left, right] = merge_parts(merges[i], place);
    joined.assign(left).append(right);
    const std::string_view tokens[] = {left, right, joined};
    int32_t ids[3];
    for (int k = 0; k < 3; ++k) {
      const auto id = id_of(tokens[k]);
      if (!id) fail("{}: the token \"{}\" is not in the vocabulary", place, printable(tokens[k], 40));
      ids[k] = static_cast<int32_t>(*id);
    }
    merges_.insert_or_assign(pair_key(ids[0], ids[1]), Merge{rank++, ids[2]});
  }
}

std::optional<int64_t> Bpe::id_of(std::string_view token) const {
  const auto it = vocab_.find(token);
  if (it == vocab_.end()) return std::nullopt;
  return it->second;
}

const std::string* Bpe::token_of(int64_t id) const {
  if (id < 0 || id > max_id_) return nullptr;
  const auto it = tokens_.find(static_cast<int32_t>(id));
  return it == tokens_.end() ? nullptr : it->second;
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

int32_t Bpe::unk_id() const {
  const auto id = id_of(*unk_);
  if (!id)
    fail("{}: a text needs the unk_token \"{}\", which is not in the vocabulary", what_,
         printable(*unk_, 40));
  return static_cast<int32_t>(*id);
}

std::vector<Bpe::Symbol> Bpe::symbols_of(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&](int32_t id) {
    const auto at = static_cast<int64_t>(symbols.size());
    if (at > 0) symbols.back().next = at;
    symbols.push_back({id, at - 1, -1});
  };
  bool unknown = false;  // an unk_token that is still to be added
  for (size_t at = 0, length = 0; at < word.size(); at += length) {
    length = utf8_length(word[at]);
    const std::string_view character = word.substr(at, length);
    if (const auto id = id_of(character)) {
      if (std::exchange(unknown, false)) add(unk_id());
      add(static_cast<int32_t>(*id));
      continue;
    }
    const auto byte_id = [&](char c) { return id_of_byte_[static_cast<unsigned char>(c)]; };
    if (!id_of_byte_.empty() &&
        std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : character) add(byte_id(c));
      continue;
    }
    if (!unk_) continue;
    if (unknown && !fuse_unk_) add(unk_id());
    unknown = true;
  }
  if (unknown) add(unk_id());
  return symbols;
}

void Bpe::merge_all(std::vector<Symbol>& symbols) const {
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int64_t at) {
    if (at < 0 || symbols[static_cast<size_t>(at)].next < 0) return;
    const Symbol& left = symbols[static_cast<size_t>(at)];
    if (const Merge* merge = merge_of(left.id, symbols[static_cast<size_t>(left.next)].id))
      queue.push({merge->rank, at, merge->id});
  };
  for (size_t at = 0; at < symbols.size(); ++at) consider(static_cast<int64_t>(at));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(top.at)];
    if (left.merged || left.next < 0) continue;
    // A candidate is out of date when its pair is no longer there, unless the pair in its place makes the
    // same token: then it holds with the rank it had, as in the reference.
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = merge_of(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.merged = true;
    if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = top.at;
    consider(left.previous);
    consider(top.at);
  }
}

void Bpe::encode(std::string_view word, std::vector<int64_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = id_of(word)) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> symbols = symbols_of(word);
  merge_all(symbols);
  for (const Symbol& symbol : symbols)
    if (!symbol.merged) ids.push_back(symbol.id);
}

}  // namespace nibble::text
