#include "text/jinja/template.h"

#include "base/error.h"
#include "base/text.h"
#include "text/jinja/eval.h"
#include "text/jinja/parser.h"
#include "text/jinja/scope.h"

namespace nibble::text::jinja {

Template Template::parse(std::string_view source, std::string what, const Limits& limits) {
  if (source.size() > limits.template_bytes)
    fail("{}: the template has {}, more than {}", what, bytes_text(static_cast<int64_t>(source.size())),
         bytes_text(static_cast<int64_t>(limits.template_bytes)));
  auto program = std::make_shared<Program>();
  program->what = std::move(what);
  program->body = Parser(tokenize(source, program->what), program->what, limits).parse();
  bind(*program);
  return Template(std::move(program));
}

std::string Template::render(const io::Json& context, const Limits& limits, const Clock& clock) const {
  constexpr size_t kMessage = 2000;  // of the template's own message as an error shows it
  Evaluator evaluator(*program_, limits, clock);
  try {
    return evaluator.render(context);
  } catch (const Failure& failure) {
    fail("{}: line {}: {}", program_->what, evaluator.line(), printable(failure.text(), kMessage));
  } catch (const Raised& raised) {
    fail("{}: {}", program_->what, printable(raised.message, kMessage));
  }
}

}  // namespace nibble::text::jinja
