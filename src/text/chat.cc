#include "text/chat.h"

namespace nibble::text {

std::string chatml(std::span<const ChatMessage> messages, bool add_generation_prompt) {
  std::string text;
  if (!messages.empty() && messages.front().role != "system")
    text += "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";
  for (const ChatMessage& message : messages) {
    text += "<|im_start|>" + message.role + "\n";
    for (const ChatPart& part : message.content)
      text +=
          part.kind == ChatPart::Kind::picture ? "<|vision_start|><|image_pad|><|vision_end|>" : part.text;
    text += "<|im_end|>\n";
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace nibble::text
