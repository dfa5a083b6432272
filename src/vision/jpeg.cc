// JPEG through libjpeg-turbo with the settings that Pillow uses: accurate integer DCT, fancy upsampling.
// jpeglib.h needs the types of cstddef and cstdio before it.
// clang-format off
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>
// clang-format on

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "vision/decode.h"

namespace nibble::vision {
namespace {

constexpr int kMaxScans = 100;  // encoders write about ten; each costs a pass over the whole picture
constexpr int kExifMarker = JPEG_APP0 + 1;

/// The decompressor with its error and source managers. Trivial members only: longjmp may leave any callback.
struct JpegState {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_source_mgr source{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  std::array<char, JMSG_LENGTH_MAX> message{};
};

JpegState& state_of(j_common_ptr info) {
  return *static_cast<JpegState*>(info->client_data);
}

void on_error(j_common_ptr info) {
  JpegState& state = state_of(info);
  info->err->format_message(info, state.message.data());
  std::longjmp(state.jump, 1);
}

void on_message(j_common_ptr) {}
void on_trace(j_common_ptr, int) {}

/// Called once per block row; a file of thousands of empty scans would take hours.
void on_progress(j_common_ptr info) {
  const auto decompress = reinterpret_cast<j_decompress_ptr>(info);
  if (decompress->input_scan_number <= kMaxScans) return;
  JpegState& state = state_of(info);
  std::snprintf(state.message.data(), state.message.size(), "more than %d scans", kMaxScans);
  std::longjmp(state.jump, 1);
}

void on_source(j_decompress_ptr) {}

/// All bytes were there from the start: more is never to come, so reading suspends for good.
boolean on_fill(j_decompress_ptr) {
  return FALSE;
}

void on_skip(j_decompress_ptr info, long count) {
  const size_t skipped = std::min(static_cast<size_t>(std::max(count, 0L)), info->src->bytes_in_buffer);
  info->src->next_input_byte += skipped;
  info->src->bytes_in_buffer -= skipped;
}

/// What a step of the decoder came to.
enum class Step { done, truncated, broken };

/// Reads up to the first scan and chooses the output colours; `broken` leaves a text in `message`.
Step read_header(JpegState& state) {
  if (setjmp(state.jump) != 0) return Step::broken;
  jpeg_save_markers(&state.info, kExifMarker, 0xffff);
  int status = JPEG_HEADER_TABLES_ONLY;
  while (status == JPEG_HEADER_TABLES_ONLY) status = jpeg_read_header(&state.info, FALSE);
  return status == JPEG_SUSPENDED ? Step::truncated : Step::done;
}

Step start(JpegState& state) {
  if (setjmp(state.jump) != 0) return Step::broken;
  return jpeg_start_decompress(&state.info) ? Step::done : Step::truncated;
}

/// Reads `count` further rows to `target`.
Step read_rows(JpegState& state, uint8_t* target, int64_t row_bytes, int64_t count) {
  if (setjmp(state.jump) != 0) return Step::broken;
  for (int64_t i = 0; i < count; ++i) {
    JSAMPROW row = target + i * row_bytes;
    if (jpeg_read_scanlines(&state.info, &row, 1) != 1) return Step::truncated;
  }
  return Step::done;
}

/// Reads on to the end marker. A missing one is no error once all rows are there, as in Pillow.
Step finish(JpegState& state) {
  if (setjmp(state.jump) != 0) return Step::broken;
  jpeg_finish_decompress(&state.info);
  return Step::done;
}

class JpegReader {
 public:
  JpegReader(std::string_view bytes, std::string_view what) : what_(what) {
    jpeg_decompress_struct& info = state_.info;
    info.err = jpeg_std_error(&state_.errors);
    info.client_data = &state_;
    state_.errors.error_exit = on_error;
    state_.errors.output_message = on_message;
    state_.errors.emit_message = on_trace;
    if (!create()) fail("{}: cannot start the JPEG decoder: {}", what_, state_.message.data());
    state_.source.init_source = on_source;
    state_.source.fill_input_buffer = on_fill;
    state_.source.skip_input_data = on_skip;
    state_.source.resync_to_restart = jpeg_resync_to_restart;
    state_.source.term_source = on_source;
    state_.source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
    state_.source.bytes_in_buffer = bytes.size();
    info.src = &state_.source;
    state_.progress.progress_monitor = on_progress;
    info.progress = &state_.progress;
  }
  ~JpegReader() { jpeg_destroy_decompress(&state_.info); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  JpegState& state() { return state_; }

  /// Throws Error unless the step went well.
  void check(Step step) const {
    if (step == Step::truncated) fail("{}: truncated JPEG", what_);
    if (step == Step::broken) fail("{}: damaged JPEG, {}", what_, state_.message.data());
  }

 private:
  bool create() {
    if (setjmp(state_.jump) != 0) return false;
    jpeg_create_decompress(&state_.info);
    return true;
  }

  std::string_view what_;
  JpegState state_;
};

/// Joins the EXIF blocks and takes the last XMP block, as Pillow does.
Metadata read_metadata(const jpeg_decompress_struct& info) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  Metadata metadata;
  for (jpeg_saved_marker_ptr marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker != kExifMarker) continue;
    if (data.starts_with(kExif)) {
      if (metadata.exif) {
        metadata.exif->append(data.substr(kExif.size()));
      } else {
        metadata.exif = data;
      }
    } else if (data.starts_with(kXmp)) {
      metadata.xmp = data.substr(kXmp.size());
    }
  }
  return metadata;
}

/// a * b / 255, rounded.
int multiply_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/// Decoded rows of one grey byte or of four inverted CMYK bytes a pixel to RGB, by Pillow's formulas. Pillow
/// takes every four-channel JPEG for inverted, as Adobe writes it.
void convert_rows(const uint8_t* in, int channels, int64_t pixels, uint8_t* out) {
  for (int64_t i = 0; i < pixels; ++i, in += channels, out += 3) {
    if (channels == 1) {
      std::memset(out, in[0], 3);
      continue;
    }
    const int white = in[3];  // 255 - black
    for (int c = 0; c < 3; ++c)
      out[c] = static_cast<uint8_t>(std::max(0, white - multiply_255(255 - in[c], white)));
  }
}

}  // namespace

Decoded decode_jpeg(std::string_view bytes, std::string_view what, int64_t max_pixels) {
  JpegReader reader(bytes, what);
  JpegState& state = reader.state();
  jpeg_decompress_struct& info = state.info;
  reader.check(read_header(state));
  Decoded decoded;
  decoded.metadata = read_metadata(info);
  const int channels = info.num_components;
  if (channels != 1 && channels != 3 && channels != 4) fail("{}: JPEG of {} channels", what, channels);
  check_picture_size(info.image_width, info.image_height, max_pixels, what);
  info.out_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  reader.check(start(state));

  Image& image = decoded.image;
  image.width = info.output_width;
  image.height = info.output_height;
  // Memory grows with the rows that are really there, not with what the header claims.
  constexpr int64_t kBandRows = 256;
  std::vector<uint8_t> band;
  for (int64_t y = 0; y < image.height; y += kBandRows) {
    const int64_t rows = std::min(kBandRows, image.height - y), pixels = rows * image.width;
    image.rgb.resize(static_cast<size_t>((y + rows) * image.width * 3));
    uint8_t* target = image.rgb.data() + y * image.width * 3;
    if (channels == 3) {
      reader.check(read_rows(state, target, image.width * 3, rows));
      continue;
    }
    band.resize(static_cast<size_t>(pixels * channels));
    reader.check(read_rows(state, band.data(), image.width * channels, rows));
    convert_rows(band.data(), channels, pixels, target);
  }
  reader.check(finish(state));
  return decoded;
}

}  // namespace nibble::vision
