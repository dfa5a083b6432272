// Memory for large buffers that are made and dropped over and over, as a forward pass does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace nibble {

/// Owned memory of at least `size` bytes, 64-byte aligned, uninitialised. Movable; one made without
/// arguments, or moved from, is empty. The system clears memory before it gives it, which takes as long as
/// many a product that is written there: large buffers that nobody owns any more are kept for the next ones
/// of their size, or of down to half of it. Together with those in use they take no more than 5/4 of the most
/// that was in use at some time. Making and destroying buffers is thread-safe; making one may throw
/// std::bad_alloc.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Bytes of memory of the machine, or of the container's limit where that is lower.
int64_t machine_memory();

/// Bytes of the buffers that are kept.
size_t kept_buffer_bytes();

/// Gives buffers that are kept, and what the C library holds for the next allocation, back to the system. For
/// the end of a pass through a model: its buffers are as large as its weights. Thread-safe.
void give_back_freed_memory();

}  // namespace nibble
