#include "write/layouts/bitsandbytes.h"

#include "quant/format.h"
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

std::vector<io::TensorPlan> tensors4(const std::string& stored, const Shape& shape, int64_t state_bytes) {
  const int64_t count = TensorView{DType::bf16, shape, nullptr}.count();
  const int64_t blocks = quant::block_count(count, quant::kBlock);
  const std::string weight = stored + ".weight";
  return {
      {weight, DType::u8, {count / 2 + count % 2, 1}},
      {weight + ".absmax", DType::u8, {blocks}},
      {weight + ".quant_map", DType::f32, {16}},
      {weight + ".nested_absmax", DType::f32, {quant::block_count(blocks, quant::kNestedBlock)}},
      {weight + ".nested_quant_map", DType::f32, {256}},
      {weight + ".quant_state.bitsandbytes__nf4", DType::u8, {state_bytes}},
  };
}

int64_t likely_state_bytes(const Shape& shape, DType dtype) {
  quant::Packed4 packed;
  packed.shape = shape;
  packed.dtype = dtype;
  packed.nested.emplace().offset = 0.05190518498420715f;  // 17 digits, as most have
  return std::ssize(quant::quant_state_json(packed));
}

std::vector<io::TensorPlan> tensors8(const std::string& stored, const Shape& shape) {
  return {
      {stored + ".weight", DType::i8, shape},
      {stored + ".SCB", DType::f32, {shape.at(0)}},
      {stored + ".weight_format", DType::u8, {}},
  };
}

}  // namespace nibble::write::bitsandbytes
