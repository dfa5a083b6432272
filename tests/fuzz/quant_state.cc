// The quant_state of a 4-bit weight, and its tensors. Input: the JSON, a NUL byte, and the bytes that the
// other tensors are filled with; the first of them says which tensor has another size than the state asks
// for.
#include <map>
#include <vector>

#include "base/checked.h"
#include "fuzz/fuzz.h"
#include "quant/state.h"

using namespace nibble;

namespace {

constexpr int64_t kMostValues = 1 << 16;

/// Tensors that are filled with the same bytes over and over.
class Tensors {
 public:
  Tensors(std::string_view bytes) : bytes_(bytes) {}

  void add(const std::string& suffix, DType dtype, int64_t count) {
    std::string& data = data_[suffix];
    for (int64_t i = 0; i < count * dtype_size(dtype); ++i)
      data += bytes_.empty() ? '\1' : bytes_[static_cast<size_t>(i) % bytes_.size()];
    put(suffix, dtype, {count});
  }

  void add_text(const std::string& suffix, std::string_view text) {
    data_[suffix] = text;
    put(suffix, DType::u8, {std::ssize(text)});
  }

  std::optional<TensorView> find(const std::string& suffix) const {
    const auto it = views_.find(suffix);
    if (it == views_.end()) return std::nullopt;
    return it->second;
  }

 private:
  void put(const std::string& suffix, DType dtype, Shape shape) {
    views_[suffix] = {dtype, std::move(shape), reinterpret_cast<const std::byte*>(data_.at(suffix).data())};
  }

  std::string_view bytes_;
  std::map<std::string, std::string> data_;
  std::map<std::string, TensorView> views_;
};

void read(std::string_view json, std::string_view rest) {
  const quant::QuantState state = quant::parse_quant_state(json, "weight");
  const int64_t count = checked_product(state.shape).value();
  if (count > kMostValues) return;
  const uint8_t wrong = fuzz::take_byte(rest);
  const auto size = [&](int64_t right, int bit) { return right + (wrong >> bit & 1); };
  const int64_t blocks = quant::block_count(count, state.block);
  Tensors tensors(rest);
  tensors.add("", DType::u8, size(count / 2 + count % 2, 0));
  tensors.add(".quant_map", DType::f32, size(16, 1));
  tensors.add(".absmax", state.nested ? DType::u8 : DType::f32, size(blocks, 2));
  if (state.nested) {
    tensors.add(".nested_absmax", DType::f32, size(quant::block_count(blocks, state.nested->block), 3));
    tensors.add(".nested_quant_map", DType::f32, size(256, 4));
  }
  tensors.add_text(".quant_state.bitsandbytes__" + std::string(quant::format_name(state.format)), json);
  const quant::Packed4 packed =
      quant::from_tensors([&](const std::string& suffix) { return tensors.find(suffix); }, "weight");
  NIBBLE_CHECK(quant::decode4(packed).view().shape == state.shape);
  NIBBLE_CHECK(quant::parse_quant_state(quant::quant_state_json(packed), "again").shape == state.shape);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view json = fuzz::take_text(rest);
  fuzz::accepts([&] { read(json, rest); });
  return 0;
}
