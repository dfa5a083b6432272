#include <algorithm>
#include <array>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"

namespace nibble::io {
namespace {

/// The library's dtypes from the largest of its enum to the smallest (safetensors 0.4 to 0.8).
constexpr std::array kFileOrder = {DType::i64, DType::f64, DType::f32, DType::i32, DType::bf16,
                                   DType::f16, DType::i16, DType::i8,  DType::u8,  DType::boolean};

auto file_rank(DType type) {
  return std::find(kFileOrder.begin(), kFileOrder.end(), type) - kFileOrder.begin();
}

int64_t planned_bytes(const PlannedTensor& tensor) {
  return TensorView{tensor.dtype, tensor.shape, nullptr}.bytes();
}

/// The 8 bytes of length and the header, padded so that the tensors begin at a multiple of 8.
std::string header_text(const std::vector<PlannedTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t begin = 0;
  for (const auto& tensor : tensors) {
    const auto end = checked_add(begin, planned_bytes(tensor));
    NIBBLE_CHECK(end, "the tensors' bytes do not fit in 64 bits");
    header +=
        fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(tensor.name),
                    dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), begin, *end);
    begin = *end;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return length + header;
}

void write_tensor(const PlannedTensor& tensor, const std::filesystem::path& path, AtomicFile& file) {
  const int64_t expected = planned_bytes(tensor);
  int64_t left = expected;
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
    return std::pair(file_rank(a.dtype), std::string_view(a.name)) <
           std::pair(file_rank(b.dtype), std::string_view(b.name));
  });
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  NIBBLE_CHECK(twice == names.end(), "tensor {} is planned twice", printable(*twice));
  NIBBLE_CHECK(!std::binary_search(names.begin(), names.end(), "__metadata__"),
               "a tensor named __metadata__");
  const std::string header = header_text(tensors);
  if (static_cast<int64_t>(header.size()) - 8 > kMaxHeaderBytes)
    fail("{}: its header would take {} bytes, more than the {} that the format allows; write smaller shards",
         path.string(), header.size() - 8, kMaxHeaderBytes);
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
