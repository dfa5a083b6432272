#include "write/layouts/bitsandbytes.h"

#include <memory>

#include "quant/state.h"

namespace nibble::write::bitsandbytes {

io::Json config_section(const std::vector<std::string>& skip_modules) {
  return {
      {"_load_in_4bit", true},
      {"_load_in_8bit", false},
      {"bnb_4bit_compute_dtype", "bfloat16"},
      {"bnb_4bit_quant_storage", "uint8"},
      {"bnb_4bit_quant_type", "nf4"},
      {"bnb_4bit_use_double_quant", true},
      {"llm_int8_enable_fp32_cpu_offload", false},
      {"llm_int8_has_fp16_weight", false},
      {"llm_int8_skip_modules", skip_modules},
      {"llm_int8_threshold", 6.0},
      {"load_in_4bit", true},
      {"load_in_8bit", false},
      {"quant_method", "bitsandbytes"},
  };
}

std::vector<io::PlannedTensor> tensors(const std::string& stored, const TensorView& weight) {
  const auto encode = [weight] { return quant::encode4(weight, quant::Format::nf4, true); };
  const quant::Packed4 packed = encode();
  std::vector<io::PlannedTensor> out;
  for (const quant::StoredTensor& tensor : quant::to_tensors(packed)) {
    io::PlannedTensor planned{.name = stored + ".weight" + tensor.suffix,
                              .dtype = tensor.view.dtype,
                              .shape = tensor.view.shape,
                              .write = {}};
    if (tensor.suffix.empty()) {
      // The codes are most of the bytes: made again when they are due, so that they need not all be held.
      planned.write = [encode](const io::PlannedTensor::Sink& sink) {
        const quant::Packed4 again = encode();
        sink(std::as_bytes(std::span(again.codes)));
      };
    } else {
      const auto bytes = std::make_shared<const std::vector<std::byte>>(
          tensor.view.data, tensor.view.data + tensor.view.bytes());
      planned.write = [bytes](const io::PlannedTensor::Sink& sink) { sink(*bytes); };
    }
    out.push_back(std::move(planned));
  }
  return out;
}

}  // namespace nibble::write::bitsandbytes
