// The functions that every template has.
#include <locale.h>

#include <array>
#include <chrono>

#include "base/text.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"

namespace nibble::text::jinja {
namespace {

/// The longest range that jinja2's sandbox makes.
constexpr int64_t kMostRange = 100'000;

Value make_range(Evaluator& ev, Args& args) {
  if (args.positional.empty()) raise("range expected at least 1 argument, got 0");
  const Params p("range", args, {"/start", "/stop", "/step"}, 1);
  const bool from_zero = args.positional.size() == 1;
  const Range range(from_zero ? 0 : p.integer(0, 0), p.integer(from_zero ? 0 : 1, 0), p.integer(2, 1));
  if (range.size() > kMostRange) raise("range too big: the sandbox blocks ranges larger than {}", kMostRange);
  return ev.heap().share<Range>(range);
}

/// What dict() and namespace() take: a mapping or pairs, and keywords.
Dict::Items dict_items(Evaluator& ev, std::string_view function, Args& args) {
  if (args.positional.size() > 1)
    raise("{} expected at most 1 argument, got {}", function, args.positional.size());
  Dict::Items items;
  if (!args.positional.empty()) {
    const Value& source = args.positional.front();
    if (source.is(Kind::dict)) {
      items = source.dict().items;
    } else {
      need_defined(source);
      for (const Value& pair : to_vector(ev, source)) {
        std::vector<Value> parts = to_vector(ev, pair);
        if (parts.size() != 2) raise("{} needs pairs, found {} items", function, parts.size());
        items.emplace_back(std::move(parts[0]), std::move(parts[1]));
      }
    }
  }
  for (auto& [name, value] : args.keyword) items.emplace_back(ev.heap().string(name), value);
  return items;
}

Value make_dict(Evaluator& ev, Args& args) {
  return ev.heap().dict(dict_items(ev, "dict", args));
}

Value make_namespace(Evaluator& ev, Args& args) {
  const Value unique = ev.heap().dict(dict_items(ev, "namespace", args));
  return Heap::refer(ev.heap().make<Namespace>(unique.dict().items));
}

Value make_cycler(Evaluator& ev, Args& args) {
  if (args.positional.empty() || !args.keyword.empty()) raise("cycler() takes one item or more");
  return Heap::refer(ev.heap().make<Cycler>(std::move(args.positional)));
}

Value make_joiner(Evaluator& ev, Args& args) {
  const Params p("joiner", args, {"sep"}, 0);
  return Heap::refer(ev.heap().make<Joiner>(p[0] ? *p[0] : ev.heap().string(", ")));
}

Value raise_exception(Evaluator& ev, Args& args) {
  const Params p("raise_exception", args, {"message"}, 1);
  throw Raised{str(ev.heap(), *p[0])};
}

/// strftime in the C locale, whatever the program's is.
std::string format_time(const LocalTime& now, std::string_view format) {
  std::string plain;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (next == 'f')
      plain += fmt::format("{:06}", now.microsecond);
    else if (next == '%')
      plain += "%%";
    else if (next != 'z' && next != 'Z')  // a time without a zone has none to print
      plain += format[i];
    if (next == 'f' || next == '%' || next == 'z' || next == 'Z') ++i;
  }
  if (plain.empty()) return "";
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  std::string text;
  // A byte more than the format tells an empty result from a buffer that is too small.
  plain += ' ';
  for (size_t size = 256 + plain.size(); size < (size_t{1} << 24); size *= 4) {
    text.resize(size);
    const size_t length = strftime_l(text.data(), size, plain.c_str(), &now.time, c_locale);
    if (length == 0) continue;
    text.resize(length - 1);
    return text;
  }
  raise("the time format is too long");
}

Value strftime_now(Evaluator& ev, Args& args) {
  const Params p("strftime_now", args, {"format"}, 1);
  const std::string& format = p.string(0).text();
  if (format.find('\0') != std::string::npos) raise("embedded null character in a time format");
  constexpr size_t kMostFormat = 10'000;
  if (format.size() > kMostFormat) raise("the time format is too long");
  return ev.heap().string(format_time(ev.clock()(), format));
}

Value lipsum(Evaluator&, Args&) {
  raise("lipsum is not supported; --raw takes a prompt as it is");
}

struct Global {
  std::string_view name;
  Builtin function;
};

}  // namespace

LocalTime local_time() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  LocalTime local;
  localtime_r(&seconds, &local.time);
  const auto fraction = now - std::chrono::system_clock::from_time_t(seconds);
  local.microsecond =
      static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(fraction).count());
  return local;
}

Value find_global(std::string_view name) {
  static std::array<Global, 8> globals = {{
      {"range", {"range", false, make_range}},
      {"dict", {"dict", true, make_dict}},
      {"namespace", {"jinja2.utils.Namespace", true, make_namespace}},
      {"cycler", {"jinja2.utils.Cycler", true, make_cycler}},
      {"joiner", {"jinja2.utils.Joiner", true, make_joiner}},
      {"lipsum", {"lipsum", false, lipsum}},
      {"raise_exception", {"raise_exception", false, raise_exception}},
      {"strftime_now", {"strftime_now", false, strftime_now}},
  }};
  for (Global& global : globals)
    if (global.name == name) return Heap::refer(global.function);
  return {};
}

}  // namespace nibble::text::jinja
