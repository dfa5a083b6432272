#include "model/sizes.h"

#include "base/checked.h"
#include "quant/format.h"
#include "quant/state.h"

namespace nibble::model {
int64_t nf4_bytes(int64_t out, int64_t in, DType dtype, float offset) {
  quant::Packed4 packed;
  packed.shape = {out, in};
  packed.dtype = dtype;
  packed.nested.emplace();
  packed.nested->offset = offset;
  return quant::packed_bytes(out * in, true, static_cast<int64_t>(quant::quant_state_json(packed).size()));
}

void set_dtype(records::LinearRecord& linear, DType dtype) {
  constexpr float kTypicalOffset = 0.05190518498420715f;
  linear.dtype = dtype;
  linear.bytes16 = linear.out * linear.in * dtype_size(dtype);
  linear.bytes4 = nf4_bytes(linear.out, linear.in, dtype, kTypicalOffset);
}

records::Inventory inventory_of(const Spec& spec, DType dtype, const std::string& model) {
  records::Inventory out;
  out.family = spec.family;
  out.model = model;
  for (const TensorSpec& tensor : tensor_table(spec)) {
    const int64_t count = checked_product(tensor.shape).value();
    out.parameters += count;
    if (!tensor.linear) {
      out.other_bytes += count * dtype_size(dtype);
      continue;
    }
    const Linear& l = *tensor.linear;
    records::LinearRecord record;
    record.name = l.name;
    record.group = l.group;
    record.tap = l.tap;
    record.part = tensor.part;
    record.role = l.role;
    record.depth = tensor.depth;
    record.fits8 = l.fits8;
    record.out = l.out;
    record.in = l.in;
    set_dtype(record, dtype);
    out.linears.push_back(std::move(record));
  }
  return out;
}

}  // namespace nibble::model
