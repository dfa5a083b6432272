#include "data/chat.h"

#include <optional>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "io/file.h"
#include "text/tokenizer.h"

namespace nibble::data {
namespace fs = std::filesystem;
namespace {

/// The template of a chat_template field: a text, or a list of named ones of which "default" counts.
std::optional<std::string> template_field(const io::Json& json, const std::string& what) {
  if (!io::Fields(json, what).has("chat_template")) return std::nullopt;
  const io::Json& field = json.at("chat_template");
  if (field.is_string()) return field.get<std::string>();
  if (!field.is_array()) fail("{}: chat_template is neither a text nor a list", what);
  for (const io::Json& entry : field) {
    const io::Fields named(entry, what + ": chat_template");
    if (named.string("name") == "default") return named.string("template");
  }
  fail("{}: chat_template has no entry named \"default\"", what);
}

/// The checkpoint's own template, if it brings one.
std::optional<text::jinja::Template> find_template(const model::Binding& binding) {
  const io::Checkpoint& checkpoint = binding.checkpoint();
  const fs::path folder = checkpoint.folder();
  const fs::path jinja = folder / "chat_template.jinja";
  // A link that leads nowhere is there, and reading it says so.
  std::error_code ignored;
  if (fs::symlink_status(jinja, ignored).type() != fs::file_type::not_found)
    return text::jinja::Template::parse(io::read_file(jinja), jinja.string());
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (std::string_view(name) == "chat_template.json" && binding.family().image == model::ImageFormat::none)
      continue;
    const std::string path = (folder / name).string();
    if (const auto json = checkpoint.json(name))
      if (const auto found = template_field(*json, path)) return text::jinja::Template::parse(*found, path);
  }
  return std::nullopt;
}

/// Every "..._token" of tokenizer_config.json: a text, or an object with its content.
io::Json special_tokens(const io::Checkpoint& checkpoint) {
  io::Json out = io::Json::object();
  const auto json = checkpoint.json("tokenizer_config.json");
  if (!json) return out;
  const io::Fields fields(*json, (checkpoint.folder() / "tokenizer_config.json").string());
  for (const auto& [key, value] : fields.json().items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_string()) out[key] = value;
    if (value.is_object() && value.contains("content") && value.at("content").is_string())
      out[key] = io::Json(value.at("content"));
  }
  return out;
}

}  // namespace

ChatFormat::ChatFormat(const model::Binding& binding)
    : image_(binding.family().image), special_(special_tokens(binding.checkpoint())) {
  try {
    template_ = find_template(binding);
    built_in_ = !template_;
    if (built_in_)
      template_ = text::jinja::Template::parse(binding.family().chat_template,
                                               fmt::format("chat format of {}", binding.family().title));
  } catch (const Error& e) {
    error_ = e.what();
  }
}

std::string ChatFormat::turn(const std::string& text, size_t pictures) const {
  if (!template_) fail("{}", error_);
  const std::string valid = text::replace_invalid_utf8(text);
  io::Json message = {{"role", "user"}};
  if (image_ == model::ImageFormat::none) {
    message["content"] = valid;
  } else {
    message["content"] = io::Json::array();
    for (size_t i = 0; i < pictures; ++i) message["content"].push_back({{"type", "image"}});
    message["content"].push_back({{"type", "text"}, {"text", valid}});
  }
  io::Json context = special_;
  context["messages"] = io::Json::array({message});
  context["tools"] = nullptr;
  context["documents"] = nullptr;
  context["add_generation_prompt"] = true;
  return template_->render(context);
}

bool ChatFormat::adds_special_tokens(const std::string& turn) const {
  if (image_ == model::ImageFormat::none) return false;
  return !special_.contains("bos_token") || !turn.starts_with(special_.at("bos_token").get<std::string>());
}

std::string ChatFormat::raw(const std::string& text, const std::string& image_token) const {
  if (image_ != model::ImageFormat::mllama || !special_.contains("bos_token")) return text;
  const auto bos = special_.at("bos_token").get<std::string>();
  if (text.find(bos) != std::string::npos) return text;
  size_t at = 0;
  while (!image_token.empty() && text.compare(at, image_token.size(), image_token) == 0)
    at += image_token.size();
  return text.substr(0, at) + bos + text.substr(at);
}

}  // namespace nibble::data
