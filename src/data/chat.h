// The chat format of a checkpoint: its own template where it brings one, else its family's.
#pragma once

#include <optional>
#include <string>

#include "model/binding.h"
#include "text/jinja/template.h"

namespace nibble::data {

/// Immutable and thread-safe after construction.
class ChatFormat {
 public:
  /// Reads chat_template.jinja, chat_template.json (families that take pictures) or tokenizer_config.json, in
  /// this order, and the special tokens of tokenizer_config.json. A template that cannot be used is an error
  /// only when a turn is made: raw prompts do not need it.
  explicit ChatFormat(const model::Binding& binding);

  /// True where the checkpoint brings no template and its family's serves.
  bool built_in() const { return built_in_; }

  /// A user's turn of some pictures and a text, up to where the answer begins. What is no UTF-8 in the text
  /// is replaced as the tokenizer does. Throws Error naming the file and line of the template for what it
  /// refuses.
  std::string turn(const std::string& text, size_t pictures) const;

  /// True when the tokenizer's post-processor is to add its special tokens to a turn, as transformers has it:
  /// for families that take pictures, unless the turn begins with the begin-of-text token.
  bool adds_special_tokens(const std::string& turn) const;

  /// A raw prompt as the reference's processor takes it: Llama 3.2 Vision's puts the begin-of-text token
  /// behind leading image tokens where the prompt has none.
  std::string raw(const std::string& text, const std::string& image_token) const;

 private:
  model::ImageFormat image_;
  io::Json special_;  // name -> token
  std::optional<text::jinja::Template> template_;
  std::string error_;  // why there is no template
  bool built_in_ = false;
};

}  // namespace nibble::data
