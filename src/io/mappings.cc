#include "io/mappings.h"

#include <array>
#include <atomic>
#include <mutex>
#include <string>

namespace nibble::io {
namespace {

/// `begin` is set last and taken back first: a handler that sees it sees the rest.
struct Slot {
  std::atomic<const std::byte*> begin{nullptr};
  std::atomic<size_t> size{0};
  std::atomic<const char*> path{nullptr};
  std::string text;  // what `path` points to
  bool taken = false;
};

std::array<Slot, kMappings> slots;
std::mutex mutex;  // guards `taken` and `text`

}  // namespace

MappedRange::MappedRange(const std::byte* begin, size_t size, const std::filesystem::path& path)
    : slot_(kMappings) {
  const std::lock_guard lock(mutex);
  for (slot_ = 0; slot_ < kMappings && slots[slot_].taken;) ++slot_;
  if (slot_ == kMappings) return;
  Slot& slot = slots[slot_];
  slot.taken = true;
  slot.text = path.string();
  slot.path = slot.text.c_str();
  slot.size = size;
  slot.begin = begin;
}

MappedRange::~MappedRange() {
  if (slot_ == kMappings) return;
  const std::lock_guard lock(mutex);
  Slot& slot = slots[slot_];
  slot.begin = nullptr;
  slot.taken = false;
}

const char* mapped_file_at(const void* address) noexcept {
  const auto* byte = static_cast<const std::byte*>(address);
  for (const Slot& slot : slots) {
    const std::byte* begin = slot.begin;
    if (begin != nullptr && byte >= begin && byte < begin + slot.size) return slot.path;
  }
  return nullptr;
}

}  // namespace nibble::io
