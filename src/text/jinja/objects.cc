#include "text/jinja/objects.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/text.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"

namespace nibble::text::jinja {
namespace {

class RangeIterator : public Iterator {
 public:
  RangeIterator(Range range, bool backwards) : range_(range), backwards_(backwards) {}
  bool next(Evaluator& ev, Value& item) override {
    if (done_ == range_.size()) return false;
    ev.heap().step();
    item = range_.at(backwards_ ? range_.size() - 1 - done_ : done_);
    ++done_;
    return true;
  }

 private:
  Range range_;
  bool backwards_;
  int64_t done_ = 0;
};

class DictIterator : public Iterator {
 public:
  DictIterator(DictPtr dict, DictView::Part part, bool backwards)
      : dict_(std::move(dict)), part_(part), backwards_(backwards) {}
  bool next(Evaluator& ev, Value& item) override {
    const auto& items = dict_->items;
    if (done_ == items.size()) return false;
    ev.heap().step();
    const auto& [key, value] = items[backwards_ ? items.size() - 1 - done_ : done_];
    ++done_;
    if (part_ == DictView::Part::items)
      item = ev.heap().tuple({key, value});
    else
      item = part_ == DictView::Part::keys ? key : value;
    return true;
  }

 private:
  DictPtr dict_;
  DictView::Part part_;
  bool backwards_;
  size_t done_ = 0;
};

/// Passes on what a generator gives.
class GeneratorIterator : public Iterator {
 public:
  explicit GeneratorIterator(Generator& generator) : generator_(generator) {}
  bool next(Evaluator& ev, Value& item) override { return generator_.next(ev, item); }

 private:
  Generator& generator_;
};

class LoopIterator : public Iterator {
 public:
  explicit LoopIterator(Loop& loop) : loop_(loop) {}
  bool next(Evaluator& ev, Value& item) override {
    if (!loop_.advance(ev, item)) return false;
    item = ev.heap().tuple({item, Heap::refer(loop_)});
    return true;
  }

 private:
  Loop& loop_;
};

/// A method of an object that lives until the end of the rendering.
class ObjectMethod : public Object {
 public:
  using Run = std::function<Value(Evaluator&, Args&)>;
  explicit ObjectMethod(Run run) : run_(std::move(run)) {}
  const char* type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override { return run_(ev, args); }

 private:
  Run run_;
};

Value method(Evaluator& ev, ObjectMethod::Run run) {
  return ev.heap().share<ObjectMethod>(std::move(run));
}

void need_no_arguments(std::string_view function, const Args& args) {
  Params(function, args, {}, 0);
}

/// In the order of the number line: how many items a range has.
int64_t range_size(int64_t start, int64_t stop, int64_t step) {
  if (step == 0) raise("range() arg 3 must not be zero");
  const __int128 span = step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const __int128 stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  if (span <= 0) return 0;
  const __int128 size = (span + stride - 1) / stride;
  constexpr int64_t kMost = int64_t{1} << 62;
  return size > kMost ? kMost : static_cast<int64_t>(size);
}

}  // namespace

Range::Range(int64_t start, int64_t stop, int64_t step)
    : start_(start), stop_(stop), step_(step), size_(range_size(start, stop, step)) {}

Range Range::slice(int64_t first, int64_t count, int64_t every) const {
  int64_t step = 0, begin = 0, end = 0;
  if (__builtin_mul_overflow(step_, every, &step) || __builtin_mul_overflow(first, step_, &begin) ||
      __builtin_add_overflow(begin, start_, &begin) || __builtin_mul_overflow(count, step, &end) ||
      __builtin_add_overflow(end, begin, &end))
    raise("a slice of a range does not fit in 64 bits");
  return {begin, end, step};
}

bool Range::equals(Heap&, const Object& other) const {
  const auto* range = dynamic_cast<const Range*>(&other);
  if (!range || range->size_ != size_) return false;
  return size_ == 0 || (range->start_ == start_ && (size_ == 1 || range->step_ == step_));
}

std::optional<Value> Range::attribute(Evaluator& ev, std::string_view name) {
  if (name == "start") return Value(start_);
  if (name == "stop") return Value(stop_);
  if (name == "step") return Value(step_);
  Range range = *this;
  if (name == "index")
    return method(ev, [range](Evaluator& e, Args& args) mutable -> Value {
      const Params p("index", args, {"/value"}, 1);
      if (!*range.contains(e, *p[0])) raise("the value is not in range");
      return (as_integer(*p[0]).value_or(0) - range.start_) / range.step_;
    });
  if (name == "count")
    return method(ev, [range](Evaluator& e, Args& args) mutable -> Value {
      return int64_t{*range.contains(e, *Params("count", args, {"/value"}, 1)[0])};
    });
  return std::nullopt;
}

std::optional<Value> Range::item(Evaluator&, const Value& key) {
  const auto place = place_of(key, size_);
  if (!place) return std::nullopt;
  return Value(at(*place));
}

IteratorPtr Range::iterate(Evaluator&) {
  return std::make_unique<RangeIterator>(*this, false);
}

IteratorPtr Range::iterate_backwards(Evaluator&) {
  return std::make_unique<RangeIterator>(*this, true);
}

std::optional<bool> Range::contains(Evaluator&, const Value& value) {
  auto wanted = as_integer(value);
  if (value.is(Kind::real) && std::trunc(value.real()) == value.real() && std::fabs(value.real()) < 0x1p62)
    wanted = static_cast<int64_t>(value.real());
  if (!wanted || size_ == 0) return false;
  const int64_t first = at(0), last = at(size_ - 1);
  if (*wanted < std::min(first, last) || *wanted > std::max(first, last)) return false;
  return (static_cast<__int128>(*wanted) - start_) % step_ == 0;
}

void Range::print(Printer& printer) const {
  printer.append(step_ == 1 ? fmt::format("range({}, {})", start_, stop_)
                            : fmt::format("range({}, {}, {})", start_, stop_, step_));
}

const char* DictView::type_name() const {
  return part_ == Part::keys ? "dict_keys" : part_ == Part::values ? "dict_values" : "dict_items";
}

bool DictView::equals(Heap& heap, const Object& other) const {
  const auto* view = dynamic_cast<const DictView*>(&other);
  if (this == view) return true;
  if (!view || view->part_ != part_ || part_ == Part::values) return false;
  if (view->dict_->items.size() != dict_->items.size()) return false;
  for (const auto& [key, value] : dict_->items) {
    const Value* found = view->dict_->find(heap, key);
    if (!found || (part_ == Part::items && !equal(heap, value, *found))) return false;
  }
  return true;
}

IteratorPtr DictView::iterate(Evaluator&) {
  return std::make_unique<DictIterator>(dict_, part_, false);
}

IteratorPtr DictView::iterate_backwards(Evaluator&) {
  return std::make_unique<DictIterator>(dict_, part_, true);
}

std::optional<bool> DictView::contains(Evaluator& ev, const Value& value) {
  if (part_ == Part::values) return std::nullopt;
  if (part_ == Part::keys) return dict_->find(ev.heap(), value) != nullptr;
  if (!value.is_any_tuple() || value.items().size() != 2) return false;
  const Value* found = dict_->find(ev.heap(), value.items()[0]);
  return found && equal(ev.heap(), *found, value.items()[1]);
}

void DictView::print(Printer& printer) const {
  printer.append(type_name());
  printer.append("([");
  const char* separator = "";
  for (const auto& [key, value] : dict_->items) {
    printer.append(std::exchange(separator, ", "));
    if (part_ == Part::items) printer.append("(");
    if (part_ != Part::values) printer.repr(key);
    if (part_ == Part::items) printer.append(", ");
    if (part_ != Part::keys) printer.repr(value);
    if (part_ == Part::items) printer.append(")");
  }
  printer.append("])");
}

bool Generator::next(Evaluator& ev, Value& item) {
  const Evaluator::Level level(ev);
  ev.heap().step();
  return iterator_->next(ev, item);
}

IteratorPtr Generator::iterate(Evaluator&) {
  return std::make_unique<GeneratorIterator>(*this);
}

void Builtin::print(Printer& printer) const {
  if (!is_type_) return Object::print(printer);
  printer.append(fmt::format("<class '{}'>", name_));
}

std::optional<Value> Macro::attribute(Evaluator& ev, std::string_view name) {
  Heap& heap = ev.heap();
  if (name == "name") return body_.name.empty() ? Value(None()) : heap.string(body_.name);
  if (name == "catch_kwargs") return Value(body_.kwargs >= 0);
  if (name == "catch_varargs") return Value(body_.varargs >= 0);
  if (name == "caller") return Value(body_.takes_caller);
  const bool arguments = name == "arguments";
  if (!arguments && name != "explicit_caller") return std::nullopt;
  std::vector<Value> names;
  bool explicit_caller = false;
  for (const Parameter& parameter : body_.parameters) {
    names.push_back(heap.string(parameter.name));
    explicit_caller |= parameter.name == "caller";
  }
  if (arguments) return heap.tuple(std::move(names));
  return Value(explicit_caller);
}

void Macro::print(Printer& printer) const {
  if (body_.name.empty()) return printer.append("<Macro anonymous>");
  printer.append(fmt::format("<Macro '{}'>", body_.name));
}

bool Loop::advance(Evaluator& ev, Value& item) {
  if (!after_.missing())
    item = std::exchange(after_, Value());
  else if (!iterator_->next(ev, item))
    return false;
  ++index_;
  before_ = std::exchange(current_, item);
  return true;
}

const Value& Loop::peek(Evaluator& ev) {
  if (after_.missing() && !iterator_->next(ev, after_)) after_ = Value();
  return after_;
}

int64_t Loop::size(Evaluator& ev) {
  if (size_) return *size_;
  if (!sized_.missing()) size_ = jinja::length(ev, sized_);
  if (size_) return *size_;
  std::vector<Value> rest;
  for (Value item; iterator_->next(ev, item);) {
    ev.heap().check_items(rest.size() + 1);
    rest.push_back(item);
  }
  size_ = static_cast<int64_t>(rest.size()) + index_ + 1 + !after_.missing();
  iterator_ = iterate_items(std::move(rest));
  return *size_;
}

Value Loop::call(Evaluator& ev, Args& args) {
  const Params p("loop", args, {"iterable"}, 1);
  if (!recursive_) raise("the loop must have the 'recursive' marker to be called recursively");
  return ev.heap().string(ev.call_loop(*recursive_, *p[0], depth_ + 1, closure_));
}

Value Loop::cycle(Evaluator&, Args& args) const {
  if (args.positional.empty() || !args.keyword.empty()) raise("cycle() takes one item or more");
  return args.positional[static_cast<size_t>(index_) % args.positional.size()];
}

Value Loop::changed(Evaluator& ev, Args& args) {
  if (!args.keyword.empty()) raise("changed() takes no keyword arguments");
  const Value values = ev.heap().tuple(std::move(args.positional));
  if (equal(ev.heap(), last_changed_, values)) return false;
  last_changed_ = values;
  return true;
}

std::optional<Value> Loop::attribute(Evaluator& ev, std::string_view name) {
  if (name == "index0") return Value(index_);
  if (name == "index") return Value(index_ + 1);
  if (name == "first") return Value(index_ == 0);
  if (name == "last") return Value(peek(ev).missing());
  if (name == "length") return Value(size(ev));
  if (name == "revindex0") return Value(size(ev) - index_ - 1);
  if (name == "revindex") return Value(size(ev) - index_);
  if (name == "depth0") return Value(int64_t{depth_});
  if (name == "depth") return Value(int64_t{depth_} + 1);
  if (name == "previtem") return index_ == 0 ? Heap::undefined("there is no previous item") : before_;
  if (name == "nextitem") {
    const Value& next = peek(ev);
    return next.missing() ? Heap::undefined("there is no next item") : next;
  }
  if (name == "cycle") return method(ev, [this](Evaluator& e, Args& args) { return cycle(e, args); });
  if (name == "changed") return method(ev, [this](Evaluator& e, Args& args) { return changed(e, args); });
  return std::nullopt;
}

IteratorPtr Loop::iterate(Evaluator&) {
  return std::make_unique<LoopIterator>(*this);
}

void Loop::print(Printer&) const {
  raise("prints loop; one of its attributes is meant");
}

Value* Namespace::find(Evaluator& ev, std::string_view name) {
  ev.heap().step(1 + items_.size() / 8);
  for (auto& [key, value] : items_)
    if (key.is_string() && key.text() == name) return &value;
  return nullptr;
}

void Namespace::set(Evaluator& ev, std::string_view name, Value value) {
  if (Value* old = find(ev, name)) {
    *old = std::move(value);
    return;
  }
  ev.heap().check_items(items_.size() + 1);
  items_.emplace_back(ev.heap().string(std::string(name)), std::move(value));
}

std::optional<Value> Namespace::attribute(Evaluator& ev, std::string_view name) {
  const Value* value = find(ev, name);
  if (!value) return std::nullopt;
  return *value;
}

void Namespace::print(Printer& printer) const {
  printer.append("<Namespace ");
  printer.attributes(*this, items_);
  printer.append(">");
}

Value Cycler::next() {
  const Value item = items_[at_];
  at_ = (at_ + 1) % items_.size();
  return item;
}

std::optional<Value> Cycler::attribute(Evaluator& ev, std::string_view name) {
  if (name == "current") return items_[at_];
  if (name == "pos") return Value(static_cast<int64_t>(at_));
  if (name == "items") return ev.heap().tuple(items_);
  if (name == "next")
    return method(ev, [this](Evaluator&, Args& args) {
      need_no_arguments("next", args);
      return next();
    });
  if (name == "reset")
    return method(ev, [this](Evaluator&, Args& args) -> Value {
      need_no_arguments("reset", args);
      reset();
      return None();
    });
  return std::nullopt;
}

Value Joiner::call(Evaluator& ev, Args& args) {
  need_no_arguments("joiner", args);
  if (std::exchange(used_, true)) return separator_;
  return ev.heap().string("");
}

std::optional<Value> Joiner::attribute(Evaluator&, std::string_view name) {
  if (name == "sep") return separator_;
  if (name == "used") return Value(used_);
  return std::nullopt;
}

}  // namespace nibble::text::jinja
