// WebP through libwebp's animation decoder, which Pillow uses for still pictures too.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "base/error.h"
#include "base/threads.h"
#include "vision/decode.h"

namespace nibble::vision {
namespace {

constexpr int64_t kRowsPerTask = 64;

struct DeleteDemuxer {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};
struct DeleteDecoder {
  void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

/// The contents of the first chunk of this name; empty without one.
std::string_view find_chunk(const WebPDemuxer* demuxer, const char* name) {
  WebPChunkIterator chunk;
  std::string_view data;
  if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) != 0) {
    data = {reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size};
  }
  WebPDemuxReleaseChunkIterator(&chunk);
  return data;  // lies in the file's bytes
}

}  // namespace

Decoded decode_webp(std::string_view bytes, std::string_view what, int64_t max_pixels) {
  const WebPData data{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  const std::unique_ptr<WebPDemuxer, DeleteDemuxer> demuxer(WebPDemux(&data));
  if (!demuxer) fail("{}: damaged or truncated WebP", what);
  Decoded decoded;
  Image& image = decoded.image;
  image.width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  image.height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  check_picture_size(image.width, image.height, max_pixels, what);
  if (const std::string_view exif = find_chunk(demuxer.get(), "EXIF"); !exif.empty())
    decoded.metadata.exif = exif;
  decoded.metadata.xmp = find_chunk(demuxer.get(), "XMP ");

  const std::unique_ptr<WebPAnimDecoder, DeleteDecoder> decoder(WebPAnimDecoderNew(&data, nullptr));
  uint8_t* rgba = nullptr;  // (height, width, 4), of the decoder
  int timestamp = 0;
  if (!decoder || WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp) == 0) {
    fail("{}: damaged or truncated WebP", what);
  }
  image.rgb.resize(static_cast<size_t>(image.width * image.height * 3));
  parallel_ranges(image.height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const uint8_t* in = rgba + begin * image.width * 4;
    uint8_t* out = image.rgb.data() + begin * image.width * 3;
    for (int64_t i = begin * image.width; i < end * image.width; ++i, in += 4, out += 3) {
      out[0] = in[0];
      out[1] = in[1];
      out[2] = in[2];
    }
  });
  return decoded;
}

}  // namespace nibble::vision
