#include "text/jinja/eval.h"

#include <algorithm>

#include "base/error.h"
#include "text/jinja/print.h"
#include "text/jinja/runtime.h"
#include "text/jinja/strings.h"

namespace nibble::text::jinja {
namespace {

/// The items of a loop that pass its test, found when they are asked for.
class TestedIterator : public Iterator {
 public:
  TestedIterator(const For& loop, Activation* outer, IteratorPtr source)
      : loop_(loop), activation_(outer, loop.test_function.slots), source_(std::move(source)) {}

  bool next(Evaluator& ev, Value& item) override {
    while (source_->next(ev, item))
      if (ev.loop_test(loop_, activation_, item)) return true;
    return false;
  }

 private:
  const For& loop_;
  Activation activation_;
  IteratorPtr source_;
};

}  // namespace

Evaluator::Evaluator(const Program& program, const Limits& limits, const Clock& clock)
    : program_(program), clock_(clock), heap_(limits), root_(nullptr, program.function.slots) {}

std::string Evaluator::render(const io::Json& context) {
  fill_context(context);
  Buffer text(heap_);
  out_ = &text;
  enter(program_.frame);
  run(program_.body);
  return text.take();
}

void Evaluator::fill_context(const io::Json& context) {
  if (!context.is_object()) raise("the context is no JSON object");
  for (const std::string& name : program_.names) {
    const auto it = context.find(name);
    context_.push_back(it != context.end() ? from_json(*it, 0) : find_global(name));
  }
}

Value Evaluator::from_json(const io::Json& json, int depth) {
  if (depth > kMaxDepth) raise("the context is nested deeper than {} levels", kMaxDepth);
  heap_.step();
  switch (json.type()) {
    case io::Json::value_t::null:
      return None();
    case io::Json::value_t::boolean:
      return json.get<bool>();
    case io::Json::value_t::number_integer:
      return json.get<int64_t>();
    case io::Json::value_t::number_unsigned:
      if (json.get<uint64_t>() >> 63 != 0)
        raise("the context's integer {} does not fit in 64 bits", json.dump());
      return json.get<int64_t>();
    case io::Json::value_t::number_float:
      return json.get<double>();
    case io::Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (!valid_utf8(text)) raise("a string of the context is not UTF-8");
      return heap_.string(text);
    }
    case io::Json::value_t::array: {
      std::vector<Value> items;
      for (const io::Json& item : json) items.push_back(from_json(item, depth + 1));
      return heap_.list(std::move(items));
    }
    case io::Json::value_t::object: {
      Dict::Items items;
      for (const auto& [key, value] : json.items()) {
        if (!valid_utf8(key)) raise("a key of the context is not UTF-8");
        items.emplace_back(heap_.string(key), from_json(value, depth + 1));
      }
      return heap_.dict(std::move(items));
    }
    default:
      raise("the context holds a value that is no JSON");
  }
}

Value& Evaluator::variable(const Ref& ref) {
  Activation* activation = activation_;
  for (int i = 0; i < ref.hops; ++i) activation = activation->outer;
  return activation->slots[static_cast<size_t>(ref.slot)];
}

void Evaluator::enter(const Frame& frame) {
  for (const Load& load : frame.loads) {
    Value& slot = activation_->slots[static_cast<size_t>(load.slot)];
    if (load.kind == Load::Kind::context)
      slot = context_[static_cast<size_t>(load.context)];
    else if (load.kind == Load::Kind::copy)
      slot = variable(load.source);
    else
      slot = Value();
  }
}

void Evaluator::leave(const Frame& frame) {
  for (const int slot : frame.slots) activation_->slots[static_cast<size_t>(slot)] = Value();
}

void Evaluator::check_namespaces(const Target& target) {
  for (const Target& part : target.parts) check_namespaces(part);
  if (!target.attribute.empty() && !variable(target.ref).as<Namespace>())
    raise("cannot assign attribute on non-namespace object");
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (!target.tuple) {
    if (target.attribute.empty()) {
      variable(target.ref) = value;
      return;
    }
    // Looked up again: an earlier part of a tuple may have assigned the name.
    auto* const space = variable(target.ref).as<Namespace>();
    if (!space) raise("cannot assign attribute on non-namespace object");
    return space->set(*this, target.attribute, value);
  }
  const std::vector<Value> items = to_vector(*this, value);
  if (items.size() != target.parts.size())
    raise("{} values to unpack, {} names to take them", items.size(), target.parts.size());
  for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
}

Value Evaluator::read(const Target& target) {
  if (!target.tuple) return variable(target.ref);
  std::vector<Value> items;
  for (const Target& part : target.parts) items.push_back(read(part));
  return heap_.tuple(std::move(items));
}

template <typename Run>
std::string Evaluator::captured(Flow& flow, const Run& run) {
  Buffer text(heap_);
  Buffer* const before = std::exchange(out_, &text);
  flow = run();
  out_ = before;
  return text.take();
}

Flow Evaluator::run(const Body& body) {
  for (const StmtPtr& stmt : body)
    if (const Flow flow = run(*stmt); flow != Flow::normal) return flow;
  return Flow::normal;
}

Flow Evaluator::run(const Stmt& stmt) {
  heap_.step();
  const Level level(*this);
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::output:
      output(static_cast<const Output&>(stmt));
      return Flow::normal;
    case StmtKind::loop: {
      const auto& loop = static_cast<const For&>(stmt);
      const Value iterable = eval(*loop.iterable);
      if (!loop.recursive) return run_loop(loop, iterable, 0);
      out_->append(call_loop(loop, iterable, 0, activation_));
      return Flow::normal;
    }
    case StmtKind::branch:
      return run_branch(static_cast<const If&>(stmt));
    case StmtKind::macro: {
      const auto& macro_stmt = static_cast<const MacroStmt&>(stmt);
      variable(macro_stmt.ref) = macro(macro_stmt.macro);
      return Flow::normal;
    }
    case StmtKind::call_block:
      run_call_block(static_cast<const CallBlock&>(stmt));
      return Flow::normal;
    case StmtKind::filter_block:
      return run_filter_block(static_cast<const FilterBlock&>(stmt));
    case StmtKind::with:
      return run_with(static_cast<const With&>(stmt));
    case StmtKind::assign:
      run_assign(static_cast<const Assign&>(stmt));
      return Flow::normal;
    case StmtKind::assign_block:
      return run_assign_block(static_cast<const AssignBlock&>(stmt));
    case StmtKind::leave_loop:
      return Flow::leave_loop;
    case StmtKind::next_item:
      return Flow::next_item;
  }
  return Flow::normal;
}

void Evaluator::output(const Output& output) {
  for (const ExprPtr& part : output.parts) {
    const Value value = eval(*part);
    line_ = part->line;
    if (value.is_string())
      out_->append(value.text());
    else
      out_->append(str(heap_, value));
  }
}

Flow Evaluator::run_branch(const If& branch) {
  for (const auto& [test, body] : branch.branches)
    if (truth(eval(*test))) return run(body);
  return run(branch.otherwise);
}

Flow Evaluator::run_loop(const For& loop, const Value& iterable, int depth) {
  line_ = loop.line;
  IteratorPtr items = iterate(*this, iterable);
  if (loop.test)
    items = std::make_unique<TestedIterator>(loop, loop.recursive ? activation_->outer : activation_,
                                             std::move(items));
  Loop* object = nullptr;
  if (loop.extended) {
    object = &heap_.make<Loop>(std::move(items), loop.test ? Value() : iterable,
                               loop.recursive ? &loop : nullptr, activation_->outer, depth);
  }
  Value item;
  bool any = false;  // an item whose body ran to its end
  while (object ? object->advance(*this, item) : items->next(*this, item)) {
    heap_.step();
    assign(loop.target, item);
    if (object) variable(loop.loop) = Heap::refer(*object);
    enter(loop.body_frame);
    const Flow flow = run(loop.body);
    if (flow == Flow::leave_loop) break;
    any |= flow == Flow::normal;
    line_ = loop.line;
  }
  leave(loop.body_frame);
  if (any || loop.otherwise.empty()) return Flow::normal;
  enter(loop.else_frame);
  const Flow flow = run(loop.otherwise);
  leave(loop.else_frame);
  return flow;
}

std::string Evaluator::call_loop(const For& loop, const Value& iterable, int depth, Activation* closure) {
  const Level level(*this);
  Activation local(closure, 0);
  Activation& activation = new_activation(loop.loop_function, local);
  Flow flow;
  return with_activation(activation,
                         [&] { return captured(flow, [&] { return run_loop(loop, iterable, depth); }); });
}

bool Evaluator::loop_test(const For& loop, Activation& activation, Value& item) {
  return with_activation(activation, [&] {
    assign(loop.test_target, item);
    enter(loop.test_frame);
    if (!truth(eval(*loop.test))) return false;
    item = read(loop.test_target);
    return true;
  });
}

Activation& Evaluator::new_activation(const Function& function, Activation& local) {
  if (!function.nested) {
    local.slots.resize(static_cast<size_t>(function.slots));
    return local;
  }
  heap_.charge(static_cast<size_t>(function.slots) * sizeof(Value));
  return heap_.make<Activation>(local.outer, function.slots);
}

Flow Evaluator::run_with(const With& with) {
  // The values are those of the frame outside, whose variables the frame's own do not touch.
  enter(with.frame);
  for (const auto& [target, value] : with.values) assign(target, eval(*value));
  const Flow flow = run(with.body);
  leave(with.frame);
  return flow;
}

Flow Evaluator::run_filter_block(const FilterBlock& block) {
  enter(block.frame);
  Flow flow;
  std::string body = captured(flow, [&] { return run(block.body); });
  if (flow != Flow::normal) return flow;
  const Value text = heap_.string(std::move(body));
  const Value* const before = std::exchange(block_text_, &text);
  line_ = block.line;
  out_->append(str(heap_, eval(*block.filter)));
  block_text_ = before;
  leave(block.frame);
  return flow;
}

void Evaluator::run_assign(const Assign& assign_stmt) {
  check_namespaces(assign_stmt.target);
  const Value value = eval(*assign_stmt.value);
  line_ = assign_stmt.line;
  assign(assign_stmt.target, value);
}

Flow Evaluator::run_assign_block(const AssignBlock& assign_stmt) {
  enter(assign_stmt.frame);
  Flow flow;
  std::string body = captured(flow, [&] { return run(assign_stmt.body); });
  if (flow != Flow::normal) return flow;
  Value value = heap_.string(std::move(body));
  line_ = assign_stmt.line;
  if (assign_stmt.filter) {
    const Value text = value;
    const Value* const before = std::exchange(block_text_, &text);
    value = eval(*assign_stmt.filter);
    block_text_ = before;
  }
  assign(assign_stmt.target, value);
  leave(assign_stmt.frame);
  return flow;
}

Value Evaluator::macro(const MacroBody& body) {
  return Heap::refer(heap_.make<Macro>(body, activation_));
}

void Evaluator::run_call_block(const CallBlock& block) {
  const Value caller = macro(block.macro);
  if (!block.call) {
    out_->append(call(caller, {}).text());
    return;
  }
  const Value result = eval_call(static_cast<const Call&>(*block.call), &caller);
  line_ = block.line;
  out_->append(str(heap_, result));
}

void Evaluator::bind_parameters(const Macro& macro, Args& args) {
  const MacroBody& body = macro.body();
  auto& slots = activation_->slots;
  const size_t given = std::min(args.positional.size(), body.parameters.size());
  bool found_caller = false;
  for (size_t i = 0; i < body.parameters.size(); ++i) {
    const Parameter& parameter = body.parameters[i];
    slots[static_cast<size_t>(parameter.slot)] =
        i < given ? args.positional[i] : pop_keyword(args, parameter.name);
    const bool asked = i >= given || given == body.parameters.size();
    found_caller |= asked && parameter.name == "caller";
  }
  const std::string name = body.name.empty() ? "caller" : body.name;
  if (body.takes_caller && !found_caller) {
    if (body.caller < 0) raise("macro '{}' was invoked with two values for caller", name);
    Value caller = pop_keyword(args, "caller");
    if (caller.missing() || caller.none()) caller = Heap::undefined("No caller defined");
    slots[static_cast<size_t>(body.caller)] = std::move(caller);
  }
  if (body.kwargs >= 0) {
    Dict::Items rest;
    for (auto& [key, value] : args.keyword) rest.emplace_back(heap_.string(std::move(key)), std::move(value));
    slots[static_cast<size_t>(body.kwargs)] = heap_.dict(std::move(rest));
  } else if (!args.keyword.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", name, args.keyword.front().first);
  }
  if (body.varargs >= 0)
    slots[static_cast<size_t>(body.varargs)] =
        heap_.tuple({args.positional.begin() + static_cast<ptrdiff_t>(given), args.positional.end()});
  else if (args.positional.size() > given)
    raise("macro '{}' takes not more than {} argument(s)", name, given);
}

Value Evaluator::call_macro(const Macro& macro, Args& args) {
  const Level level(*this);
  const MacroBody& body = macro.body();
  Activation local(macro.closure(), 0);
  Activation& activation = new_activation(body.function, local);
  return with_activation(activation, [&] {
    bind_parameters(macro, args);
    enter(body.frame);
    for (const Parameter& parameter : body.parameters) {
      Value& slot = activation_->slots[static_cast<size_t>(parameter.slot)];
      if (!slot.missing()) continue;
      slot = parameter.fallback
                 ? eval(*parameter.fallback)
                 : Heap::undefined(fmt::format("parameter '{}' was not provided", parameter.name));
    }
    Flow flow;
    return heap_.string(captured(flow, [&] { return run(body.body); }));
  });
}

}  // namespace nibble::text::jinja
