// From samples to what a model is fed: tokenizer, chat format and image processor of a checkpoint.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/chat.h"
#include "data/pictures.h"
#include "data/samples.h"
#include "model/binding.h"
#include "run/inputs.h"
#include "text/tokenizer.h"

namespace nibble::data {

/// Makes prompts for one checkpoint. Thread-safe after construction.
class PromptMaker {
 public:
  /// Reads tokenizer.json, the chat template and preprocessor_config.json (or processor_config.json) of the
  /// checkpoint. Throws Error.
  explicit PromptMaker(const model::Binding& binding);

  /// True where the checkpoint brings no chat template and its family's serves.
  bool built_in_chat() const { return chat_.built_in(); }
  /// A user's turn in the model's chat format, pictures first, up to where the answer begins.
  run::Prompt chat(const std::string& text, std::span<const std::filesystem::path> images) const;
  /// The text as it is, special tokens included where they are written out; a picture fills each image token.
  run::Prompt raw(const std::string& text, std::span<const std::filesystem::path> images) const;

  /// The ids of an answer as the model would have said it, the end-of-turn token last.
  std::vector<int64_t> answer(const std::string& text) const;
  /// Windows of at most `window` tokens of a plain text, without special tokens; a last one of one token is
  /// dropped.
  std::vector<std::vector<int64_t>> windows(const std::string& text, int64_t window) const;
  /// Text of generated ids, without special tokens.
  std::string decode(const std::vector<int64_t>& ids) const;

  /// What the reference's processor gives for a prompt's pictures, in its shapes.
  std::vector<NamedTensor> reference_tensors(const run::Prompt& prompt) const;

  /// The longest sequence that the model was made for, in tokens.
  int64_t max_tokens() const { return binding_.spec().text.max_positions; }

  /// Throws Error for a prompt that the model does not take (run::check_prompt).
  void check(const run::Prompt& prompt) const;

  /// True when pictures can be prepared for this model.
  bool takes_pictures() const { return pictures_ != nullptr; }

  /// True for the token that stands for a picture's features.
  bool is_image(int64_t id) const;

  const text::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  run::Prompt expand(std::vector<int64_t> ids, std::span<const std::filesystem::path> images) const;

  const model::Binding& binding_;
  text::Tokenizer tokenizer_;
  ChatFormat chat_;
  std::unique_ptr<const PictureMaker> pictures_;  // null where no picture can be prepared
};

/// One teacher-forced run: a prompt followed by its answer.
struct Item {
  std::string id;
  std::string prompt_text;
  std::string answer_text;      // "" for a plain text
  bool plain = false;           // a window of plain text: nothing to generate
  int64_t bytes = 0;            // of a plain text: UTF-8 bytes that the tokens of `answer` stand for
  run::Prompt prompt;           // without the answer; of a plain text only the first token
  std::vector<int64_t> answer;  // what must follow, the end-of-turn token last; empty: not known yet

  /// Prompt and answer but for its last token: what is fed so that every answer token is predicted.
  run::Prompt fed() const;
};

/// Prompts of all samples, pictures decoded in parallel. Answers that samples leave open stay empty.
/// Plain texts become one item for each window. Throws Error naming the sample.
std::vector<Item> make_items(std::span<const Sample> samples, const PromptMaker& maker, int64_t window);

}  // namespace nibble::data
