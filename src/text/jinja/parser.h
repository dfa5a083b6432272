// From tokens to the tree.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/template.h"

namespace nibble::text::jinja {

/// A recursive descent over the tokens of one template, by jinja2's grammar: its precedences,
/// left-associative
/// ** included. Errors name the template and the line.
class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view what, const Limits& limits)
      : tokens_(std::move(tokens)), what_(what), limits_(limits) {}

  /// The statements of the whole template.
  Body parse();

 private:
  /// Counts the nesting of what is parsed while it lives: each operand that link() adds to a chain deepens
  /// the tree as a bracket does.
  class Chain {
   public:
    explicit Chain(Parser& parser) : parser_(parser), before_(parser.depth_) {}
    ~Chain() { parser_.depth_ = before_; }
    void link();

   private:
    Parser& parser_;
    int before_;
  };
  /// A chain with one link: a bracket, a tag, a sign.
  struct Level : Chain {
    explicit Level(Parser& parser) : Chain(parser) { link(); }
  };

  // Tokens.
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  Token next();
  bool at_op(std::string_view op) const { return current().kind == TokenKind::op && current().text == op; }
  bool at_name(std::string_view name) const {
    return current().kind == TokenKind::name && current().text == name;
  }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  void expect(TokenKind kind);
  std::string expect_any_name();
  [[noreturn]] void problem(int line, std::string_view text) const { fail_at(what_, line, text); }
  [[noreturn]] void unexpected(std::string_view wanted) const;

  // Statements (parser.cc).
  /// Statements up to a tag of one of these names, which becomes the current token; of none at the top.
  /// `begin` is the line of the tag that they belong to.
  Body body_until(std::initializer_list<std::string_view> ends, int begin);
  /// The rest of a tag, then its body up to and including the name of the end tag.
  Body block(std::string_view end);
  Body block_until(std::initializer_list<std::string_view> ends);
  StmtPtr statement();
  [[noreturn]] void unknown_tag();
  StmtPtr for_statement();
  StmtPtr if_statement();
  StmtPtr set_statement();
  StmtPtr with_statement();
  StmtPtr macro_statement();
  StmtPtr call_statement();
  StmtPtr filter_statement();
  StmtPtr print_statement();
  void signature(MacroBody& macro);
  Target assign_target(bool attributes, std::string_view end = {});
  Target target_of(const Expr& expr) const;

  // Expressions (parser_expr.cc).
  enum class TupleKind { full, no_condition, parenthesized };
  /// One expression, or a tuple where commas follow. `end` is a name that ends a tuple.
  ExprPtr tuple(TupleKind kind, std::string_view end = {});
  bool tuple_ends(std::string_view end) const;
  ExprPtr expression();
  ExprPtr either();
  ExprPtr both();
  /// Operands with a word between them.
  ExprPtr logical(std::string_view word, ExprKind kind, ExprPtr (Parser::*operand)());
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr expr, Chain& chain);
  ExprPtr filters_and_tests(ExprPtr expr, Chain& chain);
  ExprPtr attribute(ExprPtr object);
  ExprPtr subscript(ExprPtr object);
  ExprPtr call(ExprPtr callee);
  CallArgs arguments();
  void argument(CallArgs& args, int line);
  /// A filter behind its bar.
  ExprPtr filter(ExprPtr input);
  ExprPtr filters(ExprPtr input);
  ExprPtr test(ExprPtr input);
  std::string dotted_name();

  std::vector<Token> tokens_;
  std::string_view what_;
  const Limits& limits_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace nibble::text::jinja
