// The objects that templates meet besides plain data.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/eval.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// What range() makes.
class Range : public Object {
 public:
  /// Throws Failure for a step of 0.
  Range(int64_t start, int64_t stop, int64_t step);
  const char* type_name() const override { return "range"; }
  int64_t size() const { return size_; }
  int64_t at(int64_t index) const { return start_ + index * step_; }
  /// What a slice of the range from item `first` on, every so many of its items, gives.
  Range slice(int64_t first, int64_t count, int64_t every) const;
  bool equals(Heap&, const Object& other) const override;
  bool truth(Evaluator&) override { return size_ > 0; }
  std::optional<Value> attribute(Evaluator&, std::string_view name) override;
  std::optional<Value> item(Evaluator&, const Value& key) override;
  bool subscriptable() const override { return true; }
  std::optional<int64_t> length(Evaluator&) override { return size_; }
  IteratorPtr iterate(Evaluator&) override;
  IteratorPtr iterate_backwards(Evaluator&) override;
  std::optional<bool> contains(Evaluator&, const Value& value) override;
  void print(Printer& printer) const override;

 private:
  int64_t start_, stop_, step_, size_;
};

/// What keys(), values() and items() of a dict give.
class DictView : public Object {
 public:
  enum class Part { keys, values, items };
  DictView(DictPtr dict, Part part) : dict_(std::move(dict)), part_(part) {}
  const char* type_name() const override;
  int depth() const override { return dict_->depth + 1; }
  bool equals(Heap& heap, const Object& other) const override;
  bool hashable() const override { return part_ == Part::values; }
  bool truth(Evaluator&) override { return !dict_->items.empty(); }
  std::optional<int64_t> length(Evaluator&) override { return static_cast<int64_t>(dict_->items.size()); }
  IteratorPtr iterate(Evaluator& ev) override;
  IteratorPtr iterate_backwards(Evaluator& ev) override;
  std::optional<bool> contains(Evaluator& ev, const Value& value) override;
  void print(Printer& printer) const override;

 private:
  DictPtr dict_;
  Part part_;
};

/// An iterator as a value: what lazy filters and reversed() make. Gives its items once.
class Generator : public Object {
 public:
  Generator(const char* type_name, IteratorPtr iterator)
      : type_name_(type_name), iterator_(std::move(iterator)) {}
  const char* type_name() const override { return type_name_; }
  bool next(Evaluator& ev, Value& item);
  IteratorPtr iterate(Evaluator& ev) override;

 private:
  const char* type_name_;
  IteratorPtr iterator_;
};

/// A function or class of Python that templates call.
class Builtin : public Object {
 public:
  using Run = Value (*)(Evaluator& ev, Args& args);
  Builtin(const char* name, bool is_type, Run run) : name_(name), is_type_(is_type), run_(run) {}
  const char* type_name() const override { return is_type_ ? "type" : "function"; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override { return run_(ev, args); }
  void print(Printer& printer) const override;

 private:
  const char* name_;
  bool is_type_;
  Run run_;
};

/// A method of a value.
class Method : public Object {
 public:
  using Run = Value (*)(Evaluator& ev, const Value& self, Args& args);
  Method(Value self, Run run) : self_(std::move(self)), run_(run) {}
  const char* type_name() const override { return "builtin_function_or_method"; }
  int depth() const override { return depth_of(self_) + 1; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override { return run_(ev, self_, args); }

 private:
  Value self_;
  Run run_;
};

class Macro : public Object {
 public:
  Macro(const MacroBody& body, Activation* closure) : body_(body), closure_(closure) {}
  const char* type_name() const override { return "Macro"; }
  const char* module() const override { return "jinja2.runtime."; }
  const MacroBody& body() const { return body_; }
  Activation* closure() const { return closure_; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override { return ev.call_macro(*this, args); }
  std::optional<Value> attribute(Evaluator& ev, std::string_view name) override;
  void print(Printer& printer) const override;

 private:
  const MacroBody& body_;
  Activation* closure_;
};

/// The variable loop.
class Loop : public Object {
 public:
  /// `sized` is what the loop goes over where its length can be asked for, or missing. `recursive` is null
  /// unless the loop may be called.
  Loop(IteratorPtr iterator, Value sized, const For* recursive, Activation* closure, int depth)
      : iterator_(std::move(iterator)),
        sized_(std::move(sized)),
        recursive_(recursive),
        closure_(closure),
        depth_(depth) {}
  const char* type_name() const override { return "LoopContext"; }
  const char* module() const override { return "jinja2.runtime."; }
  /// Goes to the next item.
  bool advance(Evaluator& ev, Value& item);
  bool truth(Evaluator& ev) override { return size(ev) > 0; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override;
  std::optional<Value> attribute(Evaluator& ev, std::string_view name) override;
  std::optional<int64_t> length(Evaluator& ev) override { return size(ev); }
  /// Pairs of an item and the loop, which goes on with them.
  IteratorPtr iterate(Evaluator& ev) override;
  void print(Printer& printer) const override;
  Value cycle(Evaluator& ev, Args& args) const;
  Value changed(Evaluator& ev, Args& args);

 private:
  int64_t size(Evaluator& ev);
  /// The item after the current one, missing at the end.
  const Value& peek(Evaluator& ev);

  IteratorPtr iterator_;
  Value sized_;
  const For* recursive_;
  Activation* closure_;
  int depth_;
  int64_t index_ = -1;
  std::optional<int64_t> size_;
  Value before_, current_, after_, last_changed_;
};

class Namespace : public Object {
 public:
  explicit Namespace(Dict::Items items) : items_(std::move(items)) {}
  const char* type_name() const override { return "Namespace"; }
  const char* module() const override { return "jinja2.utils."; }
  void set(Evaluator& ev, std::string_view name, Value value);
  std::optional<Value> attribute(Evaluator& ev, std::string_view name) override;
  void print(Printer& printer) const override;

 private:
  Value* find(Evaluator& ev, std::string_view name);
  Dict::Items items_;
};

/// What cycler() makes.
class Cycler : public Object {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  const char* type_name() const override { return "Cycler"; }
  const char* module() const override { return "jinja2.utils."; }
  std::optional<Value> attribute(Evaluator& ev, std::string_view name) override;
  Value next();
  void reset() { at_ = 0; }

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

/// What joiner() makes: its separator from the second call on.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  const char* type_name() const override { return "Joiner"; }
  const char* module() const override { return "jinja2.utils."; }
  bool callable() const override { return true; }
  Value call(Evaluator& ev, Args& args) override;
  std::optional<Value> attribute(Evaluator& ev, std::string_view name) override;

 private:
  Value separator_;
  bool used_ = false;
};

}  // namespace nibble::text::jinja
