#include "data/prompts.h"

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "text/chat.h"

namespace nibble::data {
namespace fs = std::filesystem;

PromptMaker::PromptMaker(const model::Binding& binding)
    : binding_(binding), tokenizer_(text::Tokenizer::load(binding.checkpoint().folder() / "tokenizer.json")) {
  if (binding.family().image == model::ImageFormat::none) return;
  // transformers 5 may put the image processor into processor_config.json.
  std::string path = (binding.checkpoint().folder() / "preprocessor_config.json").string();
  std::optional<io::Json> json = binding.checkpoint().json("preprocessor_config.json");
  if (!json) {
    path = (binding.checkpoint().folder() / "processor_config.json").string();
    json = binding.checkpoint().json("processor_config.json");
    if (!json || !json->is_object() || !json->contains("image_processor")) return;
    json = io::Json(json->at("image_processor"));
  }
  processor_ = vision::Qwen2VlProcessor::parse(*json, path);
  const model::Vision& vision = *binding.spec().vision;
  if (processor_->patch_size != vision.patch || processor_->merge_size != vision.merge ||
      processor_->temporal_patch_size != vision.temporal_patch)
    fail("{}: patch_size, merge_size or temporal_patch_size differ from config.json's", path);
}

run::Prompt PromptMaker::chat(const std::string& text, std::span<const fs::path> images) const {
  text::ChatMessage message{.role = "user", .content = {}};
  for (size_t i = 0; i < images.size(); ++i) message.content.push_back({text::ChatPart::Kind::picture, ""});
  message.content.push_back({text::ChatPart::Kind::text, text});
  std::string turn;
  switch (binding_.family().chat) {
    case model::ChatFormat::chatml:
      turn = text::chatml({&message, 1}, true);
  }
  return expand(tokenizer_.encode(turn, false), images);
}

run::Prompt PromptMaker::raw(const std::string& text, std::span<const fs::path> images) const {
  return expand(tokenizer_.encode(text, true), images);
}

run::Prompt PromptMaker::expand(std::vector<int64_t> ids, std::span<const fs::path> images) const {
  run::Prompt out;
  for (const fs::path& path : images) out.pictures.push_back(picture(path));
  const int64_t image = binding_.spec().vision ? binding_.spec().tokens.image : -1;
  const auto places = std::count(ids.begin(), ids.end(), image);
  if (image < 0 && !images.empty()) fail("{}: this model takes no pictures", images[0].string());
  if (image >= 0 && places != static_cast<ptrdiff_t>(images.size()))
    fail("the prompt has {} image token(s) for {} picture(s); write {} once where each picture belongs",
         places, images.size(), tokenizer_.token_of(image).value_or("the image token"));
  size_t next = 0;
  for (int64_t id : ids) {
    if (id != image) {
      out.ids.push_back(id);
      continue;
    }
    const run::Picture& p = out.pictures[next++];
    const int64_t merge = binding_.spec().vision->merge;
    const auto count = static_cast<size_t>(p.grid_t * (p.grid_h / merge) * (p.grid_w / merge));
    out.ids.insert(out.ids.end(), count, image);
  }
  return out;
}

run::Picture PromptMaker::picture(const fs::path& path) const {
  if (!processor_)
    fail("{}: no picture can be prepared: {} has no preprocessor_config.json", path.string(),
         binding_.checkpoint().folder().string());
  vision::Patches patches = vision::preprocess(vision::load_image(path), *processor_, path.string());
  run::Picture out;
  out.pixels = std::make_shared<const Matrix>(std::move(patches.pixels));
  out.grid_t = patches.grid_t;
  out.grid_h = patches.grid_h;
  out.grid_w = patches.grid_w;
  return out;
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

std::vector<Item> make_items(std::span<const Sample> samples, const PromptMaker& maker, int64_t window) {
  std::vector<std::vector<Item>> made(samples.size());
  parallel_for(static_cast<int64_t>(samples.size()), [&](int64_t i) {
    const Sample& sample = samples[static_cast<size_t>(i)];
    std::vector<Item>& items = made[static_cast<size_t>(i)];
    if (!sample.plain) {
      Item item;
      item.id = sample.id;
      item.prompt_text = sample.text;
      try {
        item.prompt = maker.chat(sample.text, sample.images);
      } catch (const Error& e) {
        if (std::string_view(e.what()).starts_with(sample.id)) throw;
        fail("{}: {}", sample.id, e.what());
      }
      if (sample.answer) {
        item.answer_text = *sample.answer;
        item.answer = maker.answer(*sample.answer);
      }
      items.push_back(std::move(item));
      return;
    }
    int64_t number = 0;
    for (std::vector<int64_t>& ids : maker.windows(sample.text, window)) {
      if (maker.is_image(ids.front()))
        fail("{}: a window of the text begins with an image token; take it out", sample.id);
      Item item;
      item.id = fmt::format("{}#{}", sample.id, ++number);
      item.plain = true;
      item.prompt.ids = {ids.front()};
      item.answer.assign(ids.begin() + 1, ids.end());
      items.push_back(std::move(item));
    }
  });
  std::vector<Item> out;
  for (auto& items : made) std::move(items.begin(), items.end(), std::back_inserter(out));
  return out;
}

}  // namespace nibble::data
