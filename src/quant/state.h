// A 4-bit tensor as the tensors of a safetensors file: the codes under the weight's own name, and beside them
// the absmax values, the maps and the quant_state JSON, as bitsandbytes writes and reads them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/format.h"

namespace nibble::quant {

/// The JSON of a tensor's quant_state as Python's json.dumps writes it:
/// {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096]}, and with double
/// quantization "nested_blocksize", "nested_dtype", "nested_offset" before the brace. Reads neither codes nor
/// absmax values.
std::string quant_state_json(const Packed4& packed);

/// What a quant_state says.
struct QuantState {
  Format format = Format::nf4;
  int64_t block = kBlock;
  DType dtype = DType::bf16;
  Shape shape;
  struct Nested {
    int64_t block = kNestedBlock;
    float offset = 0;
  };
  std::optional<Nested> nested;
};

/// Reads the JSON of a quant_state. Error, beginning with `what` (file and tensor), when it is no JSON
/// object, a field is missing, unknown or of another type, a value is out of range, or the nested fields are
/// not all there.
QuantState parse_quant_state(std::string_view json, const std::string& what);

/// One tensor of a quantized linear. The bytes lie in the Packed4 it was made from, or in `text`.
struct StoredTensor {
  std::string suffix;                       // after "X.weight": "", ".absmax", ...
  TensorView view;                          // dtype, shape, bytes
  std::shared_ptr<const std::string> text;  // the quant_state JSON; null for the others
};

/// The tensors of one quantized weight, in the order "", ".absmax", ".quant_map", ".nested_absmax",
/// ".nested_quant_map" (these two with double quantization only), ".quant_state.bitsandbytes__nf4" (or fp4).
/// Their bytes add up to packed_bytes. `packed` must outlive them.
std::vector<StoredTensor> to_tensors(const Packed4& packed);

/// Finds a tensor by the suffix after the weight's own name, or nothing.
using TensorLookup = std::function<std::optional<TensorView>(const std::string& suffix)>;

/// Reads the tensors of one quantized weight back, with the maps as stored. Error, beginning with `what`
/// (file and name of the weight) and the suffix, when a tensor is missing, superfluous, of another dtype or
/// size than shape and block sizes ask for, or holds a scale that is NaN or infinite. Views may have any
/// alignment.
Packed4 from_tensors(const TensorLookup& lookup, const std::string& what);

}  // namespace nibble::quant
