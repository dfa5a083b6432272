// Chat templates: the Jinja that published Hugging Face checkpoints use, as transformers 4.57 renders it
// (jinja2's ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls and the generation
// tag; tojson without HTML escapes; raise_exception and strftime_now).
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "io/json.h"

namespace nibble::text::jinja {

/// Bounds that keep a hostile template from running for ever or eating the memory. A published template stays
/// far below each of them.
struct Limits {
  size_t template_bytes = size_t{1} << 20;  // of the source
  int nesting = 300;                        // of brackets, tags and operators in the source
  int recursion = 2000;                     // of nodes being evaluated, macros calling themselves included
  int64_t steps = 20'000'000;               // nodes evaluated, items visited, and every 64 bytes copied
  size_t text_bytes = size_t{32} << 20;     // of one string, and of the rendered text
  size_t items = 1'000'000;                 // of one list, tuple or dict
  size_t memory_bytes = size_t{512} << 20;  // of all values alive at a time
};

/// What strftime_now formats.
struct LocalTime {
  std::tm time{};
  int microsecond = 0;
};
using Clock = std::function<LocalTime()>;

/// The clock on the wall in the local time zone.
LocalTime local_time();

struct Program;

/// A parsed template. Immutable: any number of threads may render it at the same time.
class Template {
 public:
  /// Parses a template. `what` names it in errors. Throws Error with the line for a syntax error, for a tag,
  /// filter or test that is not supported, and for a source that is not UTF-8 or above the limits. (A filter
  /// or test of an unknown name inside of an if is an error only when it is reached, as in jinja2.)
  static Template parse(std::string_view source, std::string what, const Limits& limits = {});

  /// The text for a context, a JSON object whose members are the template's variables. (transformers always
  /// passes messages, tools, documents and add_generation_prompt, null where there are none, and each special
  /// token under its name.) Throws Error with the line where Jinja would raise, where a limit is met, and
  /// with the template's own message for raise_exception.
  std::string render(const io::Json& context, const Limits& limits = {},
                     const Clock& clock = local_time) const;

 private:
  explicit Template(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace nibble::text::jinja
