#include "measure/sizes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "quant/pieces.h"

namespace nibble::measure {
namespace {

float offset_of(const io::Checkpoint& checkpoint, const std::string& weight) {
  const DType dtype = checkpoint.tensors().at(weight).dtype;
  const io::TensorBytes bytes = checkpoint.bytes(weight);
  const int64_t piece = quant::kPiece * dtype_size(dtype);
  quant::PieceOffset offset(bytes.size() / dtype_size(dtype));
  parallel_for(offset.pieces(), [&](int64_t i) {
    thread_local std::vector<std::byte> buffer;
    buffer.resize(static_cast<size_t>(std::min(piece, bytes.size() - i * piece)));
    bytes.read(i * piece, buffer);
    offset.add(i, dtype, buffer.data());
  });
  return offset.offset();
}

}  // namespace

void exact_sizes(const model::Binding& binding, records::Inventory& inventory,
                 const std::set<std::string>& names, bool allow_nonfinite) {
  const auto linears = model::linears(binding.spec());
  NIBBLE_CHECK(linears.size() == inventory.linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    records::LinearRecord& record = inventory.linears[i];
    if (!names.contains(record.name)) continue;
    const model::BoundLinear& bound = binding.linear(*linears[i]);
    NIBBLE_CHECK(bound.storage == model::Storage::plain, "{} is quantized", record.name);
    const float offset = offset_of(binding.checkpoint(), bound.stored + ".weight");
    if (!std::isfinite(offset) && !allow_nonfinite) binding.check_finite(bound.stored + ".weight");
    record.bytes4 =
        std::isfinite(offset) ? model::nf4_bytes(record.out, record.in, bound.dtype, offset) : record.bytes16;
  }
}

void exact_sizes(const model::Binding& binding, records::Inventory& inventory, bool allow_nonfinite) {
  std::set<std::string> names;
  for (const auto& linear : inventory.linears) names.insert(linear.name);
  exact_sizes(binding, inventory, names, allow_nonfinite);
}

}  // namespace nibble::measure
