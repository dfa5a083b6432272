#include "text/jinja/heap.h"

#include "base/text.h"

namespace nibble::text::jinja {

Charge::Charge(Heap* heap, size_t bytes) : heap_(heap) {
  grow(bytes);
}

Charge::~Charge() {
  if (heap_) heap_->release(bytes_);
}

void Charge::grow(size_t bytes) {
  if (!heap_) return;
  heap_->charge(bytes);
  bytes_ += bytes;
}

void Heap::too_many_steps() const {
  raise("takes more than {} steps", limits_.steps);
}

void Heap::too_much_memory(size_t refused) {
  bytes_ -= refused;
  raise("needs more than {} of memory", bytes_text(static_cast<int64_t>(limits_.memory_bytes)));
}

void Heap::check_text(uint64_t bytes) const {
  if (bytes > limits_.text_bytes)
    raise("makes a string of more than {}", bytes_text(static_cast<int64_t>(limits_.text_bytes)));
}

void Heap::check_items(uint64_t items) const {
  if (items > limits_.items) raise("makes a list of more than {} items", limits_.items);
}

Value Heap::string(std::string text, bool markup) {
  check_text(text.size());
  work(text.size());
  const size_t bytes = sizeof(Str) + text.size();
  return std::make_shared<const Str>(std::move(text), markup, Charge(this, bytes));
}

Value Heap::list(std::vector<Value> items, ListType type) {
  check_items(items.size());
  step(1 + items.size() / 4);
  const size_t bytes = sizeof(List) + items.size() * sizeof(Value);
  return std::make_shared<const List>(std::move(items), type, Charge(this, bytes));
}

Value Heap::dict(Dict::Items items) {
  check_items(items.size());
  return std::make_shared<const Dict>(*this, std::move(items));
}

Value Heap::undefined(std::string message) {
  return Undefined{std::make_shared<const std::string>(std::move(message))};
}

void Buffer::append(std::string_view text) {
  heap_.check_text(uint64_t{text_.size()} + text.size());
  heap_.work(text.size());
  charge_.grow(text.size());
  text_ += text;
}

}  // namespace nibble::text::jinja
