// The tree that a template is parsed into. Names are bound to slots of activations (scope.h) before it runs.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

struct Filter;  // filters.h
struct Test;    // tests.h

/// Where a variable lives: in the slot of the activation that many functions further out.
struct Ref {
  int hops = 0;
  int slot = -1;
};

enum class ExprKind {
  constant,
  name,
  unary,
  binary,
  both,
  either,
  compare,
  concat,
  conditional,
  list,
  dict,
  attribute,
  item,
  slice,
  call,
  filter,
  test
};

struct Expr {
  Expr(ExprKind k, int l) : kind(k), line(l) {}
  virtual ~Expr() = default;
  ExprKind kind;
  int line;
};
using ExprPtr = std::unique_ptr<Expr>;
using Exprs = std::vector<ExprPtr>;

struct Constant : Expr {
  Constant(int l, Value v) : Expr(ExprKind::constant, l), value(std::move(v)) {}
  Value value;
};

struct Name : Expr {
  Name(int l, std::string n) : Expr(ExprKind::name, l), name(std::move(n)) {}
  std::string name;
  Ref ref;
};

enum class Operator {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  negate,
  plus,
  logical_not
};

struct Unary : Expr {
  Unary(int l, Operator o, ExprPtr e) : Expr(ExprKind::unary, l), op(o), operand(std::move(e)) {}
  Operator op;
  ExprPtr operand;
};

/// An operator of arithmetic, or `and` (both), or `or` (either).
struct Binary : Expr {
  Binary(int l, ExprKind k, Operator o, ExprPtr a, ExprPtr b)
      : Expr(k, l), op(o), left(std::move(a)), right(std::move(b)) {}
  Operator op;
  ExprPtr left, right;
};

enum class Comparison { equal, unequal, less, less_equal, greater, greater_equal, in, not_in };

/// A chain as in a < b <= c.
struct Compare : Expr {
  Compare(int l, ExprPtr f) : Expr(ExprKind::compare, l), first(std::move(f)) {}
  ExprPtr first;
  std::vector<std::pair<Comparison, ExprPtr>> rest;
};

struct Concat : Expr {
  explicit Concat(int l) : Expr(ExprKind::concat, l) {}
  Exprs parts;
};

struct Conditional : Expr {
  Conditional(int l, ExprPtr t, ExprPtr y, ExprPtr n)
      : Expr(ExprKind::conditional, l), test(std::move(t)), yes(std::move(y)), no(std::move(n)) {}
  ExprPtr test, yes, no;  // `no` may be null
};

struct ListExpr : Expr {
  ListExpr(int l, ListType t, Exprs e) : Expr(ExprKind::list, l), type(t), items(std::move(e)) {}
  ListType type;
  Exprs items;
};

struct DictExpr : Expr {
  explicit DictExpr(int l) : Expr(ExprKind::dict, l) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
};

struct Attribute : Expr {
  Attribute(int l, ExprPtr o, std::string n)
      : Expr(ExprKind::attribute, l), object(std::move(o)), name(std::move(n)) {}
  ExprPtr object;
  std::string name;
};

struct Item : Expr {
  Item(int l, ExprPtr o, ExprPtr k) : Expr(ExprKind::item, l), object(std::move(o)), key(std::move(k)) {}
  ExprPtr object, key;
};

struct Slice : Expr {
  Slice(int l, ExprPtr o) : Expr(ExprKind::slice, l), object(std::move(o)) {}
  ExprPtr object, start, stop, step;  // the last three may be null
};

struct CallArgs {
  Exprs positional;
  std::vector<std::pair<std::string, ExprPtr>> keyword;
  ExprPtr star, star_star;  // may be null
};

struct Call : Expr {
  Call(int l, ExprPtr c, CallArgs a) : Expr(ExprKind::call, l), callee(std::move(c)), args(std::move(a)) {}
  ExprPtr callee;
  CallArgs args;
};

struct FilterExpr : Expr {
  FilterExpr(int l, ExprPtr i, std::string n, CallArgs a)
      : Expr(ExprKind::filter, l), input(std::move(i)), name(std::move(n)), args(std::move(a)) {}
  ExprPtr input;  // null for the text of a filter or set block
  std::string name;
  const Filter* filter = nullptr;  // null for a name that is unknown, inside of an if
  CallArgs args;
};

struct TestExpr : Expr {
  TestExpr(int l, ExprPtr i, std::string n, CallArgs a)
      : Expr(ExprKind::test, l), input(std::move(i)), name(std::move(n)), args(std::move(a)) {}
  ExprPtr input;
  std::string name;
  const Test* test = nullptr;
  CallArgs args;
};

/// What a loop or a set assigns to: a name, a tuple of targets, or an attribute of a namespace.
struct Target {
  int line = 0;
  std::string name;
  std::string attribute;  // of the namespace `name`, where not empty
  std::vector<Target> parts;
  bool tuple = false;
  Ref ref;
};

/// What happens to a frame's variables when it is entered.
struct Load {
  enum class Kind { context, copy, clear } kind;
  int slot;
  int context;  // place in Program::names
  Ref source;   // of a copy
};

struct Frame {
  std::vector<Load> loads;
  std::vector<int> slots;  // all of the frame, cleared when it is left
};

/// A part of the template that has its own activation.
struct Function {
  int slots = 0;
  bool nested = false;  // other functions inside of it may keep its activation
};

enum class StmtKind {
  output,
  loop,
  branch,
  macro,
  call_block,
  filter_block,
  with,
  assign,
  assign_block,
  leave_loop,
  next_item
};

struct Stmt {
  Stmt(StmtKind k, int l) : kind(k), line(l) {}
  virtual ~Stmt() = default;
  StmtKind kind;
  int line;
};
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct Output : Stmt {
  explicit Output(int l) : Stmt(StmtKind::output, l) {}
  Exprs parts;  // template text is a constant
};

struct For : Stmt {
  explicit For(int l) : Stmt(StmtKind::loop, l) {}
  Target target;
  ExprPtr iterable;
  ExprPtr test;  // may be null
  bool recursive = false;
  Body body, otherwise;
  // Bound by scope.h:
  Frame body_frame, else_frame, test_frame;
  Target test_target;
  Function test_function;
  Function loop_function;  // when recursive
  bool extended = false;   // the body uses the variable loop
  Ref loop;
};

struct If : Stmt {
  explicit If(int l) : Stmt(StmtKind::branch, l) {}
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};

struct Parameter {
  std::string name;
  ExprPtr fallback;  // may be null
  int slot = -1;
};

/// What macros and call blocks share. The slots of caller, kwargs and varargs are -1 where the body does not
/// use them.
struct MacroBody {
  std::string name;  // empty for a call block
  std::vector<Parameter> parameters;
  Body body;
  Frame frame;
  Function function;
  bool takes_caller = false;
  int caller = -1, kwargs = -1, varargs = -1;
};

struct MacroStmt : Stmt {
  explicit MacroStmt(int l) : Stmt(StmtKind::macro, l) {}
  MacroBody macro;
  Ref ref;
};

/// {% call %}, or {% generation %}, which has no call.
struct CallBlock : Stmt {
  explicit CallBlock(int l) : Stmt(StmtKind::call_block, l) {}
  MacroBody macro;
  ExprPtr call;
};

struct FilterBlock : Stmt {
  explicit FilterBlock(int l) : Stmt(StmtKind::filter_block, l) {}
  ExprPtr filter;
  Body body;
  Frame frame;
};

struct With : Stmt {
  explicit With(int l) : Stmt(StmtKind::with, l) {}
  std::vector<std::pair<Target, ExprPtr>> values;
  Body body;
  Frame frame;
};

struct Assign : Stmt {
  explicit Assign(int l) : Stmt(StmtKind::assign, l) {}
  Target target;
  ExprPtr value;
};

struct AssignBlock : Stmt {
  explicit AssignBlock(int l) : Stmt(StmtKind::assign_block, l) {}
  Target target;
  ExprPtr filter;  // may be null
  Body body;
  Frame frame;
};

/// A parsed and bound template.
struct Program {
  std::string what;
  Body body;
  Frame frame;
  Function function;
  std::vector<std::string> names;  // looked up in the context
};

}  // namespace nibble::text::jinja
