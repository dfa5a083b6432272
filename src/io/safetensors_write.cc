#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"

namespace nibble::io {
namespace {

int64_t planned_bytes(const PlannedTensor& tensor) {
  return TensorView{tensor.dtype, tensor.shape, nullptr}.bytes();
}

void write_tensor(const PlannedTensor& tensor, const std::filesystem::path& path, AtomicFile& file) {
  const int64_t expected = planned_bytes(tensor);
  int64_t left = expected;
  if (!tensor.write) return file.skip(expected);
  tensor.write([&](std::span<const std::byte> bytes) {
    const auto n = static_cast<int64_t>(bytes.size());
    if (n > left)
      fail("{}: the writer of tensor \"{}\" gives more than its {} bytes", path.string(),
           printable(tensor.name), expected);
    left -= n;
    file.write(bytes);
  });
  if (left != 0)
    fail("{}: the writer of tensor \"{}\" gives only {} of its {} bytes", path.string(),
         printable(tensor.name), expected - left, expected);
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::vector<PlannedTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const PlannedTensor& a, const PlannedTensor& b) {
    return stands_before(a.dtype, a.name, b.dtype, b.name);
  });
  std::vector<TensorPlan> plans;
  for (const auto& tensor : tensors) plans.push_back({tensor.name, tensor.dtype, tensor.shape});
  const std::string header = safetensors_header(plans, path.string());
  AtomicFile file(path);
  file.write(header);
  for (auto& tensor : tensors) {
    write_tensor(tensor, path, file);
    tensor.write = nullptr;  // frees what it holds
  }
  file.commit();
}

PlannedTensor planned(std::string name, const TensorView& view) {
  return {std::move(name), view.dtype, view.shape, [view](const PlannedTensor::Sink& sink) {
            sink({view.data, static_cast<size_t>(view.bytes())});
          }};
}

}  // namespace nibble::io
