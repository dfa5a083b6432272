// Filters that map, pick, order and group items.
#include <algorithm>
#include <unordered_map>

#include "base/text.h"
#include "text/jinja/filters.h"
#include "text/jinja/getter.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"
#include "text/jinja/tests.h"

namespace nibble::text::jinja {
namespace {

/// A lazy filter of the items of a value. Its arguments are looked at when the first item is asked for, and
/// not at all for a value that is false, as in jinja2.
class LazyFilter : public Iterator {
 public:
  LazyFilter(Value source, Args args) : args_(std::move(args)), source_(std::move(source)) {}

  bool next(Evaluator& ev, Value& item) override {
    if (done_) return false;
    if (!items_) {
      done_ = !ev.truth(source_);
      if (done_) return false;
      prepare(ev);
      items_ = iterate(ev, source_);
    }
    while (items_->next(ev, item))
      if (take(ev, item)) return true;
    done_ = true;
    return false;
  }

 protected:
  virtual void prepare(Evaluator& ev) = 0;
  /// Changes the item into what the filter gives, or leaves it out.
  virtual bool take(Evaluator& ev, Value& item) = 0;
  Args args_;

 private:
  Value source_;
  IteratorPtr items_;
  bool done_ = false;
};

Value pop_first(Args& args) {
  Value value = std::move(args.positional.front());
  args.positional.erase(args.positional.begin());
  return value;
}

/// The filter or test that a value names.
template <typename Definition>
const Definition* named(const Definition* (*find)(std::string_view), const char* kind, const Value& name) {
  const Definition* found = name.is_string() ? find(name.text()) : nullptr;
  if (!found && name.undefined())
    raise("no {} is named: {}; are its quotes missing?", kind, name.undefined_message());
  if (!found)
    raise("the {} {} is not supported; --raw takes a prompt as it is", kind,
          name.is_string() ? printable(name.text()) : type_name(name));
  return found;
}

class Mapped : public LazyFilter {
 public:
  using LazyFilter::LazyFilter;

 private:
  void prepare(Evaluator& ev) override {
    const Value attribute = args_.positional.empty() ? pop_keyword(args_, "attribute") : Value();
    if (attribute.missing()) {
      if (args_.positional.empty()) raise("map requires a filter argument");
      filter_ = named(find_filter, "filter", pop_first(args_));
      return;
    }
    const Value fallback = pop_keyword(args_, "default");
    if (!args_.keyword.empty()) raise("Unexpected keyword argument '{}'", args_.keyword.front().first);
    getter_.emplace(ev, attribute, fallback.missing() ? Value(None()) : fallback);
  }

  bool take(Evaluator& ev, Value& item) override {
    if (getter_) {
      item = (*getter_)(ev, item);
    } else {
      Args args = args_;
      item = filter_->run(ev, item, args);
    }
    return true;
  }

  const Filter* filter_ = nullptr;
  std::optional<AttributeGetter> getter_;
};

/// select, reject, and their forms that test an attribute.
class Selected : public LazyFilter {
 public:
  Selected(Value source, Args args, bool wanted, bool by_attribute)
      : LazyFilter(std::move(source), std::move(args)), wanted_(wanted), by_attribute_(by_attribute) {}

 private:
  void prepare(Evaluator& ev) override {
    if (by_attribute_) {
      if (args_.positional.empty()) raise("Missing parameter for attribute name");
      getter_.emplace(ev, pop_first(args_));
    }
    if (!args_.positional.empty()) test_ = named(find_test, "test", pop_first(args_));
  }

  bool take(Evaluator& ev, Value& item) override {
    const Value tested = getter_ ? (*getter_)(ev, item) : item;
    if (!test_) return ev.truth(tested) == wanted_;
    Args args = args_;
    return test_->run(ev, tested, args) == wanted_;
  }

  bool wanted_, by_attribute_;
  const Test* test_ = nullptr;
  std::optional<AttributeGetter> getter_;
};

/// Items whose keys were not seen before.
class Unique : public Iterator {
 public:
  Unique(Value source, bool sensitive, AttributeGetter getter)
      : source_(std::move(source)), sensitive_(sensitive), getter_(std::move(getter)) {}

  bool next(Evaluator& ev, Value& item) override {
    if (!items_) items_ = iterate(ev, source_);
    while (items_->next(ev, item)) {
      Value key = getter_(ev, item);
      if (!sensitive_) key = ignore_case(ev, key);
      const size_t code = hash(ev.heap(), key);
      const auto [first, last] = seen_.equal_range(code);
      if (std::any_of(first, last, [&](const auto& other) { return equal(ev.heap(), other.second, key); }))
        continue;
      ev.heap().check_items(seen_.size() + 1);
      seen_.emplace(code, std::move(key));
      return true;
    }
    return false;
  }

 private:
  Value source_;
  bool sensitive_;
  AttributeGetter getter_;
  IteratorPtr items_;
  std::unordered_multimap<size_t, Value> seen_;
};

Value map_filter(Evaluator& ev, const Value& value, Args& args) {
  return generator(ev, std::make_unique<Mapped>(value, std::move(args)));
}

template <bool wanted, bool by_attribute>
Value select_filter(Evaluator& ev, const Value& value, Args& args) {
  return generator(ev, std::make_unique<Selected>(value, std::move(args), wanted, by_attribute));
}

Value unique_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("unique", args, {"case_sensitive", "attribute"}, 0);
  return generator(ev, std::make_unique<Unique>(value, p.boolean(ev, 0, false),
                                                AttributeGetter(ev, p[1] ? *p[1] : Value(None()))));
}

Value sort_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("sort", args, {"reverse", "case_sensitive", "attribute"}, 0);
  const bool sensitive = p.boolean(ev, 1, false);
  std::vector<AttributeGetter> getters;
  if (p[2] && p[2]->is_string())
    for (const std::string_view part : split(p[2]->text(), ",", -1))
      getters.emplace_back(ev, ev.heap().string(std::string(part)));
  else
    getters.emplace_back(ev, p[2] ? *p[2] : Value(None()));
  std::vector<Keyed> items;
  for (const Value& item : to_vector(ev, value)) {
    std::vector<Value> key;
    for (const AttributeGetter& getter : getters) {
      key.push_back(getter(ev, item));
      if (!sensitive) key.back() = ignore_case(ev, key.back());
    }
    items.push_back({ev.heap().list(std::move(key)), item});
  }
  return ev.heap().list(sorted(ev, std::move(items), p.boolean(ev, 0, false)));
}

template <Order order>
Value extreme_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("min", args, {"case_sensitive", "attribute"}, 0);
  const bool sensitive = p.boolean(ev, 0, false);
  const AttributeGetter getter(ev, p[1] ? *p[1] : Value(None()));
  const IteratorPtr items = iterate(ev, value);
  Value best, best_key;
  for (Value item; items->next(ev, item);) {
    Value key = getter(ev, item);
    if (!sensitive) key = ignore_case(ev, key);
    if (!best.missing() && !compare(ev.heap(), key, order, best_key)) continue;
    best = item;
    best_key = std::move(key);
  }
  return best.missing() ? Heap::undefined("No aggregated item, sequence was empty.") : best;
}

Value groupby_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const bool sensitive = p.boolean(ev, 2, false);
  const AttributeGetter getter(ev, *p[0], p[1] ? *p[1] : Value(None()));
  const auto key_of = [&](const Value& item) {
    const Value key = getter(ev, item);
    return sensitive ? key : ignore_case(ev, key);
  };
  std::vector<Keyed> items;
  for (const Value& item : to_vector(ev, value)) items.push_back({key_of(item), item});
  const std::vector<Value> ordered = sorted(ev, std::move(items), false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < ordered.size();) {
    const Value key = key_of(ordered[begin]);
    size_t end = begin + 1;
    while (end < ordered.size() && equal(ev.heap(), key, key_of(ordered[end]))) ++end;
    const auto at = [&](size_t i) { return ordered.begin() + static_cast<ptrdiff_t>(i); };
    groups.push_back(
        ev.heap().list({getter(ev, ordered[begin]), ev.heap().list({at(begin), at(end)})}, ListType::group));
    begin = end;
  }
  return ev.heap().list(std::move(groups));
}

constexpr Filter kFilters[] = {
    {"groupby", groupby_filter},
    {"map", map_filter},
    {"max", extreme_filter<Order::greater>},
    {"min", extreme_filter<Order::less>},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<false, true>},
    {"select", select_filter<true, false>},
    {"selectattr", select_filter<true, true>},
    {"sort", sort_filter},
    {"unique", unique_filter},
};

}  // namespace

const Filter* find_selection_filter(std::string_view name) {
  return find_named(kFilters, name);
}

}  // namespace nibble::text::jinja
