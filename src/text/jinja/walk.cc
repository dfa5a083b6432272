#include "text/jinja/walk.h"

namespace nibble::text::jinja {
namespace {

using ExprVisitor = std::function<void(Expr&)>;

void visit_arguments(const CallArgs& args, const ExprVisitor& visit) {
  for (const ExprPtr& arg : args.positional) visit(*arg);
  for (const auto& [name, arg] : args.keyword) visit(*arg);
  if (args.star) visit(*args.star);
  if (args.star_star) visit(*args.star_star);
}

void visit_if_there(const ExprPtr& expr, const ExprVisitor& visit) {
  if (expr) visit(*expr);
}

/// A filter or a test.
template <typename Applied>
void visit_applied(const Expr& expr, const ExprVisitor& visit) {
  const auto& e = static_cast<const Applied&>(expr);
  visit_if_there(e.input, visit);
  visit_arguments(e.args, visit);
}

void walk(const MacroBody& macro, const NameVisitor& visit) {
  for (const Parameter& parameter : macro.parameters) visit(parameter.name, NameUse::parameter, 0);
  for (const Parameter& parameter : macro.parameters)
    if (parameter.fallback) walk(*parameter.fallback, visit);
  walk(macro.body, visit);
}

void walk(const ExprPtr& expr, const NameVisitor& visit) {
  if (expr) walk(*expr, visit);
}

void walk(const For& loop, const NameVisitor& visit) {
  walk(loop.target, visit);
  walk(loop.iterable, visit);
  walk(loop.body, visit);
  walk(loop.otherwise, visit);
  walk(loop.test, visit);
}

void walk(const If& branch, const NameVisitor& visit) {
  for (const auto& [test, body] : branch.branches) {
    walk(test, visit);
    walk(body, visit);
  }
  walk(branch.otherwise, visit);
}

void walk(const With& with, const NameVisitor& visit) {
  const auto parameter = [&](const std::string& name, NameUse, int line) {
    visit(name, NameUse::parameter, line);
  };
  for (const auto& [target, value] : with.values) walk(target, parameter);
  for (const auto& [target, value] : with.values) walk(value, visit);
  walk(with.body, visit);
}

void walk(const Stmt& stmt, const NameVisitor& visit) {
  switch (stmt.kind) {
    case StmtKind::output:
      for (const ExprPtr& part : static_cast<const Output&>(stmt).parts) walk(part, visit);
      return;
    case StmtKind::loop:
      return walk(static_cast<const For&>(stmt), visit);
    case StmtKind::branch:
      return walk(static_cast<const If&>(stmt), visit);
    case StmtKind::macro:
      return walk(static_cast<const MacroStmt&>(stmt).macro, visit);
    case StmtKind::call_block:
      walk(static_cast<const CallBlock&>(stmt).call, visit);
      return walk(static_cast<const CallBlock&>(stmt).macro, visit);
    case StmtKind::filter_block:
      walk(static_cast<const FilterBlock&>(stmt).body, visit);
      return walk(static_cast<const FilterBlock&>(stmt).filter, visit);
    case StmtKind::with:
      return walk(static_cast<const With&>(stmt), visit);
    case StmtKind::assign:
      walk(static_cast<const Assign&>(stmt).target, visit);
      return walk(static_cast<const Assign&>(stmt).value, visit);
    case StmtKind::assign_block:
      walk(static_cast<const AssignBlock&>(stmt).target, visit);
      walk(static_cast<const AssignBlock&>(stmt).filter, visit);
      return walk(static_cast<const AssignBlock&>(stmt).body, visit);
    case StmtKind::leave_loop:
    case StmtKind::next_item:
      return;
  }
}

}  // namespace

void for_each_child(const Expr& expr, const ExprVisitor& visit) {
  switch (expr.kind) {
    case ExprKind::constant:
    case ExprKind::name:
      return;
    case ExprKind::unary:
      return visit(*static_cast<const Unary&>(expr).operand);
    case ExprKind::binary:
    case ExprKind::both:
    case ExprKind::either:
      visit(*static_cast<const Binary&>(expr).left);
      return visit(*static_cast<const Binary&>(expr).right);
    case ExprKind::compare:
      visit(*static_cast<const Compare&>(expr).first);
      for (const auto& [op, operand] : static_cast<const Compare&>(expr).rest) visit(*operand);
      return;
    case ExprKind::concat:
      for (const ExprPtr& part : static_cast<const Concat&>(expr).parts) visit(*part);
      return;
    case ExprKind::conditional: {
      const auto& e = static_cast<const Conditional&>(expr);
      visit(*e.test);
      visit(*e.yes);
      return visit_if_there(e.no, visit);
    }
    case ExprKind::list:
      for (const ExprPtr& item : static_cast<const ListExpr&>(expr).items) visit(*item);
      return;
    case ExprKind::dict:
      for (const auto& [key, value] : static_cast<const DictExpr&>(expr).items) {
        visit(*key);
        visit(*value);
      }
      return;
    case ExprKind::attribute:
      return visit(*static_cast<const Attribute&>(expr).object);
    case ExprKind::item:
      visit(*static_cast<const Item&>(expr).object);
      return visit(*static_cast<const Item&>(expr).key);
    case ExprKind::slice: {
      const auto& e = static_cast<const Slice&>(expr);
      visit(*e.object);
      visit_if_there(e.start, visit);
      visit_if_there(e.stop, visit);
      return visit_if_there(e.step, visit);
    }
    case ExprKind::call:
      visit(*static_cast<const Call&>(expr).callee);
      return visit_arguments(static_cast<const Call&>(expr).args, visit);
    case ExprKind::filter:
      return visit_applied<FilterExpr>(expr, visit);
    case ExprKind::test:
      return visit_applied<TestExpr>(expr, visit);
  }
}

void walk(const Expr& expr, const NameVisitor& visit) {
  if (expr.kind == ExprKind::name) visit(static_cast<const Name&>(expr).name, NameUse::load, expr.line);
  for_each_child(expr, [&](Expr& child) { walk(child, visit); });
}

void walk(const Body& body, const NameVisitor& visit) {
  for (const StmtPtr& stmt : body) walk(*stmt, visit);
}

void walk(const Target& target, const NameVisitor& visit) {
  for (const Target& part : target.parts) walk(part, visit);
  if (!target.tuple && target.attribute.empty()) visit(target.name, NameUse::store, target.line);
}

}  // namespace nibble::text::jinja
