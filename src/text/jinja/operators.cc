#include <cmath>
#include <cstdlib>
#include <limits>

#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {
namespace {

constexpr const char* kSigns[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

[[noreturn]] void too_large() {
  raise("an integer result does not fit in 64 bits");
}

[[noreturn]] void wrong_types(Operator op, const Value& a, const Value& b) {
  need_defined(a);
  need_defined(b);
  raise("unsupported operand type(s) for {}: '{}' and '{}'", kSigns[static_cast<int>(op)], type_name(a),
        type_name(b));
}

/// `result` is a reference as the operation that writes it is the other argument.
Value checked(bool overflow, const int64_t& result) {
  if (overflow) too_large();
  return result;
}

/// The quotient of integers correctly rounded where both are exact as doubles, else within an ulp of that.
double divide(int64_t a, int64_t b) {
  return static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b));
}

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}

/// Python's float % and //: the remainder has the sign of the divisor.
std::pair<double, double> divmod(double a, double b) {
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (quotient == 0) return {std::copysign(0.0, a / b), remainder};
  double whole = std::floor(quotient);
  if (quotient - whole > 0.5) whole += 1;
  return {whole, remainder};
}

double real_power(double a, double b) {
  if (a == 0 && b < 0) raise("0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && std::trunc(b) != b)
    raise("the power is a complex number");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) raise("the power is too large");
  return result;
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return real_power(static_cast<double>(base), static_cast<double>(exponent));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) too_large();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) too_large();
  }
  return result;
}

Value integers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::add:
      return checked(__builtin_add_overflow(a, b, &result), result);
    case Operator::subtract:
      return checked(__builtin_sub_overflow(a, b, &result), result);
    case Operator::multiply:
      return checked(__builtin_mul_overflow(a, b, &result), result);
    case Operator::power:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) raise("{}", op == Operator::divide ? "division by zero" : "integer division or modulo by zero");
  if (op == Operator::divide) return divide(a, b);
  if (b == -1) {  // the one quotient that can overflow
    if (op == Operator::modulo) return int64_t{0};
    return checked(__builtin_sub_overflow(int64_t{0}, a, &result), result);
  }
  if (op == Operator::floor_divide) return floor_divide(a, b);
  return a - floor_divide(a, b) * b;
}

Value reals(Operator op, double a, double b) {
  switch (op) {
    case Operator::add:
      return a + b;
    case Operator::subtract:
      return a - b;
    case Operator::multiply:
      return a * b;
    case Operator::power:
      return real_power(a, b);
    default:
      break;
  }
  if (b == 0)
    raise("{}", op == Operator::divide ? "float division by zero" : "float floor division or modulo by zero");
  if (op == Operator::divide) return a / b;
  const auto [quotient, remainder] = divmod(a, b);
  return op == Operator::floor_divide ? quotient : remainder;
}

Value join(Heap& heap, const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  const auto part = [&](const Value& v) {
    return markup && !v.is_markup() ? escape_html(v.text()) : v.text();
  };
  heap.check_text(uint64_t{a.text().size()} + b.text().size());
  return heap.string(part(a) + part(b), markup);
}

Value repeat(Heap& heap, const Value& value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  uint64_t size = value.is_string() ? value.text().size() : value.items().size();
  if (__builtin_mul_overflow(size, static_cast<uint64_t>(times), &size))
    size = std::numeric_limits<uint64_t>::max();
  if (value.is_string()) {
    heap.check_text(size);
    std::string text;
    for (int64_t i = 0; i < times && size > 0; ++i) text += value.text();
    return heap.string(std::move(text), value.is_markup());
  }
  heap.check_items(size);
  std::vector<Value> items;
  for (int64_t i = 0; i < times && size > 0; ++i)
    items.insert(items.end(), value.items().begin(), value.items().end());
  return heap.list(std::move(items), value.is_list(ListType::list) ? ListType::list : ListType::tuple);
}

bool is_sequence(const Value& value) {
  return value.is_string() || value.is(Kind::list);
}

}  // namespace

Value arithmetic(Evaluator& ev, Operator op, const Value& a, const Value& b) {
  const auto ia = as_integer(a), ib = as_integer(b);
  if (ia && ib) return integers(op, *ia, *ib);
  if (is_number(a) && is_number(b)) return reals(op, *as_real(a), *as_real(b));
  if (op == Operator::add && a.is_string() && b.is_string()) return join(ev.heap(), a, b);
  if (op == Operator::add && a.is(Kind::list) && b.is(Kind::list) &&
      a.is_list(ListType::list) == b.is_list(ListType::list)) {
    ev.heap().check_items(uint64_t{a.items().size()} + b.items().size());
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return ev.heap().list(std::move(items), a.is_list(ListType::list) ? ListType::list : ListType::tuple);
  }
  if (op == Operator::multiply && is_sequence(a) && ib) return repeat(ev.heap(), a, *ib);
  if (op == Operator::multiply && ia && is_sequence(b)) return repeat(ev.heap(), b, *ia);
  if (op == Operator::modulo && a.is_string())
    return ev.heap().string(format_percent(ev, a.str(), b), a.is_markup());
  wrong_types(op, a, b);
}

Value sign(Operator op, const Value& value) {
  if (const auto i = as_integer(value)) {
    int64_t result = *i;
    return op == Operator::negate ? checked(__builtin_sub_overflow(int64_t{0}, *i, &result), result) : result;
  }
  if (value.is(Kind::real)) return op == Operator::negate ? -value.real() : value.real();
  need_defined(value);
  raise("bad operand type for unary {}: '{}'", op == Operator::negate ? "-" : "+", type_name(value));
}

bool contains(Evaluator& ev, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::string:
      if (!item.is_string()) raise("'in <string>' requires string as left operand, not {}", type_name(item));
      ev.heap().work(container.text().size() + item.text().size());
      return find_first(container.text(), item.text()) != std::string::npos;
    case Kind::list:
      for (const Value& other : container.items())
        if (equal(ev.heap(), other, item)) return true;
      return false;
    case Kind::dict:
      return container.dict().find(ev.heap(), item) != nullptr;
    default:
      break;
  }
  if (container.is(Kind::object))
    if (const auto found = container.object().contains(ev, item)) return *found;
  if (!iterable(ev, container)) raise("argument of type '{}' is not iterable", type_name(container));
  const IteratorPtr items = iterate(ev, container);
  for (Value other; items->next(ev, other);)
    if (equal(ev.heap(), other, item)) return true;
  return false;
}

}  // namespace nibble::text::jinja
