// PNG through libpng's progressive reader: chunks are walked here (png_chunks.h), pixels come from libpng.
#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "vision/decode.h"
#include "vision/png_chunks.h"

namespace nibble::vision {
namespace {

constexpr int64_t kRowsPerTask = 64;
constexpr int64_t kMaxDeflateRatio = 1032;  // no deflate stream unpacks to more than this many times its size
constexpr size_t kFeedBytes = size_t{1} << 20;  // image data given to libpng at once, as one chunk

/// One pass of libpng over the image data. Trivial members only: longjmp may leave any callback.
struct PngPass {
  png_structp png = nullptr;
  png_infop info = nullptr;
  uint8_t* rows = nullptr;  // unpacked pixels, `row_bytes` apart
  size_t row_bytes = 0;
  uint32_t height = 0;
  bool interlaced = false, keep_16 = false;
  bool complete = false;
  std::array<char, 200> message{};
};

PngPass& pass_of(png_structp png) {
  return *static_cast<PngPass*>(png_get_progressive_ptr(png));
}

void on_error(png_structp png, png_const_charp message) {
  auto& pass = *static_cast<PngPass*>(png_get_error_ptr(png));
  std::strncpy(pass.message.data(), message, pass.message.size() - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_info(png_structp png, png_infop info) {
  const PngPass& pass = pass_of(png);
  png_set_packing(png);
  png_set_strip_alpha(png);
  if (!pass.keep_16) png_set_strip_16(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != pass.row_bytes) png_error(png, "unexpected length of rows");
}

void on_row(png_structp png, png_bytep row, png_uint_32 y, int number) {
  PngPass& pass = pass_of(png);
  if (row != nullptr) png_progressive_combine_row(png, pass.rows + y * pass.row_bytes, row);
  constexpr int kLastPass = 6;
  if (y + 1 == pass.height && (!pass.interlaced || number == kLastPass)) pass.complete = true;
}

/// Gives bytes to libpng; false when it found an error, which is then in `message`.
bool feed(PngPass& pass, const uint8_t* bytes, size_t count) {
  if (setjmp(png_jmpbuf(pass.png)) != 0) return false;
  png_process_data(pass.png, pass.info, const_cast<png_bytep>(bytes), count);
  return true;
}

/// Creates libpng's structs and gives them back at the end.
class PngReader {
 public:
  explicit PngReader(PngPass& pass) : pass_(pass) {
    pass.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &pass, on_error, on_warning);
    if (pass.png != nullptr) pass.info = png_create_info_struct(pass.png);
    if (pass.info == nullptr) {
      png_destroy_read_struct(&pass.png, nullptr, nullptr);
      throw std::bad_alloc();
    }
    png_set_progressive_read_fn(pass.png, &pass, on_info, on_row, nullptr);
    png_set_user_limits(pass.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_crc_action(pass.png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);  // chunks are rebuilt without sums
    png_set_benign_errors(pass.png, 1);
    png_set_option(pass.png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);  // as zlib alone would read it
  }
  ~PngReader() { png_destroy_read_struct(&pass_.png, &pass_.info, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

 private:
  PngPass& pass_;
};

void put_u32(std::string& out, size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

/// Signature, header and, for libpng's sake, a black palette: what precedes the image data.
std::string stream_head(const PngChunks& chunks) {
  std::string head("\x89PNG\r\n\x1a\n");
  put_u32(head, 13);
  head += "IHDR";
  put_u32(head, static_cast<size_t>(chunks.width));
  put_u32(head, static_cast<size_t>(chunks.height));
  head.push_back(static_cast<char>(chunks.bit_depth));
  head.push_back(static_cast<char>(chunks.color_type));
  head.append(2, '\0');
  head.push_back(chunks.interlaced ? 1 : 0);
  put_u32(head, 0);
  if (chunks.color_type == PNG_COLOR_TYPE_PALETTE) {
    const size_t palette_bytes = size_t{3} << chunks.bit_depth;
    put_u32(head, palette_bytes);
    head += "PLTE";
    head.append(palette_bytes + 4, '\0');
  }
  return head;
}

/// Unpacks the image data into rows of `pass`.
void run_pass(PngPass& pass, const PngChunks& chunks, std::string_view what) {
  const PngReader reader(pass);
  const auto give = [&](std::string_view bytes) {
    if (!feed(pass, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())) {
      if (!pass.complete) fail("{}: damaged PNG, {}", what, pass.message.data());
    }
  };
  give(stream_head(chunks));
  for (size_t i = 0; i < chunks.data.size(); ++i) {
    std::string_view data = chunks.data[i];
    // Like Pillow, forgive the cut of a chunk whose rows are all there, but not of one that nobody needs.
    if (pass.complete && chunks.data_cut && i + 1 == chunks.data.size()) fail("{}: truncated PNG", what);
    while (!data.empty() && !pass.complete) {
      const std::string_view part = data.substr(0, kFeedBytes);
      std::string chunk_head;
      put_u32(chunk_head, part.size());
      chunk_head += "IDAT";
      give(chunk_head);
      give(part);
      if (!pass.complete) give(std::string_view("\0\0\0\0", 4));
      data.remove_prefix(part.size());
    }
  }
  if (!pass.complete) fail("{}: truncated PNG, rows are missing", what);
}

/// The 256 colours of one-byte pixels: the palette, or steps of grey from black to white.
std::array<std::array<uint8_t, 3>, 256> colors_of(const PngChunks& chunks) {
  if (chunks.color_type == PNG_COLOR_TYPE_PALETTE) return chunks.palette;
  std::array<std::array<uint8_t, 3>, 256> colors{};
  const int last = (1 << std::min(chunks.bit_depth, 8)) - 1;
  for (int i = 0; i <= last; ++i) colors[i].fill(static_cast<uint8_t>(i * 255 / last));
  return colors;
}

/// Rows of one-byte pixels, or of 16-bit greys which Pillow clips to 255, spread to RGB.
void spread(const std::vector<uint8_t>& rows, bool grey_16, const PngChunks& chunks, Image& image) {
  const auto colors = colors_of(chunks);
  image.rgb.resize(static_cast<size_t>(image.width * image.height * 3));
  parallel_ranges(image.height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    uint8_t* out = image.rgb.data() + begin * image.width * 3;
    for (int64_t i = begin * image.width; i < end * image.width; ++i, out += 3) {
      if (grey_16) {
        std::memset(out, rows[2 * i] == 0 ? rows[2 * i + 1] : 255, 3);
      } else {
        std::memcpy(out, colors[rows[i]].data(), 3);
      }
    }
  });
}

}  // namespace

Decoded decode_png(std::string_view bytes, std::string_view what, int64_t max_pixels) {
  PngChunks chunks = read_png_chunks(bytes, what);
  check_picture_size(chunks.width, chunks.height, max_pixels, what);
  const bool has_color = (chunks.color_type & PNG_COLOR_MASK_COLOR) != 0;
  const bool rgb = has_color && chunks.color_type != PNG_COLOR_TYPE_PALETTE;
  const bool grey_16 = chunks.color_type == PNG_COLOR_TYPE_GRAY && chunks.bit_depth == 16;

  PngPass pass;
  pass.row_bytes = static_cast<size_t>(chunks.width) * (rgb ? 3 : grey_16 ? 2 : 1);
  pass.height = static_cast<uint32_t>(chunks.height);
  pass.interlaced = chunks.interlaced;
  pass.keep_16 = grey_16;
  int64_t packed_bytes = 0;
  for (const std::string_view data : chunks.data) packed_bytes += static_cast<int64_t>(data.size());
  const int64_t least_bytes = chunks.height * ((chunks.width * chunks.bit_depth + 7) / 8);
  if (least_bytes / kMaxDeflateRatio > packed_bytes) fail("{}: truncated PNG, rows are missing", what);
  std::vector<uint8_t> rows(pass.row_bytes * pass.height);
  pass.rows = rows.data();
  run_pass(pass, chunks, what);

  Decoded decoded;
  decoded.metadata = std::move(chunks.metadata);
  decoded.image.width = chunks.width;
  decoded.image.height = chunks.height;
  if (rgb) {
    decoded.image.rgb = std::move(rows);
  } else {
    spread(rows, grey_16, chunks, decoded.image);
  }
  return decoded;
}

}  // namespace nibble::vision
