// How built-ins take their arguments.
#include "base/text.h"
#include "text/jinja/runtime.h"

namespace nibble::text::jinja {

Params::Params(std::string_view function, const Args& args, std::initializer_list<std::string_view> names,
               size_t required)
    : function_(function), values_(names.size()) {
  if (args.positional.size() > names.size())
    raise("{}() takes at most {} argument(s), {} given", function, names.size(), args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keyword) {
    size_t i = 0;
    while (i < names.size() && names.begin()[i] != name) ++i;
    if (i == names.size()) raise("{}() got an unexpected keyword argument '{}'", function, printable(name));
    if (values_[i]) raise("{}() got multiple values for argument '{}'", function, name);
    values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    const std::string_view name = names.begin()[i];
    if (!values_[i])
      raise("{}() is missing its argument '{}'", function, name.starts_with('/') ? name.substr(1) : name);
  }
}

int64_t Params::integer(size_t i, int64_t fallback) const {
  return values_[i] ? need_integer(*values_[i], function_) : fallback;
}

bool Params::boolean(Evaluator& ev, size_t i, bool fallback) const {
  return values_[i] ? ev.truth(*values_[i]) : fallback;
}

const Value& Params::string(size_t i) const {
  if (!values_[i] || !values_[i]->is_string()) {
    const Value missing;
    raise("{}() needs a string, not '{}'", function_, type_name(values_[i] ? *values_[i] : missing));
  }
  return *values_[i];
}

Value pop_keyword(Args& args, std::string_view name) {
  const auto it =
      std::find_if(args.keyword.begin(), args.keyword.end(), [&](const auto& k) { return k.first == name; });
  if (it == args.keyword.end()) return Value();
  Value value = std::move(it->second);
  args.keyword.erase(it);
  return value;
}

int64_t need_integer(const Value& value, std::string_view what) {
  const auto i = as_integer(value);
  if (!i) {
    need_defined(value);
    raise("{} needs an integer, not '{}'", what, type_name(value));
  }
  return *i;
}

}  // namespace nibble::text::jinja
