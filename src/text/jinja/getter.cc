#include "text/jinja/getter.h"

#include <algorithm>

#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {

AttributeGetter::AttributeGetter(Evaluator& ev, const Value& attribute, Value fallback)
    : fallback_(std::move(fallback)) {
  if (attribute.none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  for (const std::string_view part : split(attribute.text(), ".", -1)) {
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    parts_.push_back(digits ? Value(*parse_integer(part, 10)) : ev.heap().string(std::string(part)));
  }
}

Value AttributeGetter::operator()(Evaluator& ev, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    value = get_item(ev, value, part);
    if (value.undefined() && !fallback_.none()) value = fallback_;
  }
  return value;
}

Value ignore_case(Evaluator& ev, const Value& value) {
  if (!value.is_string()) return value;
  ev.heap().work(value.text().size());
  return ev.heap().string(lower(value.text()), value.is_markup());
}

std::vector<Value> sorted(Evaluator& ev, std::vector<Keyed> items, bool backwards) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return backwards ? compare(ev.heap(), b.key, Order::less, a.key)
                     : compare(ev.heap(), a.key, Order::less, b.key);
  });
  std::vector<Value> out;
  for (Keyed& keyed : items) out.push_back(std::move(keyed.item));
  return out;
}

}  // namespace nibble::text::jinja
