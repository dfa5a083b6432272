#include "data/prompts.h"

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"

namespace nibble::data {
namespace fs = std::filesystem;

PromptMaker::PromptMaker(const model::Binding& binding)
    : binding_(binding),
      tokenizer_(text::Tokenizer::load(binding.checkpoint().folder() / "tokenizer.json")),
      chat_(binding),
      pictures_(picture_maker(binding, tokenizer_)) {}

run::Prompt PromptMaker::chat(const std::string& text, std::span<const fs::path> images) const {
  const std::string turn = chat_.turn(text, images.size());
  return expand(tokenizer_.encode(turn, chat_.adds_special_tokens(turn)), images);
}

run::Prompt PromptMaker::raw(const std::string& text, std::span<const fs::path> images) const {
  const std::string image = tokenizer_.token_of(binding_.spec().tokens.image).value_or("");
  return expand(tokenizer_.encode(chat_.raw(text, image), true), images);
}

run::Prompt PromptMaker::expand(std::vector<int64_t> ids, std::span<const fs::path> images) const {
  run::Prompt out;
  const int64_t image = binding_.spec().vision ? binding_.spec().tokens.image : -1;
  const auto places = std::count(ids.begin(), ids.end(), image);
  if (image < 0 && !images.empty()) fail("{}: this model takes no pictures", images[0].string());
  if (image >= binding_.spec().text.embedding_rows && !images.empty())
    fail("{}: the id of the image token, {}, is not among the {} that the model knows",
         (binding_.checkpoint().folder() / "config.json").string(), image,
         binding_.spec().text.embedding_rows);
  if (image >= 0 && places != static_cast<ptrdiff_t>(images.size()))
    fail("the prompt has {} image token(s) for {} picture(s); write {} once where each picture belongs",
         places, images.size(), tokenizer_.token_of(image).value_or("the image token"));
  if (!pictures_ && !images.empty())
    fail("{}: no picture can be prepared: {} has no preprocessor_config.json", images[0].string(),
         binding_.checkpoint().folder().string());
  for (const fs::path& path : images) out.pictures.push_back(pictures_->make(path));
  size_t next = 0;
  for (int64_t id : ids) {
    if (id == image && image >= 0)
      pictures_->append_ids(out.pictures[next++], out.ids);
    else
      out.ids.push_back(id);
  }
  return out;
}

std::vector<NamedTensor> PromptMaker::reference_tensors(const run::Prompt& prompt) const {
  if (prompt.pictures.empty()) return {};
  return pictures_->reference_tensors(prompt.pictures);
}

std::vector<int64_t> PromptMaker::answer(const std::string& text) const {
  std::vector<int64_t> ids = tokenizer_.encode(text, false);
  if (!binding_.spec().tokens.end.empty()) ids.push_back(binding_.spec().tokens.end.front());
  return ids;
}

std::vector<std::vector<int64_t>> PromptMaker::windows(const std::string& text, int64_t window) const {
  const std::vector<int64_t> ids = tokenizer_.encode(text, false);
  std::vector<std::vector<int64_t>> out;
  const auto step = static_cast<size_t>(window);
  for (size_t at = 0; at + 1 < ids.size(); at += step)
    out.emplace_back(ids.begin() + static_cast<ptrdiff_t>(at),
                     ids.begin() + static_cast<ptrdiff_t>(std::min(at + step, ids.size())));
  return out;
}

void PromptMaker::check(const run::Prompt& prompt) const {
  run::check_prompt(prompt, binding_.spec());
}

bool PromptMaker::is_image(int64_t id) const {
  return binding_.spec().vision && id == binding_.spec().tokens.image;
}

std::string PromptMaker::decode(const std::vector<int64_t>& ids) const {
  return tokenizer_.decode(ids, true);
}

run::Prompt Item::fed() const {
  run::Prompt out = prompt;
  if (!answer.empty()) out.continuation.assign(answer.begin(), answer.end() - 1);
  return out;
}

namespace {

Item chat_item(const Sample& sample, const PromptMaker& maker) {
  Item item;
  item.id = sample.id;
  item.prompt_text = sample.text;
  item.prompt = maker.chat(sample.text, sample.images);
  if (sample.answer) {
    item.answer_text = *sample.answer;
    item.answer = maker.answer(*sample.answer);
  }
  maker.check(item.fed());
  return item;
}

/// An item for each window of a plain text.
std::vector<Item> text_items(const Sample& sample, const PromptMaker& maker, int64_t window) {
  std::vector<Item> out;
  for (std::vector<int64_t>& ids : maker.windows(sample.text, window)) {
    if (std::ssize(ids) > maker.max_tokens())
      fail(
          "a window of {} tokens is longer than the model (max_position_embeddings or sliding_window) takes; "
          "give "
          "--window {} or less",
          ids.size(), maker.max_tokens());
    if (maker.is_image(ids.front())) fail("a window of the text begins with an image token; take it out");
    Item item;
    item.id = fmt::format("{}#{}", sample.id, out.size() + 1);
    item.plain = true;
    item.prompt.ids = {ids.front()};
    item.answer.assign(ids.begin() + 1, ids.end());
    maker.check(item.fed());
    for (int64_t id : item.answer) item.bytes += maker.tokenizer().byte_count(id);
    out.push_back(std::move(item));
  }
  return out;
}

}  // namespace

std::vector<Item> make_items(std::span<const Sample> samples, const PromptMaker& maker, int64_t window) {
  std::vector<std::vector<Item>> made(samples.size());
  parallel_for(static_cast<int64_t>(samples.size()), [&](int64_t i) {
    const Sample& sample = samples[static_cast<size_t>(i)];
    std::vector<Item>& items = made[static_cast<size_t>(i)];
    try {
      if (sample.plain)
        items = text_items(sample, maker, window);
      else
        items.push_back(chat_item(sample, maker));
    } catch (const Error& e) {
      if (std::string_view(e.what()).starts_with(sample.id)) throw;
      fail("{}: {}", sample.id, e.what());
    }
  });
  std::vector<Item> out;
  for (auto& items : made) std::move(items.begin(), items.end(), std::back_inserter(out));
  return out;
}

}  // namespace nibble::data
