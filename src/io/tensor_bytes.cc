#include "io/tensor_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"

namespace nibble::io {

TensorBytes::TensorBytes(const std::filesystem::path& path, const FileStamp& stamp, const TensorInfo& info)
    : path_(path),
      file_(std::make_shared<const Descriptor>(open_unchanged(path, stamp))),
      begin_(info.begin),
      end_(info.end) {}

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

std::string TensorBytes::sha256() const {
  constexpr int64_t kBatch = int64_t{4} << 20;
  Sha256 sha;
  std::vector<std::byte> buffer;
  for (int64_t at = 0; at < size(); at += std::ssize(buffer)) {
    buffer.resize(static_cast<size_t>(std::min(kBatch, size() - at)));
    read(at, buffer);
    sha.update(buffer);
  }
  return sha.hex();
}

}  // namespace nibble::io
