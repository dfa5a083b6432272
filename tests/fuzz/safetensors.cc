// The header of a safetensors file. Input: two bytes, which count the bytes of tensor data, and the header.
#include "io/safetensors.h"

#include <numeric>

#include "fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile memory;
  std::string_view header = fuzz::text_of(data, size);
  const size_t low = fuzz::take_byte(header), count = low | size_t{fuzz::take_byte(header)} << 8;
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  bytes += header;
  bytes.append(count, '\1');
  memory.set(bytes);
  fuzz::accepts([&] {
    const io::SafetensorsFile file(memory.path());
    int64_t sum = 0;
    for (const auto& [name, info] : file.tensors()) {
      const TensorView view = file.tensor(name);
      NIBBLE_CHECK(view.bytes() == info.end - info.begin);
      const auto* begin = view.as<uint8_t>();
      sum += std::accumulate(begin, begin + view.bytes(), int64_t{0});
    }
    NIBBLE_CHECK(sum == static_cast<int64_t>(count));  // every byte belongs to one tensor
  });
  return 0;
}
