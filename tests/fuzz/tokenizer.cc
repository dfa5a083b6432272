// tokenizer.json with a text to encode. Input: tokenizer.json, a NUL byte, the text.
#include "text/tokenizer.h"

#include "fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view json = fuzz::take_text(rest);
  fuzz::accepts([&] {
    const text::Tokenizer tokenizer(io::parse_json(json, "tokenizer.json"), "tokenizer.json");
    const std::vector<int64_t> plain = tokenizer.encode(rest, false);
    for (const int64_t id : plain) {
      NIBBLE_CHECK(id < tokenizer.size() && tokenizer.token_of(id), "id {}", id);
      NIBBLE_CHECK(tokenizer.byte_count(id) >= 0);
    }
    tokenizer.decode(plain, true);
    tokenizer.decode(tokenizer.encode(rest, true), false);
  });
  return 0;
}
