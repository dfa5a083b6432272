// PNG, JPEG and WebP. Input: the picture's bytes.
#include "fuzz/fuzz.h"
#include "vision/image.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kMostPixels = 1 << 18;
  fuzz::accepts([&] {
    const vision::Image image =
        vision::decode_image(fuzz::text_of(data, size), "picture", /*orient=*/true, kMostPixels);
    NIBBLE_CHECK(image.width * image.height <= kMostPixels);
    NIBBLE_CHECK(std::ssize(image.rgb) == image.width * image.height * 3);
  });
  return 0;
}
