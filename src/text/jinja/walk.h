// Visits the names in a tree.
#pragma once

#include <functional>
#include <string>

#include "text/jinja/ast.h"

namespace nibble::text::jinja {

enum class NameUse { load, store, parameter };
/// Called with each name that is read, assigned to, or a parameter (of a macro, a call block or a with). The
/// names of macros, and of namespaces whose attributes are assigned, are not among them.
using NameVisitor = std::function<void(const std::string& name, NameUse use, int line)>;

/// Names in the order of jinja2's tree.
void walk(const Expr& expr, const NameVisitor& visit);
/// Also goes into bodies.
void walk(const Body& body, const NameVisitor& visit);
void walk(const Target& target, const NameVisitor& visit);

/// Calls `visit` with each child of an expression that is there.
void for_each_child(const Expr& expr, const std::function<void(Expr&)>& visit);

}  // namespace nibble::text::jinja
