// What a rendering has used of its limits, and the makers of values that count against them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/template.h"
#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// Counts steps and memory of one rendering, and owns the objects that may refer to each other (namespaces,
/// macros, loops, iterators), which all live until the end. Not thread-safe: each rendering has its own.
class Heap {
 public:
  explicit Heap(const Limits& limits) : limits_(limits) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap() { arena_.clear(); }

  const Limits& limits() const { return limits_; }

  /// Counts work. Throws Failure above the limit.
  void step(uint64_t n = 1) {
    steps_ += n;
    if (steps_ > static_cast<uint64_t>(limits_.steps)) [[unlikely]]
      too_many_steps();
  }
  /// Counts the work of copying or searching so many bytes.
  void work(uint64_t bytes) { step(1 + bytes / 64); }
  /// Throw Failure before something is made that is longer than the limits allow.
  void check_text(uint64_t bytes) const;
  void check_items(uint64_t items) const;

  /// A string; `text` must be valid UTF-8.
  Value string(std::string text, bool markup = false);
  Value list(std::vector<Value> items, ListType type = ListType::list);
  Value tuple(std::vector<Value> items) { return list(std::move(items), ListType::tuple); }
  Value dict(Dict::Items items);
  /// An undefined value with what to say when it is used.
  static Value undefined(std::string message);

  /// An object that lives until the end of the rendering.
  template <typename T, typename... Args>
  T& make(Args&&... args) {
    step();
    charge(sizeof(T) + kObjectBytes);
    auto owned = std::make_unique<T>(std::forward<Args>(args)...);
    T& object = *owned;
    arena_.emplace_back(owned.release(), [](void* p) { delete static_cast<T*>(p); });
    return object;
  }
  /// An immutable object that lives as long as its values.
  template <typename T, typename... Args>
  Value share(Args&&... args) {
    step();
    return ObjectPtr(std::make_shared<T>(std::forward<Args>(args)...));
  }
  /// A value for an object of the arena.
  static Value refer(Object& object) { return ObjectPtr(std::shared_ptr<void>(), &object); }

  void charge(size_t bytes) {
    bytes_ += bytes;
    if (bytes_ > limits_.memory_bytes) [[unlikely]]
      too_much_memory(bytes);
  }
  void release(size_t bytes) noexcept { bytes_ -= bytes; }

 private:
  static constexpr size_t kObjectBytes = 64;  // what the allocator and the list of objects take, about
  [[noreturn]] void too_many_steps() const;
  [[noreturn]] void too_much_memory(size_t refused);

  Limits limits_;
  uint64_t steps_ = 0;
  size_t bytes_ = 0;
  std::vector<std::unique_ptr<void, void (*)(void*)>> arena_;
};

/// Text that grows, counted as it does.
class Buffer {
 public:
  explicit Buffer(Heap& heap) : heap_(heap), charge_(&heap, 0) {}
  /// Throws Failure when the text gets too long.
  void append(std::string_view text);
  /// The length without what an append would add must fit before the text is made.
  size_t size() const { return text_.size(); }
  std::string take() { return std::move(text_); }

 private:
  Heap& heap_;
  std::string text_;
  Charge charge_;
};

}  // namespace nibble::text::jinja
