#include "write/layouts/bitsandbytes.h"

#include <functional>
#include <memory>
#include <utility>

#include "base/error.h"
#include "quant/int8.h"
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

io::Json config_section8(const std::vector<std::string>& skip_modules) {
  io::Json out = config_section(skip_modules);
  out["_load_in_4bit"] = out["load_in_4bit"] = false;
  out["_load_in_8bit"] = out["load_in_8bit"] = true;
  // What the 4-bit fields are where nobody sets them.
  out["bnb_4bit_compute_dtype"] = "float32";
  out["bnb_4bit_quant_type"] = "fp4";
  out["bnb_4bit_use_double_quant"] = false;
  return out;
}

namespace {

/// A stored tensor to be written. The codes are most of the bytes: `codes` makes them again when they are due,
/// so that they need not all be held.
io::PlannedTensor planned_tensor(std::string name, const quant::StoredTensor& tensor, bool is_codes,
                                 std::function<void(const io::PlannedTensor::Sink&)> codes) {
  io::PlannedTensor planned{
      .name = std::move(name), .dtype = tensor.view.dtype, .shape = tensor.view.shape, .write = {}};
  if (is_codes) {
    planned.write = std::move(codes);
  } else {
    const auto bytes = std::make_shared<const std::vector<std::byte>>(
        tensor.view.data, tensor.view.data + tensor.view.bytes());
    planned.write = [bytes](const io::PlannedTensor::Sink& sink) { sink(*bytes); };
  }
  return planned;
}

}  // namespace

std::vector<io::PlannedTensor> tensors(const std::string& stored, const std::function<quant::Packed4()>& make) {
  const quant::Packed4 packed = make();
  const auto codes = [make](const io::PlannedTensor::Sink& sink) {
    const quant::Packed4 again = make();
    sink(std::as_bytes(std::span(again.codes)));
  };
  std::vector<io::PlannedTensor> out;
  for (const quant::StoredTensor& tensor : quant::to_tensors(packed))
    out.push_back(planned_tensor(stored + ".weight" + tensor.suffix, tensor, tensor.suffix.empty(), codes));
  return out;
}

std::vector<io::PlannedTensor> tensors8(const std::string& stored, const TensorView& weight,
                                        const std::string& where) {
  if (const auto at = quant::find_beyond_f16(weight))
    fail("{}: element {} is beyond fp16, which LLM.int8 rounds to first; keep this linear, or take 4 bits", where,
         *at);
  const quant::Packed8 packed = quant::encode8(weight);
  const auto codes = [weight](const io::PlannedTensor::Sink& sink) {
    const quant::Packed8 again = quant::encode8(weight);
    sink(std::as_bytes(std::span(again.codes)));
  };
  std::vector<io::PlannedTensor> out;
  for (const quant::StoredTensor& tensor : quant::to_tensors8(packed))
    out.push_back(planned_tensor(stored + tensor.suffix, tensor, tensor.suffix == ".weight", codes));
  return out;
}

}  // namespace nibble::write::bitsandbytes
