#include <algorithm>

#include "base/text.h"
#include "text/jinja/eval.h"
#include "text/jinja/filters.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/tests.h"

namespace nibble::text::jinja {

Value Evaluator::call(const Value& callee, Args args) {
  need_defined(callee);
  if (!callee.is(Kind::object)) raise("'{}' object is not callable", type_name(callee));
  const int line = line_;
  Value result = callee.object().call(*this, args);
  line_ = line;
  return result;
}

bool Evaluator::truth(const Value& value) {
  switch (value.kind()) {
    case Kind::boolean:
      return value.boolean();
    case Kind::integer:
      return value.integer() != 0;
    case Kind::real:
      return value.real() != 0;
    case Kind::string:
      return !value.text().empty();
    case Kind::list:
      return !value.items().empty();
    case Kind::dict:
      return !value.dict().items.empty();
    case Kind::object:
      return value.object().truth(*this);
    default:
      return false;
  }
}

Value Evaluator::eval(const Expr& expr) {
  heap_.step();
  const Level level(*this);
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::constant:
      return static_cast<const Constant&>(expr).value;
    case ExprKind::name:
      return eval_name(static_cast<const Name&>(expr));
    case ExprKind::unary:
      return eval_unary(static_cast<const Unary&>(expr));
    case ExprKind::binary:
    case ExprKind::both:
    case ExprKind::either:
      return eval_binary(static_cast<const Binary&>(expr));
    case ExprKind::compare:
      return eval_compare(static_cast<const Compare&>(expr));
    case ExprKind::concat:
      return eval_concat(static_cast<const Concat&>(expr));
    case ExprKind::conditional:
      return eval_conditional(static_cast<const Conditional&>(expr));
    case ExprKind::list:
      return eval_list(static_cast<const ListExpr&>(expr));
    case ExprKind::dict:
      return eval_dict(static_cast<const DictExpr&>(expr));
    case ExprKind::attribute: {
      const auto& attribute = static_cast<const Attribute&>(expr);
      const Value object = eval(*attribute.object);
      line_ = expr.line;
      return get_attribute(*this, object, attribute.name);
    }
    case ExprKind::item: {
      const auto& item = static_cast<const Item&>(expr);
      const Value object = eval(*item.object);
      const Value key = eval(*item.key);
      line_ = expr.line;
      return get_item(*this, object, key);
    }
    case ExprKind::slice:
      return eval_slice(static_cast<const Slice&>(expr));
    case ExprKind::call:
      return eval_call(static_cast<const Call&>(expr));
    case ExprKind::filter:
      return eval_filter(static_cast<const FilterExpr&>(expr));
    case ExprKind::test:
      return eval_test(static_cast<const TestExpr&>(expr));
  }
  return {};
}

Value Evaluator::eval_name(const Name& name) {
  const Value& value = variable(name.ref);
  if (!value.missing()) return value;
  return Heap::undefined(fmt::format("'{}' is undefined", name.name));
}

Value Evaluator::eval_unary(const Unary& unary) {
  const Value value = eval(*unary.operand);
  line_ = unary.line;
  if (unary.op == Operator::logical_not) return !truth(value);
  return sign(unary.op, value);
}

Value Evaluator::eval_binary(const Binary& binary) {
  Value left = eval(*binary.left);
  if (binary.kind == ExprKind::both) return truth(left) ? eval(*binary.right) : left;
  if (binary.kind == ExprKind::either) return truth(left) ? left : eval(*binary.right);
  const Value right = eval(*binary.right);
  line_ = binary.line;
  return arithmetic(*this, binary.op, left, right);
}

Value Evaluator::eval_compare(const Compare& chain) {
  Value left = eval(*chain.first);
  for (const auto& [op, operand] : chain.rest) {
    Value right = eval(*operand);
    line_ = chain.line;
    bool holds = false;
    switch (op) {
      case Comparison::equal:
        holds = equal(heap_, left, right);
        break;
      case Comparison::unequal:
        holds = !equal(heap_, left, right);
        break;
      case Comparison::in:
        holds = contains(*this, right, left);
        break;
      case Comparison::not_in:
        holds = !contains(*this, right, left);
        break;
      case Comparison::less:
      case Comparison::less_equal:
      case Comparison::greater:
      case Comparison::greater_equal: {
        const auto order = static_cast<Order>(static_cast<int>(op) - static_cast<int>(Comparison::less));
        holds = compare(heap_, left, order, right);
        break;
      }
    }
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::eval_concat(const Concat& concat) {
  std::vector<Value> parts;
  for (const ExprPtr& part : concat.parts) parts.push_back(eval(*part));
  line_ = concat.line;
  Buffer text(heap_);
  for (const Value& part : parts) text.append(str(heap_, part));
  return heap_.string(text.take());
}

Value Evaluator::eval_conditional(const Conditional& conditional) {
  if (truth(eval(*conditional.test))) return eval(*conditional.yes);
  if (conditional.no) return eval(*conditional.no);
  return Heap::undefined(
      fmt::format("the inline if-expression on line {} evaluated to false and no else section was defined.",
                  conditional.line));
}

Value Evaluator::eval_list(const ListExpr& list) {
  std::vector<Value> items;
  for (const ExprPtr& item : list.items) items.push_back(eval(*item));
  line_ = list.line;
  return heap_.list(std::move(items), list.type);
}

Value Evaluator::eval_dict(const DictExpr& dict) {
  Dict::Items items;
  for (const auto& [key_expr, value_expr] : dict.items) {
    Value key = eval(*key_expr);
    items.emplace_back(std::move(key), eval(*value_expr));
  }
  line_ = dict.line;
  return heap_.dict(std::move(items));
}

Value Evaluator::eval_slice(const Slice& slice) {
  const Value object = eval(*slice.object);
  Value bounds[3];
  const ExprPtr* exprs[] = {&slice.start, &slice.stop, &slice.step};
  for (int i = 0; i < 3; ++i)
    if (*exprs[i]) bounds[i] = eval(**exprs[i]);
  line_ = slice.line;
  return get_slice(*this, object, bounds[0], bounds[1], bounds[2]);
}

void Evaluator::spread(const Value& star_star, Args& args) {
  need_defined(star_star);
  if (!star_star.is(Kind::dict))
    raise("the argument after ** must be a mapping, not {}", type_name(star_star));
  for (const auto& [key, value] : star_star.dict().items) {
    if (!key.is_string()) raise("keywords must be strings");
    for (const auto& [other, unused] : args.keyword)
      if (other == key.text()) raise("got multiple values for keyword argument '{}'", printable(key.text()));
    heap_.step(1 + args.keyword.size() / 8);
    args.keyword.emplace_back(key.text(), value);
  }
}

Args Evaluator::eval_arguments(const CallArgs& exprs) {
  Args args;
  for (const ExprPtr& expr : exprs.positional) args.positional.push_back(eval(*expr));
  for (const auto& [name, expr] : exprs.keyword) args.keyword.emplace_back(name, eval(*expr));
  if (exprs.star) {
    const Value star = eval(*exprs.star);
    for (Value& value : to_vector(*this, star)) args.positional.push_back(std::move(value));
  }
  if (exprs.star_star) spread(eval(*exprs.star_star), args);
  return args;
}

Value Evaluator::eval_call(const Call& call_expr, const Value* caller) {
  const Value callee = eval(*call_expr.callee);
  Args args = eval_arguments(call_expr.args);
  line_ = call_expr.line;
  if (caller) {
    for (const auto& [name, value] : args.keyword)
      if (name == "caller") raise("the argument caller is there twice");
    args.keyword.emplace_back("caller", *caller);
  }
  return call(callee, std::move(args));
}

Value Evaluator::eval_filter(const FilterExpr& filter) {
  const Value input = filter.input ? eval(*filter.input) : *block_text_;
  Args args = eval_arguments(filter.args);
  line_ = filter.line;
  if (!filter.filter)
    raise("the filter {} is not supported; --raw takes a prompt as it is", printable(filter.name));
  return filter.filter->run(*this, input, args);
}

Value Evaluator::eval_test(const TestExpr& test) {
  const Value input = eval(*test.input);
  Args args = eval_arguments(test.args);
  line_ = test.line;
  if (!test.test) raise("the test {} is not supported; --raw takes a prompt as it is", printable(test.name));
  return test.test->run(*this, input, args);
}

}  // namespace nibble::text::jinja
