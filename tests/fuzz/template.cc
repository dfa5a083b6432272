// Chat templates. Input: the template, a NUL byte, its context as JSON; a usual one where nothing follows.
#include "text/jinja/template.h"

#include "fuzz/fuzz.h"

using namespace nibble;
using namespace nibble::text::jinja;

namespace {

constexpr std::string_view kContext =
    R"({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a \u00e9"}]},
        {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "number"}}}}],
        "documents": null, "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})";

/// A hundredth of what is allowed, as the sanitizers are slow.
Limits limits() {
  Limits out;
  out.steps /= 100;
  out.text_bytes /= 100;
  out.items /= 100;
  out.memory_bytes /= 100;
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view source = fuzz::take_text(rest);
  fuzz::accepts([&] {
    const Template parsed = Template::parse(source, "template", limits());
    const io::Json context = io::parse_json(rest.empty() ? kContext : rest, "context");
    if (!context.is_object()) fail("the context is no object");
    // Time stands still, so that an input always does the same.
    const std::string out = parsed.render(context, limits(), [] { return LocalTime{}; });
    NIBBLE_CHECK(out.size() <= limits().text_bytes);
  });
  return 0;
}
