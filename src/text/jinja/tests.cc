#include "text/jinja/tests.h"

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {
namespace {

/// A test without arguments of the value alone.
template <typename Check>
bool plain(Args& args, const Check& check) {
  Params("the test", args, {}, 0);
  return check();
}

bool equals_number(Evaluator& ev, const Value& value, int64_t divisor, int64_t rest) {
  const Value remainder = arithmetic(ev, Operator::modulo, value, divisor);
  return equal(ev.heap(), remainder, rest);
}

bool is_odd(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] { return equals_number(ev, v, 2, 1); });
}

bool is_even(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] { return equals_number(ev, v, 2, 0); });
}

bool is_divisible(Evaluator& ev, const Value& v, Args& args) {
  const Params p("divisibleby", args, {"num"}, 1);
  return equal(ev.heap(), arithmetic(ev, Operator::modulo, v, *p[0]), int64_t{0});
}

template <Kind... kinds>
bool is_kind(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] { return (v.is(kinds) || ...); });
}

bool is_defined(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] { return !v.undefined(); });
}

bool is_true(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] { return v.is(Kind::boolean) && v.boolean(); });
}

bool is_false(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] { return v.is(Kind::boolean) && !v.boolean(); });
}

bool is_lower(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] { return string_test("islower", str(ev.heap(), v)); });
}

bool is_upper(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] { return string_test("isupper", str(ev.heap(), v)); });
}

bool is_sequence(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] {
    if (v.is(Kind::object)) return v.object().subscriptable();
    // Python asks an undefined value for an attribute that it has.
    return length(ev, v).has_value();
  });
}

bool is_iterable(Evaluator& ev, const Value& v, Args& args) {
  return plain(args, [&] { return iterable(ev, v); });
}

bool is_callable(Evaluator&, const Value& v, Args& args) {
  // The class of undefined values can be called, which then raises.
  return plain(args, [&] { return v.undefined() || (v.is(Kind::object) && v.object().callable()); });
}

bool is_same(Evaluator&, const Value& v, Args& args) {
  return v.same_as(*Params("sameas", args, {"other"}, 1)[0]);
}

bool is_escaped(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] { return v.is_markup(); });
}

bool is_in(Evaluator& ev, const Value& v, Args& args) {
  return contains(ev, *Params("in", args, {"seq"}, 1)[0], v);
}

bool names_filter(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] {
    if (!hashable(v)) raise("unhashable type: '{}'", type_name(v));
    return v.is_string() && find_filter(v.text()) != nullptr;
  });
}

bool names_test(Evaluator&, const Value& v, Args& args) {
  return plain(args, [&] {
    if (!hashable(v)) raise("unhashable type: '{}'", type_name(v));
    return v.is_string() && find_test(v.text()) != nullptr;
  });
}

bool is_equal(Evaluator& ev, const Value& v, Args& args) {
  return equal(ev.heap(), v, *Params("eq", args, {"/other"}, 1)[0]);
}

bool is_unequal(Evaluator& ev, const Value& v, Args& args) {
  return !equal(ev.heap(), v, *Params("ne", args, {"/other"}, 1)[0]);
}

template <Order order>
bool is_ordered(Evaluator& ev, const Value& v, Args& args) {
  return compare(ev.heap(), v, order, *Params("comparison", args, {"/other"}, 1)[0]);
}

constexpr Test kTests[] = {
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible},
    {"defined", is_defined},
    {"undefined", is_kind<Kind::undefined>},
    {"filter", names_filter},
    {"test", names_test},
    {"none", is_kind<Kind::none>},
    {"boolean", is_kind<Kind::boolean>},
    {"false", is_false},
    {"true", is_true},
    {"integer", is_kind<Kind::integer>},
    {"float", is_kind<Kind::real>},
    {"lower", is_lower},
    {"upper", is_upper},
    {"string", is_kind<Kind::string>},
    {"mapping", is_kind<Kind::dict>},
    {"number", is_kind<Kind::boolean, Kind::integer, Kind::real>},
    {"sequence", is_sequence},
    {"iterable", is_iterable},
    {"callable", is_callable},
    {"sameas", is_same},
    {"escaped", is_escaped},
    {"in", is_in},
    {"==", is_equal},
    {"eq", is_equal},
    {"equalto", is_equal},
    {"!=", is_unequal},
    {"ne", is_unequal},
    {">", is_ordered<Order::greater>},
    {"gt", is_ordered<Order::greater>},
    {"greaterthan", is_ordered<Order::greater>},
    {"ge", is_ordered<Order::greater_equal>},
    {">=", is_ordered<Order::greater_equal>},
    {"<", is_ordered<Order::less>},
    {"lt", is_ordered<Order::less>},
    {"lessthan", is_ordered<Order::less>},
    {"<=", is_ordered<Order::less_equal>},
    {"le", is_ordered<Order::less_equal>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  return find_named(kTests, name);
}

}  // namespace nibble::text::jinja
