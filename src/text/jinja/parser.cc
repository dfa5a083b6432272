#include "text/jinja/parser.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace nibble::text::jinja {
namespace {

/// Names that are constants, which nothing can be assigned to.
bool is_constant_name(std::string_view name) {
  return name == "true" || name == "false" || name == "none" || name == "True" || name == "False" ||
         name == "None";
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::data:
      return "template text";
    case TokenKind::print_begin:
      return "{{";
    case TokenKind::print_end:
      return "}}";
    case TokenKind::tag_begin:
      return "{%";
    case TokenKind::tag_end:
      return "%}";
    case TokenKind::string:
      return "a string";
    case TokenKind::end:
      return "the end of the template";
    default:
      return fmt::format("\"{}\"", printable(token.text, 60));
  }
}

}  // namespace

void Parser::Chain::link() {
  if (++parser_.depth_ > parser_.limits_.nesting)
    parser_.problem(parser_.line(), fmt::format("is nested deeper than {} levels", parser_.limits_.nesting));
}

Token Parser::next() {
  Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_op(std::string_view op) {
  if (!at_op(op)) return false;
  next();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

void Parser::unexpected(std::string_view wanted) const {
  problem(line(), fmt::format("{} where {} is expected", describe(current()), wanted));
}

void Parser::expect_op(std::string_view op) {
  if (!skip_op(op)) unexpected(fmt::format("\"{}\"", op));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) unexpected(fmt::format("\"{}\"", name));
}

void Parser::expect(TokenKind kind) {
  if (current().kind != kind) unexpected(describe({kind, 0, ""}));
  next();
}

std::string Parser::expect_any_name() {
  if (current().kind != TokenKind::name) unexpected("a name");
  return next().text;
}

Body Parser::parse() {
  Body body = body_until({}, 1);
  NIBBLE_CHECK(current().kind == TokenKind::end, "tokens are left");
  return body;
}

Body Parser::body_until(std::initializer_list<std::string_view> ends, int begin) {
  const Level level(*this);
  Body body;
  std::unique_ptr<Output> output;  // collects text and prints that follow each other
  const auto flush = [&] {
    if (output) body.push_back(std::move(output));
  };
  const auto collect = [&](ExprPtr part) {
    if (!output) output = std::make_unique<Output>(part->line);
    output->parts.push_back(std::move(part));
  };
  while (current().kind != TokenKind::end) {
    Token token = next();
    if (token.kind == TokenKind::data) {
      collect(std::make_unique<Constant>(
          token.line, std::make_shared<const Str>(std::move(token.text), false, Charge())));
    } else if (token.kind == TokenKind::print_begin) {
      collect(tuple(TupleKind::full));
      expect(TokenKind::print_end);
    } else {
      NIBBLE_CHECK(token.kind == TokenKind::tag_begin, "a token of code among data");
      flush();
      if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return at_name(end); })) return body;
      body.push_back(statement());
      expect(TokenKind::tag_end);
    }
  }
  flush();
  if (ends.size() != 0)
    problem(begin, fmt::format("the template ends before a tag that begins here is closed by {}",
                               *(ends.end() - 1)));
  return body;
}

Body Parser::block_until(std::initializer_list<std::string_view> ends) {
  skip_op(":");
  const int begin = line();
  expect(TokenKind::tag_end);
  return body_until(ends, begin);
}

Body Parser::block(std::string_view end) {
  Body body = block_until({end});
  next();
  return body;
}

void Parser::unknown_tag() {
  const std::string& name = current().text;
  constexpr std::string_view kKnown[] = {"block",      "extends", "include", "import", "from",
                                         "autoescape", "trans",   "do",      "debug"};
  if (std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown))
    problem(line(), fmt::format("the tag {} is not supported; --raw takes a prompt as it is", name));
  problem(line(), fmt::format("the tag {} is unknown, or closes nothing; --raw takes a prompt as it is",
                              printable(name)));
}

StmtPtr Parser::statement() {
  if (current().kind != TokenKind::name) unexpected("the name of a tag");
  const std::string& tag = current().text;
  if (tag == "for") return for_statement();
  if (tag == "if") return if_statement();
  if (tag == "set") return set_statement();
  if (tag == "with") return with_statement();
  if (tag == "macro") return macro_statement();
  if (tag == "call" || tag == "generation") return call_statement();
  if (tag == "filter") return filter_statement();
  if (tag == "print") return print_statement();
  if (tag == "break") return std::make_unique<Stmt>(StmtKind::leave_loop, next().line);
  if (tag == "continue") return std::make_unique<Stmt>(StmtKind::next_item, next().line);
  unknown_tag();
}

StmtPtr Parser::for_statement() {
  auto loop = std::make_unique<For>(next().line);
  loop->target = assign_target(false, "in");
  expect_name("in");
  loop->iterable = tuple(TupleKind::no_condition, "recursive");
  if (skip_name("if")) loop->test = expression();
  loop->recursive = skip_name("recursive");
  loop->body = block_until({"else", "endfor"});
  if (next().text == "else") loop->otherwise = block("endfor");
  return loop;
}

StmtPtr Parser::if_statement() {
  auto branch = std::make_unique<If>(line());
  std::string tag;
  do {
    next();
    ExprPtr test = tuple(TupleKind::no_condition);
    Body body = block_until({"elif", "else", "endif"});
    branch->branches.emplace_back(std::move(test), std::move(body));
    tag = current().text;
  } while (tag == "elif");
  next();
  if (tag == "else") branch->otherwise = block("endif");
  return branch;
}

StmtPtr Parser::set_statement() {
  const int begin = next().line;
  Target target = assign_target(true);
  if (skip_op("=")) {
    auto assign = std::make_unique<Assign>(begin);
    assign->target = std::move(target);
    assign->value = tuple(TupleKind::full);
    return assign;
  }
  auto assign = std::make_unique<AssignBlock>(begin);
  assign->target = std::move(target);
  assign->filter = filters(nullptr);
  assign->body = block("endset");
  return assign;
}

StmtPtr Parser::with_statement() {
  auto with = std::make_unique<With>(next().line);
  while (current().kind != TokenKind::tag_end) {
    if (!with->values.empty()) expect_op(",");
    Target target = assign_target(false);
    expect_op("=");
    with->values.emplace_back(std::move(target), expression());
  }
  with->body = block("endwith");
  return with;
}

void Parser::signature(MacroBody& macro) {
  expect_op("(");
  bool fallbacks = false;
  while (!at_op(")")) {
    if (!macro.parameters.empty()) expect_op(",");
    const int begin = line();
    Parameter parameter;
    parameter.name = expect_any_name();
    if (is_constant_name(parameter.name))
      problem(begin, fmt::format("nothing can be assigned to {}", parameter.name));
    if (skip_op("="))
      parameter.fallback = expression();
    else if (fallbacks)
      problem(begin, "a parameter without a default follows one with a default");
    fallbacks |= parameter.fallback != nullptr;
    for (const Parameter& other : macro.parameters)
      if (other.name == parameter.name)
        problem(begin, fmt::format("the parameter {} is there twice", parameter.name));
    macro.parameters.push_back(std::move(parameter));
  }
  expect_op(")");
}

StmtPtr Parser::macro_statement() {
  auto macro = std::make_unique<MacroStmt>(next().line);
  macro->macro.name = expect_any_name();
  if (is_constant_name(macro->macro.name))
    problem(macro->line, fmt::format("nothing can be assigned to {}", macro->macro.name));
  signature(macro->macro);
  macro->macro.body = block("endmacro");
  return macro;
}

StmtPtr Parser::call_statement() {
  const Token tag = next();
  auto block_of = std::make_unique<CallBlock>(tag.line);
  if (tag.text == "generation") {
    block_of->macro.body = block("endgeneration");
    return block_of;
  }
  if (at_op("(")) signature(block_of->macro);
  block_of->call = expression();
  if (block_of->call->kind != ExprKind::call) problem(tag.line, "call needs the call of a macro");
  block_of->macro.body = block("endcall");
  return block_of;
}

StmtPtr Parser::filter_statement() {
  auto block_of = std::make_unique<FilterBlock>(next().line);
  block_of->filter = filters(filter(nullptr));
  block_of->body = block("endfilter");
  return block_of;
}

StmtPtr Parser::print_statement() {
  auto output = std::make_unique<Output>(next().line);
  while (current().kind != TokenKind::tag_end) {
    if (!output->parts.empty()) expect_op(",");
    output->parts.push_back(expression());
  }
  return output;
}

Target Parser::target_of(const Expr& expr) const {
  Target target;
  target.line = expr.line;
  if (expr.kind == ExprKind::name) {
    target.name = static_cast<const Name&>(expr).name;
    return target;
  }
  if (expr.kind == ExprKind::list && static_cast<const ListExpr&>(expr).type == ListType::tuple) {
    target.tuple = true;
    for (const ExprPtr& item : static_cast<const ListExpr&>(expr).items)
      target.parts.push_back(target_of(*item));
    return target;
  }
  problem(expr.line, "nothing can be assigned to this expression");
}

Target Parser::assign_target(bool attributes, std::string_view end) {
  const int begin = line();
  Target all;
  all.line = begin;
  while (true) {
    if (!all.parts.empty()) expect_op(",");
    if (tuple_ends(end)) break;
    if (attributes && current().kind == TokenKind::name && !is_constant_name(current().text) &&
        ahead().kind == TokenKind::op && ahead().text == ".") {
      Target target;
      target.line = line();
      target.name = next().text;
      next();
      target.attribute = expect_any_name();
      all.parts.push_back(std::move(target));
    } else {
      all.parts.push_back(target_of(*primary()));
    }
    if (!at_op(",")) break;
    all.tuple = true;
  }
  if (all.parts.empty()) unexpected("a name to assign to");
  if (all.tuple) return all;
  return std::move(all.parts.front());
}

}  // namespace nibble::text::jinja
