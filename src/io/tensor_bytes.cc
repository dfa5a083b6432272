#include "io/tensor_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace nibble::io {

TensorBytes::TensorBytes(const std::filesystem::path& path, const FileStamp& stamp, const TensorInfo& info)
    : path_(path), begin_(info.begin), end_(info.end) {
  int64_t size = 0;
  file_ = std::make_shared<const Descriptor>(open_regular(path, &size));
  if (stamp_of(*file_, path) != stamp)
    fail("{}: was changed while it was in use; run again when it is complete", path.string());
}

void TensorBytes::read(int64_t offset, std::span<std::byte> to) const {
  NIBBLE_CHECK(offset >= 0 && offset + std::ssize(to) <= size(), "bytes {} to {} of {}", offset,
               offset + std::ssize(to), size());
  int64_t at = begin_ + offset;
  while (!to.empty()) {
    const ssize_t n = pread(file_->get(), to.data(), to.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("{}: cannot read it at byte {}: {}", path_.string(), at, system_message(errno));
    if (n == 0)
      fail("{}: ends at byte {} now: it shrank while it was in use; get it again", path_.string(), at);
    to = to.subspan(static_cast<size_t>(n));
    at += n;
  }
}

void TensorBytes::ahead(int64_t n) const {
  posix_fadvise(file_->get(), begin_, std::min(n, size()), POSIX_FADV_WILLNEED);
}

}  // namespace nibble::io
