#include "io/shard_file.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace nibble::io {
namespace {

std::vector<TensorPlan> in_file_order(std::vector<TensorPlan> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorPlan& a, const TensorPlan& b) {
    return stands_before(a.dtype, a.name, b.dtype, b.name);
  });
  return tensors;
}

}  // namespace

ShardFile::ShardFile(const std::filesystem::path& path, std::vector<TensorPlan> tensors)
    : name_(path.string()),
      tensors_(in_file_order(std::move(tensors))),
      header_bytes_(std::ssize(safetensors_header(tensors_, name_))),
      file_(path) {
  int64_t begin = header_bytes_;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    ranks_[tensors_[i].name] = i;
    begins_.push_back(begin);
    begin += tensors_[i].bytes();
  }
}

size_t ShardFile::rank(const std::string& name) const {
  const auto it = ranks_.find(name);
  NIBBLE_CHECK(it != ranks_.end(), "{} is not planned", name);
  return it->second;
}

void ShardFile::write(const std::string& name, int64_t offset, std::span<const std::byte> bytes) {
  const size_t i = rank(name);
  NIBBLE_CHECK(offset >= 0 && offset + std::ssize(bytes) <= tensors_[i].bytes(), "{}: {} bytes at {} of {}",
               name, bytes.size(), offset, tensors_[i].bytes());
  file_.write_at(begins_[i] + offset, bytes);
}

void ShardFile::set_length(const std::string& name, int64_t length) {
  const size_t i = rank(name);
  const int64_t before = tensors_[i].bytes();
  tensors_[i].shape = {length};
  const int64_t shift = tensors_[i].bytes() - before;
  for (size_t k = i + 1; k < begins_.size(); ++k) begins_[k] += shift;
}

bool ShardFile::commit() {
  const std::string header = safetensors_header(tensors_, name_);
  if (std::ssize(header) != header_bytes_) return false;
  file_.write_at(0, std::as_bytes(std::span(header)));
  file_.commit();
  return true;
}

}  // namespace nibble::io
