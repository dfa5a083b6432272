// Filters about sequences as a whole.
#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/getter.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {
namespace {

/// Lists of `size` items.
class Batches : public Iterator {
 public:
  Batches(Value source, Value size, Value fill)
      : source_(std::move(source)), size_(std::move(size)), fill_(std::move(fill)) {}

  bool next(Evaluator& ev, Value& batch) override {
    if (!items_) items_ = iterate(ev, source_);
    for (Value item; items_->next(ev, item);) {
      const bool full = equal(ev.heap(), static_cast<int64_t>(batch_.size()), size_);
      std::vector<Value> done;
      if (full) done.swap(batch_);
      ev.heap().check_items(batch_.size() + 1);
      batch_.push_back(std::move(item));
      if (!full) continue;
      batch = ev.heap().list(std::move(done));
      return true;
    }
    if (batch_.empty()) return false;
    const auto have = static_cast<int64_t>(batch_.size());
    if (!fill_.none() && compare(ev.heap(), have, Order::less, size_)) {
      const int64_t wanted = need_integer(size_, "batch()");
      ev.heap().check_items(static_cast<uint64_t>(wanted));
      batch_.resize(static_cast<size_t>(wanted), fill_);
    }
    batch = ev.heap().list(std::move(batch_));
    batch_.clear();
    return true;
  }

 private:
  Value source_, size_, fill_;
  IteratorPtr items_;
  std::vector<Value> batch_;
};

/// That many lists of about equal length.
class Slices : public Iterator {
 public:
  Slices(Value source, Value slices, Value fill)
      : source_(std::move(source)), slices_(std::move(slices)), fill_(std::move(fill)) {}

  bool next(Evaluator& ev, Value& slice) override {
    const int64_t slices = need_integer(slices_, "slice()");
    if (done_ == 0) items_ = to_vector(ev, source_);
    if (slices == 0) raise("integer division or modulo by zero");
    if (done_ >= slices) return false;
    const auto size = static_cast<int64_t>(items_.size());
    const int64_t each = size / slices, longer = size % slices;
    const int64_t begin = done_ * each + std::min(done_, longer);
    const int64_t end = begin + each + (done_ < longer);
    std::vector<Value> part(items_.begin() + begin, items_.begin() + end);
    if (!fill_.none() && done_ >= longer) part.push_back(fill_);
    slice = ev.heap().list(std::move(part));
    ++done_;
    return true;
  }

 private:
  Value source_, slices_, fill_;
  std::vector<Value> items_;
  int64_t done_ = 0;
};

class Pairs : public Iterator {
 public:
  explicit Pairs(Value source) : source_(std::move(source)) {}
  bool next(Evaluator& ev, Value& pair) override {
    if (source_.undefined()) return false;
    if (!source_.is(Kind::dict)) raise("Can only get item pairs from a mapping.");
    if (!items_) items_ = DictView(source_.dict_ptr(), DictView::Part::items).iterate(ev);
    return items_->next(ev, pair);
  }

 private:
  Value source_;
  IteratorPtr items_;
};

Value batch_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("batch", args, {"linecount", "fill_with"}, 1);
  return generator(ev, std::make_unique<Batches>(value, *p[0], p[1] ? *p[1] : Value(None())));
}

Value slice_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("slice", args, {"slices", "fill_with"}, 1);
  return generator(ev, std::make_unique<Slices>(value, *p[0], p[1] ? *p[1] : Value(None())));
}

Value items_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("items", args, {}, 0);
  return generator(ev, std::make_unique<Pairs>(value));
}

Value length_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("length", args, {}, 0);
  const auto size = length(ev, value);
  if (!size) raise("object of type '{}' has no len()", type_name(value));
  return *size;
}

Value list_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("list", args, {}, 0);
  return ev.heap().list(to_vector(ev, value));
}

Value first_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("first", args, {}, 0);
  Value item;
  if (iterate(ev, value)->next(ev, item)) return item;
  return Heap::undefined("No first item, sequence was empty.");
}

Value last_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("last", args, {}, 0);
  Value item;
  if (iterate_backwards(ev, value)->next(ev, item)) return item;
  return Heap::undefined("No last item, sequence was empty.");
}

Value reverse_filter(Evaluator& ev, const Value& value, Args& args) {
  Params("reverse", args, {}, 0);
  if (value.is_string()) return get_slice(ev, value, Value(), Value(), int64_t{-1});
  IteratorPtr items =
      value.is(Kind::object) ? value.object().iterate_backwards(ev) : iterate_backwards(ev, value);
  if (items) return Heap::refer(ev.heap().make<Generator>("reversed", std::move(items)));
  std::vector<Value> all = to_vector(ev, value);
  std::reverse(all.begin(), all.end());
  return ev.heap().list(std::move(all));
}

Value join_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("join", args, {"d", "attribute"}, 0);
  const std::string separator = p[0] ? str(ev.heap(), *p[0]) : "";
  const AttributeGetter getter(ev, p[1] ? *p[1] : Value(None()));
  Buffer out(ev.heap());
  bool first = true;
  const IteratorPtr items = iterate(ev, value);
  for (Value item; items->next(ev, item);) {
    if (!std::exchange(first, false)) out.append(separator);
    out.append(str(ev.heap(), getter(ev, item)));
  }
  return ev.heap().string(out.take());
}

Value sum_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("sum", args, {"attribute", "start"}, 0);
  const AttributeGetter getter(ev, p[0] ? *p[0] : Value(None()));
  Value total = p[1] ? *p[1] : Value(int64_t{0});
  const IteratorPtr items = iterate(ev, value);
  if (total.is_string()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  for (Value item; items->next(ev, item);) total = arithmetic(ev, Operator::add, total, getter(ev, item));
  return total;
}

Value dictsort_filter(Evaluator& ev, const Value& value, Args& args) {
  const Params p("dictsort", args, {"case_sensitive", "by", "reverse"}, 0);
  const bool sensitive = p.boolean(ev, 0, false);
  const std::string by = !p[1] ? "key" : p[1]->is_string() ? p[1]->text() : "";
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  need_defined(value);
  if (!value.is(Kind::dict)) raise("'{}' object has no attribute 'items'", type_name(value));
  std::vector<Keyed> items;
  for (const auto& [key, item] : value.dict().items) {
    const Value& sorted = by == "key" ? key : item;
    items.push_back({sensitive ? sorted : ignore_case(ev, sorted), ev.heap().tuple({key, item})});
  }
  return ev.heap().list(sorted(ev, std::move(items), p.boolean(ev, 2, false)));
}

constexpr Filter kFilters[] = {
    {"batch", batch_filter},     {"count", length_filter},  {"dictsort", dictsort_filter},
    {"first", first_filter},     {"items", items_filter},   {"join", join_filter},
    {"last", last_filter},       {"length", length_filter}, {"list", list_filter},
    {"reverse", reverse_filter}, {"slice", slice_filter},   {"sum", sum_filter},
};

}  // namespace

const Filter* find_sequence_filter(std::string_view name) {
  return find_named(kFilters, name);
}

}  // namespace nibble::text::jinja
