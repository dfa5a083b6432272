// The chat format of Qwen2-VL.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace nibble::text {

/// A part of a message: a text, or the place of a picture.
struct ChatPart {
  enum class Kind { text, picture };
  Kind kind = Kind::text;
  std::string text;  // empty for a picture
};

struct ChatMessage {
  std::string role;
  std::vector<ChatPart> content;
};

/// The messages as the ChatML template of Qwen2-VL renders them: a default system message first unless the
/// first message is one, and one <|image_pad|> between <|vision_start|> and <|vision_end|> for each picture.
/// With add_generation_prompt, the begin of the assistant's answer follows.
std::string chatml(std::span<const ChatMessage> messages, bool add_generation_prompt);

}  // namespace nibble::text
