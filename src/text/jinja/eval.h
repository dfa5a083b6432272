// Runs a program.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/heap.h"
#include "text/jinja/template.h"

namespace nibble::text::jinja {

/// The variables of a function that is running.
struct Activation {
  Activation(Activation* o, int n) : outer(o), slots(static_cast<size_t>(n)) {}
  Activation* outer;  // of the function around it
  std::vector<Value> slots;
};

/// How a statement ends: normally, by break or by continue.
enum class Flow { normal, leave_loop, next_item };

/// What raise_exception throws.
struct Raised {
  std::string message;
};

class Macro;

/// One rendering of a program. Throws Failure (line() is then where) and Raised.
class Evaluator {
 public:
  Evaluator(const Program& program, const Limits& limits, const Clock& clock);

  std::string render(const io::Json& context);

  /// The line of the statement or expression that runs.
  int line() const { return line_; }
  Heap& heap() { return heap_; }
  const Clock& clock() const { return clock_; }

  /// Counts a level of recursion while it lives. Throws Failure above the limit.
  class Level {
   public:
    explicit Level(Evaluator& ev) : ev_(ev) {
      if (++ev.depth_ > ev.heap_.limits().recursion) [[unlikely]]
        raise("nests calls and expressions deeper than {} levels", ev.heap_.limits().recursion);
    }
    ~Level() { --ev_.depth_; }

   private:
    Evaluator& ev_;
  };

  // What objects and built-ins need of it.
  /// Calls a function, a method, a macro or a loop.
  Value call(const Value& callee, Args args);
  Value call_macro(const Macro& macro, Args& args);
  /// Runs the body of a recursive loop over other items.
  std::string call_loop(const For& loop, const Value& iterable, int depth, Activation* closure);
  bool truth(const Value& value);
  /// The test of a for, inside of its own activation; gives `item` the form of the loop's target.
  bool loop_test(const For& loop, Activation& activation, Value& item);

 private:
  // Statements (eval.cc).
  Flow run(const Body& body);
  Flow run(const Stmt& stmt);
  Flow run_loop(const For& loop, const Value& iterable, int depth);
  Flow run_branch(const If& branch);
  Flow run_with(const With& with);
  Flow run_filter_block(const FilterBlock& block);
  Flow run_assign_block(const AssignBlock& assign);
  void run_assign(const Assign& assign);
  void run_call_block(const CallBlock& block);
  void output(const Output& output);
  void enter(const Frame& frame);
  void leave(const Frame& frame);
  Value& variable(const Ref& ref);
  void assign(const Target& target, const Value& value);
  void check_namespaces(const Target& target);
  Value read(const Target& target);
  /// Runs with another activation current.
  template <typename Run>
  auto with_activation(Activation& activation, const Run& run) {
    Activation* const before = std::exchange(activation_, &activation);
    auto result = run();
    activation_ = before;
    return result;
  }
  /// The activation of a call: `local` unless others may keep it.
  Activation& new_activation(const Function& function, Activation& local);
  Value macro(const MacroBody& body);
  /// The text that `run` writes; Flow of it in `flow`.
  template <typename Run>
  std::string captured(Flow& flow, const Run& run);
  void bind_parameters(const Macro& macro, Args& args);
  void fill_context(const io::Json& context);
  Value from_json(const io::Json& json, int depth);

  // Expressions (eval_expr.cc).
  Value eval(const Expr& expr);
  Value eval_name(const Name& name);
  Value eval_unary(const Unary& unary);
  Value eval_binary(const Binary& binary);
  Value eval_compare(const Compare& compare);
  Value eval_concat(const Concat& concat);
  Value eval_conditional(const Conditional& conditional);
  Value eval_list(const ListExpr& list);
  Value eval_dict(const DictExpr& dict);
  Value eval_slice(const Slice& slice);
  Value eval_call(const Call& call, const Value* caller = nullptr);
  Value eval_filter(const FilterExpr& filter);
  Value eval_test(const TestExpr& test);
  Args eval_arguments(const CallArgs& args);
  void spread(const Value& star_star, Args& args);

  const Program& program_;
  const Clock& clock_;
  Heap heap_;
  std::vector<Value> context_;  // by place in Program::names
  Activation root_;
  Activation* activation_ = &root_;
  Buffer* out_ = nullptr;
  const Value* block_text_ = nullptr;  // what a filter without an input filters
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace nibble::text::jinja
