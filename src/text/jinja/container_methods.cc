// The methods of lists, tuples and dicts.
#include <algorithm>

#include "text/jinja/runtime.h"

namespace nibble::text::jinja {
namespace {

Value list_count(Evaluator& ev, const Value& self, Args& args) {
  const Params p("count", args, {"/value"}, 1);
  return static_cast<int64_t>(std::count_if(self.items().begin(), self.items().end(), [&](const Value& item) {
    return equal(ev.heap(), item, *p[0]);
  }));
}

Value list_index(Evaluator& ev, const Value& self, Args& args) {
  const Params p("index", args, {"/value", "/start", "/stop"}, 1);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto bound = [&](size_t i, int64_t fallback) {
    const int64_t value = p.integer(i, fallback);
    return value < 0 ? std::max<int64_t>(value + size, 0) : std::min(value, size);
  };
  const int64_t end = bound(2, size);
  for (int64_t i = bound(1, 0); i < end; ++i)
    if (equal(ev.heap(), self.items()[static_cast<size_t>(i)], *p[0])) return i;
  raise("the value is not in the list");
}

Value list_copy(Evaluator&, const Value& self, Args& args) {
  Params("copy", args, {}, 0);
  return self;
}

Value dict_get(Evaluator& ev, const Value& self, Args& args) {
  const Params p("get", args, {"/key", "/default"}, 1);
  if (const Value* found = self.dict().find(ev.heap(), *p[0])) return *found;
  return p[1] ? *p[1] : Value(None());
}

template <DictView::Part part>
Value dict_view(Evaluator& ev, const Value& self, Args& args) {
  Params("a view of a dict", args, {}, 0);
  return ev.heap().share<DictView>(self.dict_ptr(), part);
}

Value dict_copy(Evaluator&, const Value& self, Args& args) {
  Params("copy", args, {}, 0);
  return self;
}

}  // namespace

Method::Run find_list_method(std::string_view name) {
  if (name == "count") return list_count;
  if (name == "index") return list_index;
  if (name == "copy") return list_copy;
  return nullptr;
}

Method::Run find_dict_method(std::string_view name) {
  if (name == "get") return dict_get;
  if (name == "items") return dict_view<DictView::Part::items>;
  if (name == "keys") return dict_view<DictView::Part::keys>;
  if (name == "values") return dict_view<DictView::Part::values>;
  if (name == "copy") return dict_copy;
  return nullptr;
}

}  // namespace nibble::text::jinja
