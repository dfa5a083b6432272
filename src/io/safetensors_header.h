// The JSON header of a safetensors file: parsed with every check that the format asks for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

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

}  // namespace nibble::io
