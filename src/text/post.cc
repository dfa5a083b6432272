#include "text/post.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"

namespace nibble::text {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxSteps = 64;         // of a decoder: each goes over the whole text
constexpr size_t kMaxSpecial = 1 << 12;  // ids that a template adds

std::string concatenate(const std::vector<std::string>& texts, std::string_view between) {
  std::string all;
  for (size_t i = 0; i < texts.size(); ++i) all.append(i == 0 ? "" : between).append(texts[i]);
  return all;
}

/// Ids of a special token of a template, from the template's own list.
std::vector<int64_t> special_ids(const io::Fields& tokens, const std::string& name) {
  if (!tokens.has(name))
    fail("{} has no \"{}\", which the template uses", tokens.what(), printable(name, 40));
  const io::Fields token = tokens.object(name);
  std::vector<int64_t> ids;
  for (const io::Json& id : token.array("ids")) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(Bpe::kMaxIds))
      fail("{}: the ids of \"{}\" are not all from 0 to {}", tokens.what(), printable(name, 40),
           Bpe::kMaxIds - 1);
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace

PostProcessor::PostProcessor(const io::Json& json, const std::string& what) {
  if (!json.is_null()) add(json, what, 0);
}

void PostProcessor::add(const io::Json& json, const std::string& what, int depth) {
  const io::Fields fields(json, what);
  const std::string type = fields.string("type");
  if (type == "Sequence") {
    if (depth >= kMaxDepth) fail("{}: is nested deeper than {} levels", what, kMaxDepth);
    const io::Json& parts = fields.array("processors");
    for (size_t i = 0; i < parts.size(); ++i)
      add(parts[i], fmt::format("{}.processors[{}]", what, i), depth + 1);
  } else if (type == "TemplateProcessing") {
    if (template_) fail("{}: a second template is not supported", what);
    template_ = read_template(fields);
  } else if (type != "ByteLevel") {
    fail("{}: post-processors of type {} are not supported, only ByteLevel, TemplateProcessing and Sequence",
         what, printable(type, 40));
  }
}

std::vector<PostProcessor::Part> PostProcessor::read_template(const io::Fields& fields) {
  const io::Json& parts = fields.array("single");
  const io::Fields tokens = fields.object("special_tokens");
  std::vector<Part> result;
  size_t special = 0;
  bool text = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const io::Fields part(parts[i], fmt::format("{}.single[{}]", fields.what(), i));
    if (part.has("SpecialToken")) {
      result.emplace_back(special_ids(tokens, part.object("SpecialToken").string("id")));
      special += result.back()->size();
      if (special > kMaxSpecial)
        fail("{}: a template that adds more than {} special tokens is not supported", part.what(),
             kMaxSpecial);
      continue;
    }
    if (part.object("Sequence").string("id") != "A")
      fail("{}: the template for a single text can only use the sequence A", part.what());
    if (std::exchange(text, true))
      fail("{}: a template that has the text twice is not supported", part.what());
    result.emplace_back();
  }
  return result;
}

std::vector<int64_t> PostProcessor::apply(std::vector<int64_t> ids, bool add_special_tokens) const {
  if (!template_) return ids;
  std::vector<int64_t> result;
  for (const Part& part : *template_) {
    if (!part)
      result.insert(result.end(), ids.begin(), ids.end());
    else if (add_special_tokens)
      result.insert(result.end(), part->begin(), part->end());
  }
  return result;
}

Decoder::Decoder(const io::Json& json, const std::string& what) : join_by_spaces_(json.is_null()) {
  if (!json.is_null()) add(json, what, 0);
}

void Decoder::add(const io::Json& json, const std::string& what, int depth) {
  const io::Fields fields(json, what);
  const std::string type = fields.string("type");
  if (steps_.size() == kMaxSteps) fail("{}: more than {} decoders are not supported", what, kMaxSteps);
  if (type == "Sequence") {
    if (depth >= kMaxDepth) fail("{}: is nested deeper than {} levels", what, kMaxDepth);
    const io::Json& parts = fields.array("decoders");
    for (size_t i = 0; i < parts.size(); ++i)
      add(parts[i], fmt::format("{}.decoders[{}]", what, i), depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back(Step::byte_level);
  } else if (type == "Fuse") {
    steps_.push_back(Step::fuse);
  } else {
    fail("{}: decoders of type {} are not supported, only ByteLevel, Fuse and Sequence", what,
         printable(type, 40));
  }
}

std::string Decoder::bytes_of(std::string token) const {
  // A token that is not all of the byte-level alphabet stands for itself.
  if (std::find(steps_.begin(), steps_.end(), Step::byte_level) != steps_.end())
    if (auto bytes = from_byte_level(token)) return *std::move(bytes);
  return token;
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const Step step : steps_) {
    // A token that is not all of the byte-level alphabet stands for itself.
    if (step == Step::byte_level)
      for (std::string& token : tokens)
        if (auto bytes = from_byte_level(token)) token = *std::move(bytes);
    std::string all = concatenate(tokens, "");
    if (step == Step::byte_level) all = replace_invalid_utf8(all);
    tokens.assign(1, std::move(all));
  }
  return concatenate(tokens, join_by_spaces_ ? " " : "");
}

}  // namespace nibble::text
