#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "text/jinja/parser.h"

namespace nibble::text::jinja {
namespace {

ExprPtr constant(int line, const Value& value) {
  return std::make_unique<Constant>(line, value);
}

ExprPtr constant_string(int line, std::string text) {
  return std::make_unique<Constant>(line, std::make_shared<const Str>(std::move(text), false, Charge()));
}

}  // namespace

bool Parser::tuple_ends(std::string_view end) const {
  const TokenKind kind = current().kind;
  return kind == TokenKind::print_end || kind == TokenKind::tag_end || at_op(")") ||
         (!end.empty() && at_name(end));
}

ExprPtr Parser::tuple(TupleKind kind, std::string_view end) {
  int begin = line();
  Exprs items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (tuple_ends(end)) break;
    items.push_back(kind == TupleKind::no_condition ? either() : expression());
    if (!at_op(",")) break;
    is_tuple = true;
    begin = line();
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items.front());
    if (kind != TupleKind::parenthesized) unexpected("an expression");
  }
  return std::make_unique<ListExpr>(begin, ListType::tuple, std::move(items));
}

ExprPtr Parser::expression() {
  Level chain(*this);
  int begin = line();
  ExprPtr value = either();
  while (skip_name("if")) {
    chain.link();
    ExprPtr test = either();
    ExprPtr otherwise;
    if (skip_name("else")) otherwise = expression();
    value = std::make_unique<Conditional>(begin, std::move(test), std::move(value), std::move(otherwise));
    begin = line();
  }
  return value;
}

ExprPtr Parser::either() {
  return logical("or", ExprKind::either, &Parser::both);
}

ExprPtr Parser::both() {
  return logical("and", ExprKind::both, &Parser::negation);
}

ExprPtr Parser::logical(std::string_view word, ExprKind kind, ExprPtr (Parser::*operand)()) {
  Chain chain(*this);
  ExprPtr left = (this->*operand)();
  while (at_name(word)) {
    chain.link();
    const int begin = next().line;
    left = std::make_unique<Binary>(begin, kind, Operator::plus, std::move(left), (this->*operand)());
  }
  return left;
}

ExprPtr Parser::negation() {
  if (!at_name("not")) return comparison();
  const Level level(*this);
  const int begin = next().line;
  return std::make_unique<Unary>(begin, Operator::logical_not, negation());
}

ExprPtr Parser::comparison() {
  constexpr std::pair<std::string_view, Comparison> kSigns[] = {
      {"==", Comparison::equal},      {"!=", Comparison::unequal}, {"<", Comparison::less},
      {"<=", Comparison::less_equal}, {">", Comparison::greater},  {">=", Comparison::greater_equal}};
  const int begin = line();
  ExprPtr first = sum();
  std::unique_ptr<Compare> chain;
  while (true) {
    std::optional<Comparison> op;
    for (const auto& [sign, comparison] : kSigns)
      if (at_op(sign)) op = comparison;
    if (at_name("in")) op = Comparison::in;
    if (at_name("not") && ahead().kind == TokenKind::name && ahead().text == "in") {
      next();
      op = Comparison::not_in;
    }
    if (!op) break;
    next();
    if (!chain) chain = std::make_unique<Compare>(begin, std::move(first));
    chain->rest.emplace_back(*op, sum());
  }
  if (chain) return chain;
  return first;
}

ExprPtr Parser::sum() {
  Chain chain(*this);
  ExprPtr left = concatenation();
  while (at_op("+") || at_op("-")) {
    chain.link();
    const Token sign = next();
    const Operator op = sign.text == "+" ? Operator::add : Operator::subtract;
    left = std::make_unique<Binary>(sign.line, ExprKind::binary, op, std::move(left), concatenation());
  }
  return left;
}

ExprPtr Parser::concatenation() {
  auto all = std::make_unique<Concat>(line());
  all->parts.push_back(product());
  while (skip_op("~")) all->parts.push_back(product());
  if (all->parts.size() == 1) return std::move(all->parts.front());
  return all;
}

ExprPtr Parser::product() {
  constexpr std::pair<std::string_view, Operator> kSigns[] = {{"*", Operator::multiply},
                                                              {"/", Operator::divide},
                                                              {"//", Operator::floor_divide},
                                                              {"%", Operator::modulo}};
  Chain chain(*this);
  ExprPtr left = power();
  while (true) {
    const auto sign =
        std::find_if(std::begin(kSigns), std::end(kSigns), [&](const auto& s) { return at_op(s.first); });
    if (sign == std::end(kSigns)) return left;
    chain.link();
    const int begin = next().line;
    left = std::make_unique<Binary>(begin, ExprKind::binary, sign->second, std::move(left), power());
  }
}

ExprPtr Parser::power() {
  Chain chain(*this);
  ExprPtr left = unary();
  while (at_op("**")) {
    chain.link();
    const int begin = next().line;
    left = std::make_unique<Binary>(begin, ExprKind::binary, Operator::power, std::move(left), unary());
  }
  return left;
}

ExprPtr Parser::unary(bool with_filters) {
  Level chain(*this);
  ExprPtr value;
  if (at_op("-") || at_op("+")) {
    const Token sign = next();
    value = std::make_unique<Unary>(sign.line, sign.text == "-" ? Operator::negate : Operator::plus,
                                    unary(false));
  } else {
    value = primary();
  }
  value = postfix(std::move(value), chain);
  if (with_filters) value = filters_and_tests(std::move(value), chain);
  return value;
}

ExprPtr Parser::primary() {
  const Token token = current();
  if (token.kind == TokenKind::name) {
    next();
    if (token.text == "true" || token.text == "True") return constant(token.line, true);
    if (token.text == "false" || token.text == "False") return constant(token.line, false);
    if (token.text == "none" || token.text == "None") return constant(token.line, None());
    if (token.text == "self" || token.text == "super")
      problem(token.line, fmt::format("{} is not supported; --raw takes a prompt as it is", token.text));
    return std::make_unique<Name>(token.line, token.text);
  }
  if (token.kind == TokenKind::string) {
    std::string text;
    while (current().kind == TokenKind::string) text += next().text;
    return constant_string(token.line, std::move(text));
  }
  if (token.kind == TokenKind::integer) return constant(token.line, next().integer);
  if (token.kind == TokenKind::real) return constant(token.line, next().real);
  if (skip_op("(")) {
    ExprPtr inner = tuple(TupleKind::parenthesized);
    expect_op(")");
    return inner;
  }
  if (at_op("[")) return list();
  if (at_op("{")) return dict();
  unexpected("an expression");
}

ExprPtr Parser::list() {
  auto all = std::make_unique<ListExpr>(next().line, ListType::list, Exprs());
  while (!at_op("]")) {
    if (!all->items.empty()) expect_op(",");
    if (at_op("]")) break;
    all->items.push_back(expression());
  }
  next();
  return all;
}

ExprPtr Parser::dict() {
  auto all = std::make_unique<DictExpr>(next().line);
  while (!at_op("}")) {
    if (!all->items.empty()) expect_op(",");
    if (at_op("}")) break;
    ExprPtr key = expression();
    expect_op(":");
    all->items.emplace_back(std::move(key), expression());
  }
  next();
  return all;
}

ExprPtr Parser::postfix(ExprPtr expr, Chain& chain) {
  while (at_op(".") || at_op("[") || at_op("(")) {
    chain.link();
    if (at_op("."))
      expr = attribute(std::move(expr));
    else if (at_op("["))
      expr = subscript(std::move(expr));
    else
      expr = call(std::move(expr));
  }
  return expr;
}

ExprPtr Parser::filters_and_tests(ExprPtr expr, Chain& chain) {
  while (at_op("|") || at_name("is") || at_op("(")) {
    chain.link();
    if (skip_op("|"))
      expr = filter(std::move(expr));
    else if (at_name("is"))
      expr = test(std::move(expr));
    else
      expr = call(std::move(expr));
  }
  return expr;
}

ExprPtr Parser::attribute(ExprPtr object) {
  const int begin = next().line;
  const Token name = next();
  if (name.kind == TokenKind::name) return std::make_unique<Attribute>(begin, std::move(object), name.text);
  if (name.kind != TokenKind::integer) problem(name.line, "a name or a number is expected after a point");
  return std::make_unique<Item>(begin, std::move(object), constant(name.line, name.integer));
}

ExprPtr Parser::subscript(ExprPtr object) {
  const int begin = next().line;
  auto slice = std::make_unique<Slice>(begin, nullptr);
  ExprPtr* part = &slice->start;
  Exprs keys;
  bool sliced = false;
  while (!at_op("]")) {
    if (!keys.empty()) expect_op(",");
    if (at_op("]")) problem(begin, "a comma ends a subscript");
    if (!at_op(":")) keys.push_back(expression());
    if (!at_op(":")) continue;
    if (keys.size() > 1 || sliced) problem(begin, "a slice among several subscripts");
    sliced = true;
    if (!keys.empty()) *part = std::move(keys.front());
    keys.clear();
    for (ExprPtr* bound : {&slice->stop, &slice->step})
      if (skip_op(":") && !at_op("]") && !at_op(":") && !at_op(",")) *bound = expression();
    if (!at_op("]")) unexpected("\"]\"");
  }
  next();
  if (sliced) {
    slice->object = std::move(object);
    return slice;
  }
  ExprPtr key;
  if (keys.size() == 1)
    key = std::move(keys.front());
  else
    key = std::make_unique<ListExpr>(begin, ListType::tuple, std::move(keys));
  return std::make_unique<Item>(begin, std::move(object), std::move(key));
}

ExprPtr Parser::call(ExprPtr callee) {
  const int begin = line();
  return std::make_unique<Call>(begin, std::move(callee), arguments());
}

void Parser::argument(CallArgs& args, int begin) {
  const auto need = [&](bool condition) {
    if (!condition) problem(begin, "arguments of a call in a wrong order");
  };
  if (skip_op("*")) {
    need(!args.star && !args.star_star);
    args.star = expression();
  } else if (skip_op("**")) {
    need(!args.star_star);
    args.star_star = expression();
  } else if (current().kind == TokenKind::name && ahead().kind == TokenKind::op && ahead().text == "=") {
    need(!args.star_star);
    std::string name = next().text;
    next();
    for (const auto& [other, value] : args.keyword)
      if (other == name) problem(begin, fmt::format("the argument {} is there twice", name));
    args.keyword.emplace_back(std::move(name), expression());
  } else {
    need(!args.star && !args.star_star && args.keyword.empty());
    args.positional.push_back(expression());
  }
}

CallArgs Parser::arguments() {
  const int begin = line();
  expect_op("(");
  CallArgs args;
  for (bool first = true; !at_op(")"); first = false) {
    if (!first) expect_op(",");
    if (!first && at_op(")")) break;
    argument(args, begin);
  }
  next();
  return args;
}

std::string Parser::dotted_name() {
  std::string name = expect_any_name();
  while (skip_op(".")) name += "." + expect_any_name();
  return name;
}

ExprPtr Parser::filter(ExprPtr input) {
  const int begin = line();
  std::string name = dotted_name();
  CallArgs args;
  if (at_op("(")) args = arguments();
  return std::make_unique<FilterExpr>(begin, std::move(input), std::move(name), std::move(args));
}

ExprPtr Parser::filters(ExprPtr input) {
  Chain chain(*this);
  while (skip_op("|")) {
    chain.link();
    input = filter(std::move(input));
  }
  return input;
}

ExprPtr Parser::test(ExprPtr input) {
  const int begin = next().line;
  const bool negated = skip_name("not");
  std::string name = dotted_name();
  CallArgs args;
  const TokenKind kind = current().kind;
  if (at_op("(")) {
    args = arguments();
  } else if (kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::real ||
             at_op("[") || at_op("{") ||
             (kind == TokenKind::name && !at_name("else") && !at_name("or") && !at_name("and"))) {
    if (at_name("is")) problem(line(), "tests cannot be chained with is");
    Chain chain(*this);
    args.positional.push_back(postfix(primary(), chain));
  }
  ExprPtr result = std::make_unique<TestExpr>(begin, std::move(input), std::move(name), std::move(args));
  if (negated) return std::make_unique<Unary>(begin, Operator::logical_not, std::move(result));
  return result;
}

}  // namespace nibble::text::jinja
