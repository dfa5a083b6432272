// samples.jsonl. Input: its bytes.
#include "data/samples.h"

#include "fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile memory;
  memory.set(fuzz::text_of(data, size));
  fuzz::accepts([&] {
    const std::vector<std::string> files = {memory.path().string()};
    NIBBLE_CHECK(!data::read_samples(files).empty());
  });
  return 0;
}
