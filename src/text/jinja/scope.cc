#include "text/jinja/scope.h"

#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "text/jinja/filters.h"
#include "text/jinja/lexer.h"
#include "text/jinja/tests.h"
#include "text/jinja/walk.h"

namespace nibble::text::jinja {
namespace {

struct FunctionScope {
  Function* function;
  FunctionScope* parent;
};

/// Functions between one and another that it lies in.
int hops(const FunctionScope* from, const FunctionScope* to) {
  int n = 0;
  for (; from != to; from = from->parent) ++n;
  return n;
}

/// A variable: a slot of a function.
struct Variable {
  FunctionScope* function;
  int slot;
};

/// The names of one frame. Copied for the branches of an if, which share the frame's slots.
class Symbols {
 public:
  Symbols(FunctionScope* function, Symbols* parent)
      : function_(function), parent_(parent), slots_(std::make_shared<std::map<std::string, int>>()) {}

  FunctionScope* function() const { return function_; }

  std::optional<Variable> find(const std::string& name) const {
    for (const Symbols* s = this; s; s = s->parent_)
      if (const auto it = s->refs_.find(name); it != s->refs_.end()) return it->second;
    return std::nullopt;
  }

  Ref ref(const std::string& name) const {
    const auto variable = find(name);
    NIBBLE_CHECK(variable, "the name {} was not found by the analysis", name);
    return {hops(function_, variable->function), variable->slot};
  }

  void parameter(const std::string& name) {
    stores_.insert(name);
    loads_.erase(define(name));
  }

  void load(const std::string& name) {
    if (!find(name)) load_from_context(name);
  }

  void store(const std::string& name) {
    stores_.insert(name);
    if (refs_.contains(name)) return;
    if (!copy_from_parent(name)) loads_[define(name)] = {Load::Kind::clear, name, {}};
  }

  /// Takes over what the branches of an if found. What only they assign begins with the value outside.
  void merge(const std::vector<Symbols>& branches) {
    std::set<std::string> stored;
    for (const Symbols& branch : branches)
      for (const std::string& name : branch.stores_)
        if (!stores_.contains(name)) stored.insert(name);
    for (const Symbols& branch : branches) {
      for (const auto& [name, variable] : branch.refs_) refs_.insert_or_assign(name, variable);
      for (const auto& [slot, load] : branch.loads_) loads_.insert_or_assign(slot, load);
      stores_.insert(branch.stores_.begin(), branch.stores_.end());
    }
    for (const std::string& name : stored)
      if (!copy_from_parent(name)) load_from_context(name);
  }

  /// What entering and leaving the frame does. `place` finds a name of the context.
  template <typename Place>
  Frame frame(const Place& place) const {
    Frame frame;
    for (const auto& [slot, load] : loads_)
      frame.loads.push_back(
          {load.kind, slot, load.kind == Load::Kind::context ? place(load.name) : -1, load.source});
    for (const auto& [name, slot] : *slots_) frame.slots.push_back(slot);
    return frame;
  }

 private:
  struct PendingLoad {
    Load::Kind kind = Load::Kind::clear;
    std::string name;
    Ref source;
  };

  int define(const std::string& name) {
    const auto [it, fresh] = slots_->try_emplace(name, function_->function->slots);
    if (fresh) ++function_->function->slots;
    refs_.insert_or_assign(name, Variable{function_, it->second});
    return it->second;
  }

  void load_from_context(const std::string& name) { loads_[define(name)] = {Load::Kind::context, name, {}}; }

  bool copy_from_parent(const std::string& name) {
    const auto outer = parent_ ? parent_->find(name) : std::nullopt;
    if (!outer) return false;
    loads_[define(name)] = {Load::Kind::copy, name, {hops(function_, outer->function), outer->slot}};
    return true;
  }

  FunctionScope* function_;
  Symbols* parent_;
  std::shared_ptr<std::map<std::string, int>> slots_;
  std::map<std::string, Variable> refs_;
  std::map<int, PendingLoad> loads_;  // by slot; parameters have none
  std::set<std::string> stores_;
};

// What a frame's statements do to its names. Bodies with frames of their own are not visited.

void analyze(Symbols& symbols, const ExprPtr& expr) {
  if (expr) walk(*expr, [&](const std::string& name, NameUse, int) { symbols.load(name); });
}

void analyze(Symbols& symbols, const Target& target, bool parameters) {
  for (const Target& part : target.parts) analyze(symbols, part, parameters);
  if (target.tuple) return;
  if (!target.attribute.empty())
    symbols.load(target.name);
  else if (parameters)
    symbols.parameter(target.name);
  else
    symbols.store(target.name);
}

void analyze(Symbols& symbols, const Body& body);

void analyze(Symbols& symbols, const If& branch) {
  analyze(symbols, branch.branches.front().first);
  std::vector<Symbols> copies(3, symbols);
  analyze(copies[0], branch.branches.front().second);
  for (size_t i = 1; i < branch.branches.size(); ++i) {
    analyze(copies[1], branch.branches[i].first);
    std::vector<Symbols> taken(1, copies[1]);
    analyze(taken[0], branch.branches[i].second);
    copies[1].merge(taken);
  }
  analyze(copies[2], branch.otherwise);
  symbols.merge(copies);
}

void analyze(Symbols& symbols, const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::output:
      for (const ExprPtr& part : static_cast<const Output&>(stmt).parts) analyze(symbols, part);
      return;
    case StmtKind::loop:
      return analyze(symbols, static_cast<const For&>(stmt).iterable);
    case StmtKind::branch:
      return analyze(symbols, static_cast<const If&>(stmt));
    case StmtKind::macro:
      return symbols.store(static_cast<const MacroStmt&>(stmt).macro.name);
    case StmtKind::call_block:
      return analyze(symbols, static_cast<const CallBlock&>(stmt).call);
    case StmtKind::filter_block:
      return analyze(symbols, static_cast<const FilterBlock&>(stmt).filter);
    case StmtKind::with:
      for (const auto& [target, value] : static_cast<const With&>(stmt).values) analyze(symbols, value);
      return;
    case StmtKind::assign:
      analyze(symbols, static_cast<const Assign&>(stmt).value);
      return analyze(symbols, static_cast<const Assign&>(stmt).target, false);
    case StmtKind::assign_block:
      return analyze(symbols, static_cast<const AssignBlock&>(stmt).target, false);
    case StmtKind::leave_loop:
    case StmtKind::next_item:
      return;
  }
}

void analyze(Symbols& symbols, const Body& body) {
  for (const StmtPtr& stmt : body) analyze(symbols, *stmt);
}

/// Which of the names a body reads before it assigns them, in the order of the text.
std::set<std::string> undeclared(const Body& body, std::set<std::string> names) {
  std::set<std::string> found;
  walk(body, [&](const std::string& name, NameUse use, int) {
    if (!names.contains(name)) return;
    if (use == NameUse::load)
      found.insert(name);
    else if (!found.contains(name))
      names.erase(name);
  });
  return found;
}

class Binder {
 public:
  explicit Binder(Program& program) : program_(program) {}

  void run() {
    FunctionScope root{&program_.function, nullptr};
    Symbols symbols(&root, nullptr);
    analyze(symbols, program_.body);
    bind(program_.body, {&symbols, false, false});
    program_.frame = frame(symbols);
  }

 private:
  /// Where a statement stands. `soft`: inside of an if of the same frame, where filters may be unknown.
  struct Place {
    Symbols* symbols;
    bool soft;
    bool in_loop;
  };

  [[noreturn]] void problem(int line, std::string_view text) const { fail_at(program_.what, line, text); }

  Frame frame(const Symbols& symbols) {
    return symbols.frame([&](const std::string& name) {
      const auto [it, fresh] = context_names_.try_emplace(name, static_cast<int>(program_.names.size()));
      if (fresh) program_.names.push_back(name);
      return it->second;
    });
  }

  /// A function inside of another, where there is one at all.
  static FunctionScope inner(Function& function, FunctionScope* parent, bool there = true) {
    if (there) parent->function->nested = true;
    return {&function, parent};
  }

  template <typename Applied, typename Definition>
  void look_up(Applied& e, const Definition*& found, const Definition* definition, const char* kind,
               bool soft) {
    found = definition;
    if (!found && !soft)
      problem(e.line, fmt::format("the {} {} is not supported; --raw takes a prompt as it is", kind,
                                  printable(e.name)));
  }

  void bind(Expr& expr, const Symbols& symbols, bool soft) {
    if (expr.kind == ExprKind::name) {
      auto& name = static_cast<Name&>(expr);
      name.ref = symbols.ref(name.name);
    } else if (expr.kind == ExprKind::filter) {
      auto& e = static_cast<FilterExpr&>(expr);
      look_up(e, e.filter, find_filter(e.name), "filter", soft);
    } else if (expr.kind == ExprKind::test) {
      auto& e = static_cast<TestExpr&>(expr);
      look_up(e, e.test, find_test(e.name), "test", soft);
    }
    const bool softer = soft || expr.kind == ExprKind::conditional;
    for_each_child(expr, [&](Expr& child) { bind(child, symbols, softer); });
  }

  void bind(const ExprPtr& expr, const Symbols& symbols, bool soft) {
    if (expr) bind(*expr, symbols, soft);
  }

  void bind(Target& target, const Symbols& symbols) {
    for (Target& part : target.parts) bind(part, symbols);
    if (!target.tuple) target.ref = symbols.ref(target.name);
  }

  void bind(const Body& body, const Place& place) {
    for (const StmtPtr& stmt : body) bind(*stmt, place);
  }

  void bind(Stmt& stmt, const Place& place) {
    switch (stmt.kind) {
      case StmtKind::output:
        for (const ExprPtr& part : static_cast<Output&>(stmt).parts) bind(part, *place.symbols, place.soft);
        return;
      case StmtKind::loop:
        return bind_loop(static_cast<For&>(stmt), place);
      case StmtKind::branch:
        return bind_branch(static_cast<If&>(stmt), place);
      case StmtKind::macro: {
        auto& macro = static_cast<MacroStmt&>(stmt);
        bind_macro(macro.macro, macro.line, place);
        macro.ref = place.symbols->ref(macro.macro.name);
        return;
      }
      case StmtKind::call_block: {
        auto& block = static_cast<CallBlock&>(stmt);
        bind_macro(block.macro, block.line, place);
        return bind(block.call, *place.symbols, place.soft);
      }
      case StmtKind::filter_block:
        return bind_filter_block(static_cast<FilterBlock&>(stmt), place);
      case StmtKind::with:
        return bind_with(static_cast<With&>(stmt), place);
      case StmtKind::assign: {
        auto& assign = static_cast<Assign&>(stmt);
        bind(assign.value, *place.symbols, place.soft);
        return bind(assign.target, *place.symbols);
      }
      case StmtKind::assign_block:
        return bind_assign_block(static_cast<AssignBlock&>(stmt), place);
      case StmtKind::leave_loop:
      case StmtKind::next_item:
        if (!place.in_loop)
          problem(stmt.line, fmt::format("{} stands outside of a loop",
                                         stmt.kind == StmtKind::leave_loop ? "break" : "continue"));
        return;
    }
  }

  void bind_branch(If& branch, const Place& place) {
    const Place inside{place.symbols, true, place.in_loop};
    for (auto& [test, body] : branch.branches) {
      bind(test, *place.symbols, true);
      bind(body, inside);
    }
    bind(branch.otherwise, inside);
  }

  void check_loop_is_kept(const For& loop) const {
    const auto check = [&](const std::string& name, NameUse use, int line) {
      if (name == "loop" && use == NameUse::store) problem(line, "loop cannot be assigned to in a loop");
    };
    walk(loop.target, check);
    walk(loop.body, check);
    walk(loop.otherwise, check);
  }

  void bind_loop(For& loop, const Place& place) {
    check_loop_is_kept(loop);
    FunctionScope* const outside = place.symbols->function();
    FunctionScope test_function = inner(loop.test_function, outside, loop.test != nullptr);
    FunctionScope loop_function = inner(loop.loop_function, outside, loop.recursive);
    FunctionScope* const body_function = loop.recursive ? &loop_function : outside;
    loop.extended = loop.recursive || undeclared(loop.body, {"loop"}).contains("loop");

    Symbols body(body_function, place.symbols);
    if (loop.extended) body.parameter("loop");
    analyze(body, loop.target, true);
    analyze(body, loop.body);
    Symbols otherwise(body_function, place.symbols);
    analyze(otherwise, loop.otherwise);

    if (loop.test) {
      Symbols test(&test_function, place.symbols);
      analyze(test, loop.target, true);
      analyze(test, loop.test);
      loop.test_target = loop.target;
      bind(loop.test_target, test);
      bind(loop.test, test, false);
      loop.test_frame = frame(test);
    }
    bind(loop.iterable, *place.symbols, place.soft);
    bind(loop.target, body);
    if (loop.extended) loop.loop = body.ref("loop");
    bind(loop.body, {&body, false, true});
    bind(loop.otherwise, {&otherwise, false, place.in_loop && !loop.recursive});
    loop.body_frame = frame(body);
    loop.else_frame = frame(otherwise);
  }

  void bind_macro(MacroBody& macro, int line, const Place& place) {
    FunctionScope function = inner(macro.function, place.symbols->function());
    Symbols symbols(&function, place.symbols);
    std::set<std::string> names;
    for (const Parameter& parameter : macro.parameters) {
      symbols.parameter(parameter.name);
      names.insert(parameter.name);
    }
    for (const Parameter& parameter : macro.parameters) analyze(symbols, parameter.fallback);
    analyze(symbols, macro.body);

    const auto special = undeclared(macro.body, {"caller", "kwargs", "varargs"});
    macro.takes_caller = special.contains("caller");
    const auto declare = [&](const char* name, int& slot) {
      if (!special.contains(name) || names.contains(name)) return;
      symbols.parameter(name);
      slot = symbols.ref(name).slot;
    };
    for (const Parameter& parameter : macro.parameters)
      if (macro.takes_caller && parameter.name == "caller" && !parameter.fallback)
        problem(line, "the parameter caller needs a default");
    declare("caller", macro.caller);
    declare("kwargs", macro.kwargs);
    declare("varargs", macro.varargs);

    for (Parameter& parameter : macro.parameters) {
      bind(parameter.fallback, symbols, false);
      parameter.slot = symbols.ref(parameter.name).slot;
    }
    bind(macro.body, {&symbols, false, false});
    macro.frame = frame(symbols);
  }

  void bind_filter_block(FilterBlock& block, const Place& place) {
    Symbols symbols(place.symbols->function(), place.symbols);
    analyze(symbols, block.body);
    analyze(symbols, block.filter);
    bind(block.body, {&symbols, false, place.in_loop});
    bind(block.filter, symbols, false);
    block.frame = frame(symbols);
  }

  void bind_with(With& with, const Place& place) {
    Symbols symbols(place.symbols->function(), place.symbols);
    for (const auto& [target, value] : with.values) analyze(symbols, target, true);
    analyze(symbols, with.body);
    for (auto& [target, value] : with.values) {
      bind(value, *place.symbols, place.soft);
      bind(target, symbols);
    }
    bind(with.body, {&symbols, false, place.in_loop});
    with.frame = frame(symbols);
  }

  void bind_assign_block(AssignBlock& assign, const Place& place) {
    Symbols symbols(place.symbols->function(), place.symbols);
    analyze(symbols, assign.body);
    analyze(symbols, assign.filter);
    bind(assign.target, *place.symbols);
    bind(assign.body, {&symbols, false, place.in_loop});
    bind(assign.filter, symbols, false);
    assign.frame = frame(symbols);
  }

  Program& program_;
  std::map<std::string, int> context_names_;
};

}  // namespace

void bind(Program& program) {
  Binder(program).run();
}

}  // namespace nibble::text::jinja
