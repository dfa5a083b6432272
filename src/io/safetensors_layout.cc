// The order of tensors in a file, and the header that says so.
#include <algorithm>
#include <array>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "io/json.h"
#include "io/safetensors_header.h"

namespace nibble::io {
namespace {

/// The library's dtypes from the largest of its enum to the smallest (safetensors 0.4 to 0.8).
constexpr std::array kFileOrder = {DType::i64, DType::f64, DType::f32, DType::i32, DType::bf16,
                                   DType::f16, DType::i16, DType::i8,  DType::u8,  DType::boolean};

auto file_rank(DType type) {
  return std::find(kFileOrder.begin(), kFileOrder.end(), type) - kFileOrder.begin();
}

void check_names(const std::vector<TensorPlan>& tensors) {
  std::vector<std::string_view> names;
  for (const TensorPlan& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  NIBBLE_CHECK(twice == names.end(), "tensor {} is planned twice", printable(*twice));
  NIBBLE_CHECK(!std::binary_search(names.begin(), names.end(), "__metadata__"),
               "a tensor named __metadata__");
}

}  // namespace

bool stands_before(DType a, std::string_view name_a, DType b, std::string_view name_b) {
  return std::pair(file_rank(a), name_a) < std::pair(file_rank(b), name_b);
}

std::string safetensors_header(const std::vector<TensorPlan>& tensors, std::string_view what) {
  check_names(tensors);
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t begin = 0;
  for (const TensorPlan& tensor : tensors) {
    const auto end = checked_add(begin, tensor.bytes());
    NIBBLE_CHECK(end, "the tensors' bytes do not fit in 64 bits");
    header +=
        fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(tensor.name),
                    dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), begin, *end);
    begin = *end;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  if (static_cast<int64_t>(header.size()) > kMaxHeaderBytes)
    fail("{}: its header would take {} bytes, more than the {} that the format allows; write smaller shards",
         what, header.size(), kMaxHeaderBytes);
  std::string length(8, '\0');
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return length + header;
}

}  // namespace nibble::io
