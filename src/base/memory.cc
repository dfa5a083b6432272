#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <mutex>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace nibble {
namespace {

constexpr size_t kAlignment = 64, kPage = 4096, kLargePage = size_t{2} << 20;
// Smaller buffers are left to the C library, which keeps them as well.
constexpr size_t kLarge = size_t{1} << 20;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeeps = false;  // what is kept would hide a use after the end
#else
constexpr bool kKeeps = true;
#endif

bool is_kept(size_t size) {
  return kKeeps && size >= kLarge;
}

/// Memory from the system, in large pages where it has them, which saves most of the time of touching it
/// first.
std::byte* map(size_t size) {
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (size >= kLargePage)
    madvise(data, size, MADV_HUGEPAGE);  // advice: where it is not taken, nothing is lost
#endif
  return static_cast<std::byte*>(data);
}

/// Large buffers: those that are in use, and, the one that was returned first in front, those that are kept.
class LargeBuffers {
 public:
  /// A buffer of at least `size` bytes; `size` becomes its own.
  std::byte* take(size_t& size) {
    const std::lock_guard lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it)
      if (it->size >= size && it->size <= 2 * size && (best == kept_.end() || it->size < best->size))
        best = it;
    std::byte* data = nullptr;
    if (best != kept_.end()) {
      data = best->data;
      size = best->size;
      kept_.erase(best);
    } else {
      size = (size + kPage - 1) / kPage * kPage;
      const size_t most = std::max(most_in_use_, in_use_ + size);
      unmap_first(in_use_ + size, most + most / 4);
      data = map(size);
    }
    in_use_ += size;
    most_in_use_ = std::max(most_in_use_, in_use_);
    return data;
  }

  void put(std::byte* data, size_t size) noexcept {
    const std::lock_guard lock(mutex_);
    in_use_ -= size;
    try {
      kept_.push_back({data, size});
    } catch (const std::bad_alloc&) {
      munmap(data, size);
    }
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    unmap_first(0, 0);
    most_in_use_ = in_use_;
  }

  size_t kept() {
    const std::lock_guard lock(mutex_);
    return kept_bytes();
  }

 private:
  struct Piece {
    std::byte* data;
    size_t size;
  };

  size_t kept_bytes() const {
    return std::accumulate(kept_.begin(), kept_.end(), size_t{0},
                           [](size_t sum, const Piece& piece) { return sum + piece.size; });
  }

  /// Unmaps from the front until what is kept, with `others`, comes to `most` or less.
  void unmap_first(size_t others, size_t most) {
    size_t held = others + kept_bytes();
    auto it = kept_.begin();
    for (; it != kept_.end() && held > most; ++it) {
      munmap(it->data, it->size);
      held -= it->size;
    }
    kept_.erase(kept_.begin(), it);
  }

  std::mutex mutex_;
  std::vector<Piece> kept_;
  size_t in_use_ = 0, most_in_use_ = 0;
};

/// Never destroyed: threads that end late return buffers still.
LargeBuffers& large_buffers() {
  static LargeBuffers& buffers = *new LargeBuffers;
  return buffers;
}

}  // namespace

Buffer::Buffer(size_t size) : size_(std::max<size_t>(size, 1)) {
  data_ = is_kept(size_) ? large_buffers().take(size_)
                         : static_cast<std::byte*>(::operator new(size_, std::align_val_t(kAlignment)));
}

Buffer::~Buffer() {
  if (is_kept(size_))
    large_buffers().put(data_, size_);
  else
    ::operator delete(data_, std::align_val_t(kAlignment));
}

int64_t machine_memory() {
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  int64_t bytes = pages > 0 && page > 0 ? pages * page : std::numeric_limits<int64_t>::max();
  // "max", which is no number, stands where there is no limit.
  const auto limit = [&](const std::string& path) {
    std::ifstream file(path);
    if (int64_t value = 0; file >> value && value > 0) bytes = std::min(bytes, value);
  };
  limit("/sys/fs/cgroup/memory/memory.limit_in_bytes");  // of the first version of control groups
  // Of the second: the process's own group, in the line "0::/a/b", and those above it.
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::string group = line.substr(3);; group.erase(group.find_last_of('/'))) {
      limit("/sys/fs/cgroup" + group + "/memory.max");
      if (group.empty()) break;
    }
  }
  return bytes;
}

size_t kept_buffer_bytes() {
  return large_buffers().kept();
}

void give_back_freed_memory() {
  large_buffers().clear();
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace nibble
