// The JSON header of a safetensors file: parsed with every check that the format asks for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace nibble::io {

/// The most that the format allows for the length of a header.
constexpr int64_t kMaxHeaderBytes = 100'000'000;

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;  // offsets from the start of the file
  std::map<std::string, std::string> metadata;
};

/// Parses the header `text` of a file of `file_bytes` bytes whose tensor data begins at `data_begin`, and
/// checks that the tensors fill the file from there to its end. `what` is the path, for errors. Throws Error.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::string_view what, int64_t data_begin,
                                           int64_t file_bytes);

/// A tensor that a file is to hold.
struct TensorPlan {
  std::string name;
  DType dtype;
  Shape shape;

  int64_t bytes() const { return TensorView{dtype, shape, nullptr}.bytes(); }
};

/// True when the first tensor stands before the second in a file: by dtype in the library's order (I64, F64,
/// F32, I32, BF16, F16, I16, I8, U8, BOOL), then by the bytes of the names.
bool stands_before(DType a, std::string_view name_a, DType b, std::string_view name_b);

/// The beginning of a file: 8 bytes of length and the header of tensors that stand in their order, padded
/// with spaces to 8 bytes. Error, beginning with `what`, when it is too long for the format; InternalError
/// for a name that occurs twice.
std::string safetensors_header(const std::vector<TensorPlan>& tensors, std::string_view what);

}  // namespace nibble::io
