#include "io/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/mappings.h"
#include "io/safetensors_header.h"

namespace nibble::io {
namespace {

constexpr int64_t kLengthBytes = 8;

/// A whole file, mapped read-only.
class Mapping {
 public:
  Mapping(const Descriptor& file, int64_t size, const std::filesystem::path& path)
      : size_(static_cast<size_t>(size)) {
    void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) fail("{}: cannot map it: {}", path.string(), system_message(errno));
    data_ = static_cast<std::byte*>(data);
    range_.emplace(data_, size_, path);
  }
  ~Mapping() {
    range_.reset();
    munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* data() const { return data_; }
  std::string_view text(size_t offset, size_t n) const {
    return {reinterpret_cast<const char*>(data_) + offset, n};
  }
  /// Lets go of the whole pages among some bytes; false when they are not of the mapping.
  bool drop(std::span<const std::byte> bytes) const {
    const std::less_equal<const std::byte*> before;
    const std::byte* end = bytes.data() + bytes.size();
    if (bytes.empty() || !before(data_, bytes.data()) || !before(end, data_ + size_)) return false;
    // Nothing was written to the mapping, so what it drops is read from the file again.
    static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto first = (static_cast<size_t>(bytes.data() - data_) + page - 1) / page * page;
    const auto last = static_cast<size_t>(end - data_) / page * page;
    if (first < last) (void)madvise(data_ + first, last - first, MADV_DONTNEED);
    return true;
  }

 private:
  std::byte* data_;
  size_t size_;
  std::optional<MappedRange> range_;
};

Descriptor open_file(const std::filesystem::path& path, int64_t* size) {
  Descriptor file = open_regular(path, size);
  if (*size == 0) fail("{}: is empty; get it again", path.string());
  return file;
}

/// Refuses what is known to be something else than a safetensors file.
void refuse_other_formats(std::string_view start, const std::filesystem::path& path) {
  refuse_lfs_pointer(start, path);
  if (start.starts_with("GGUF")) fail("{}: is a GGUF file, not safetensors", path.string());
  if (start.starts_with("PK\x03\x04"))
    fail("{}: is a PyTorch (zip) file, not safetensors; save the model with safe_serialization=True",
         path.string());
}

}  // namespace

struct SafetensorsFile::Impl {
  Impl(const std::filesystem::path& file_path, int64_t size, const Descriptor& file)
      : path(file_path), stamp(stamp_of(file, file_path)), mapping(file, size, file_path) {
    const std::string_view start = mapping.text(0, static_cast<size_t>(std::min<int64_t>(size, 64)));
    refuse_other_formats(start, path);
    if (size < kLengthBytes)
      fail("{}: has only {} bytes, too few for a safetensors file; get it again", path.string(), size);
    uint64_t length = 0;
    for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<unsigned char>(start[i]);
    if (length > static_cast<uint64_t>(kMaxHeaderBytes))
      fail(
          "{}: is no safetensors file: its first 8 bytes announce a header of {} bytes, more than the {} "
          "allowed",
          path.string(), length, kMaxHeaderBytes);
    const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
    if (data_begin > size)
      fail("{}: its header takes {} bytes, but the file has only {}: it is cut off, get it again",
           path.string(), length, size - kLengthBytes);
    header = parse_safetensors_header(mapping.text(kLengthBytes, length), path.string(), data_begin, size);
  }

  std::filesystem::path path;
  FileStamp stamp;
  Mapping mapping;
  SafetensorsHeader header;
  std::mutex mutex;                       // guards `aligned`
  std::map<std::string, Tensor> aligned;  // copies of tensors that lie off their alignment
};

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) {
  int64_t size = 0;
  const Descriptor file = open_file(path, &size);
  impl_ = std::make_unique<Impl>(path, size, file);
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::filesystem::path& SafetensorsFile::path() const {
  return impl_->path;
}

const std::map<std::string, TensorInfo>& SafetensorsFile::tensors() const {
  return impl_->header.tensors;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->header.metadata;
}

const FileStamp& SafetensorsFile::stamp() const {
  return impl_->stamp;
}

TensorView SafetensorsFile::tensor(const std::string& name) const {
  const auto it = impl_->header.tensors.find(name);
  if (it == impl_->header.tensors.end()) fail("{}: has no tensor \"{}\"", path().string(), printable(name));
  const TensorInfo& info = it->second;
  const std::byte* data = impl_->mapping.data() + info.begin;
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(dtype_size(info.dtype)) == 0)
    return {info.dtype, info.shape, data};
  std::lock_guard lock(impl_->mutex);
  const auto [copy, is_new] = impl_->aligned.try_emplace(name);
  if (is_new) {
    copy->second = Tensor(info.dtype, info.shape);
    std::memcpy(copy->second.as<std::byte>(), data, static_cast<size_t>(info.end - info.begin));
  }
  return copy->second.view();
}

bool SafetensorsFile::drop(std::span<const std::byte> bytes) const {
  return impl_->mapping.drop(bytes);
}

}  // namespace nibble::io
