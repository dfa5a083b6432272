#include "vision/png_chunks.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace nibble::vision {
namespace {

constexpr int64_t kSignatureBytes = 8;
constexpr size_t kMaxText = 1 << 20;         // Pillow's MAX_TEXT_CHUNK: bytes of one unpacked text
constexpr size_t kMaxTexts = 64 * kMaxText;  // and of all of them
constexpr std::string_view kXmpKey = "XML:com.adobe.xmp", kRawExifKey = "Raw profile type exif";

uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

/// Cuts `text` at the first NUL: returns what stands before it and leaves what follows. Nothing without a
/// NUL.
std::optional<std::string_view> cut_at_nul(std::string_view& text) {
  const size_t at = text.find('\0');
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view head = text.substr(0, at);
  text.remove_prefix(at + 1);
  return head;
}

/// Inflates a zlib stream, which may be cut short. Nothing for a damaged stream and beyond kMaxText.
std::optional<std::string> inflate_text(std::string_view packed) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  std::string text(kMaxText, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  const int status = inflate(&stream, Z_SYNC_FLUSH);
  const bool whole =
      status == Z_STREAM_END || (stream.avail_in == 0 && (status == Z_OK || status == Z_BUF_ERROR));
  text.resize(stream.total_out);
  inflateEnd(&stream);
  if (!whole) return std::nullopt;
  return text;
}

/// The bytes of an ImageMagick "raw profile": three lines of heading, then hex digits. Nothing for other
/// text.
std::optional<std::string> decode_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return std::string();
    text.remove_prefix(end + 1);
  }
  std::string digits, bytes;
  for (const char c : text) {
    if (!std::isspace(static_cast<unsigned char>(c))) digits.push_back(c);
  }
  if (digits.size() % 2 != 0 ||
      !std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isxdigit(c) != 0; })) {
    return std::nullopt;
  }
  for (size_t i = 0; i < digits.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

/// Collects what the file says of its orientation; later chunks of a kind replace earlier ones.
class MetadataReader {
 public:
  void read(std::string_view name, std::string_view data) {
    if (name == "eXIf") {
      exif_ = std::string("Exif\0\0", 6).append(data);
    } else if (name == "tEXt") {
      read_text(data);
    } else if (name == "zTXt") {
      read_packed_text(data);
    } else if (name == "iTXt") {
      read_international_text(data);
    }
  }

  Metadata finish() const {
    Metadata metadata;
    metadata.xmp = xmp_;
    metadata.exif = exif_;
    if (!exif_ && raw_exif_) {
      metadata.exif = decode_raw_profile(*raw_exif_);
      metadata.exif_malformed = !metadata.exif;
    }
    return metadata;
  }

 private:
  static bool wanted(std::string_view key) { return key == kRawExifKey || key == kXmpKey; }

  void keep(std::string_view key, std::string_view text) {
    if (key == kRawExifKey) raw_exif_ = text;
    if (key == kXmpKey) xmp_ = text;
  }

  /// Nothing, too, once the file has asked for too much.
  std::optional<std::string> unpack(std::string_view packed) {
    if (unpacked_ > kMaxTexts) return std::nullopt;
    std::optional<std::string> text = inflate_text(packed);
    unpacked_ += text ? text->size() : kMaxText;
    return text;
  }

  void read_text(std::string_view data) {
    const auto key = cut_at_nul(data);
    if (!key) return;
    keep(*key, data);
    if (*key == "exif") exif_ = data;
  }

  void read_packed_text(std::string_view data) {
    const auto key = cut_at_nul(data);
    if (!key || !wanted(*key) || data.empty() || data[0] != 0) return;
    keep(*key, unpack(data.substr(1)).value_or(""));
  }

  /// Keyword, compression flag and method, language, translated keyword, text.
  void read_international_text(std::string_view data) {
    const auto key = cut_at_nul(data);
    if (!key || !wanted(*key) || data.size() < 2) return;
    const bool packed = data[0] != 0, known_method = data[1] == 0;
    data.remove_prefix(2);
    if (!cut_at_nul(data) || !cut_at_nul(data)) return;
    if (!packed) {
      keep(*key, data);
    } else if (known_method) {
      if (const auto text = unpack(data)) keep(*key, *text);
    }
  }

  std::optional<std::string> exif_, raw_exif_;
  std::string xmp_;
  size_t unpacked_ = 0;  // bytes of all texts: the work that a file has asked for
};

class ChunkWalker {
 public:
  ChunkWalker(std::string_view bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  PngChunks walk() {
    int64_t at = kSignatureBytes;
    while (!read_chunk(at)) {
    }
    if (chunks_.data.empty()) fail("{}: damaged PNG, it has no image data", what_);
    chunks_.metadata = metadata_.finish();
    return std::move(chunks_);
  }

 private:
  /// Reads the chunk at `at` and moves on; true when it was the last.
  bool read_chunk(int64_t& at) {
    const auto total = static_cast<int64_t>(bytes_.size());
    const bool before_data = chunks_.data.empty();
    if (total - at < 8) {
      if (before_data) fail("{}: truncated PNG, it ends before the image data", what_);
      return true;
    }
    const int64_t length = read_u32(bytes_, at);
    const std::string_view name = bytes_.substr(at + 4, 4);
    if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '_'; })) {
      if (before_data) fail("{}: damaged PNG, no chunk name at byte {}", what_, at + 4);
      return true;
    }
    const int64_t start = at + 8, available = std::min(length, total - start);
    const std::string_view data = bytes_.substr(start, available);
    at = start + length + 4;
    if (name == "IEND") return true;
    if (name == "IDAT" && (before_data || in_data_)) {
      // Cut data is no error here: the rows may be complete, which the decoder finds out.
      check_header();
      in_data_ = true;
      chunks_.data.push_back(data);
      chunks_.data_cut = available < length;
      return at > total;
    }
    in_data_ = false;
    if (name == "fcTL" && !before_data && is_animated()) return true;  // the next frame
    if (available < length) fail("{}: truncated PNG, chunk {} is cut", what_, name);
    if (before_data) check_sum(name, data, start + length);
    handle(name, data, before_data);
    return false;
  }

  /// Reads the contents of any chunk but the image data.
  void handle(std::string_view name, std::string_view data, bool before_data) {
    if (before_data && name == "IHDR") {
      read_header(data);
    } else if (before_data && name == "PLTE") {
      read_palette(data);
    } else if (before_data && name == "acTL") {
      frames_ = frames_ == 0 && data.size() >= 8 ? read_u32(data, 0) : 0;
    } else if (before_data && name == "fcTL") {
      check_frame(data);
      data_is_frame_ = true;
    } else {
      metadata_.read(name, data);
    }
  }

  bool is_animated() const { return frames_ > 1 || (frames_ == 1 && !data_is_frame_); }

  void check_sum(std::string_view name, std::string_view data, int64_t at) const {
    if (static_cast<int64_t>(bytes_.size()) - at < 4) fail("{}: truncated PNG, chunk {} is cut", what_, name);
    uLong sum = crc32_z(0, reinterpret_cast<const Bytef*>(name.data()), name.size());
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(data.data()), data.size());
    if (sum != read_u32(bytes_, at)) fail("{}: damaged PNG, chunk {} has a wrong checksum", what_, name);
  }

  void read_header(std::string_view data) {
    if (data.size() < 13) fail("{}: damaged PNG, its header has {} bytes", what_, data.size());
    chunks_.width = read_u32(data, 0);
    chunks_.height = read_u32(data, 4);
    chunks_.bit_depth = static_cast<uint8_t>(data[8]);
    chunks_.color_type = static_cast<uint8_t>(data[9]);
    if (data[11] != 0)
      fail("{}: damaged PNG, unknown filter method {}", what_, static_cast<uint8_t>(data[11]));
    chunks_.interlaced = data[12] != 0;
  }

  void check_header() const {
    const int depth = chunks_.bit_depth, color = chunks_.color_type;
    const bool packed = depth == 1 || depth == 2 || depth == 4;
    const bool known = (packed && (color == 0 || color == 3)) ||
                       (depth == 8 && (color == 0 || color == 2 || color == 3 || color == 4 || color == 6)) ||
                       (depth == 16 && (color == 0 || color == 2 || color == 4 || color == 6));
    if (!known) fail("{}: damaged PNG, depth {} with colour type {}", what_, depth, color);
  }

  void read_palette(std::string_view data) {
    if (chunks_.color_type != 3) return;  // a suggestion only
    if (data.size() / 3 > 256) fail("{}: damaged PNG, palette of {} bytes", what_, data.size());
    chunks_.palette = {};
    for (size_t i = 0; i < data.size() / 3; ++i)
      std::memcpy(chunks_.palette[i].data(), data.data() + 3 * i, 3);
  }

  /// The image data of an animation's first frame must cover the picture.
  void check_frame(std::string_view data) const {
    if (data.size() < 26) fail("{}: damaged PNG, chunk fcTL has {} bytes", what_, data.size());
    if (read_u32(data, 4) != chunks_.width || read_u32(data, 8) != chunks_.height ||
        read_u32(data, 12) != 0 || read_u32(data, 16) != 0) {
      fail("{}: damaged PNG, its first animation frame does not cover the picture", what_);
    }
  }

  std::string_view bytes_, what_;
  PngChunks chunks_;
  MetadataReader metadata_;
  bool in_data_ = false, data_is_frame_ = false;
  uint32_t frames_ = 0;  // of an animation
};

}  // namespace

PngChunks read_png_chunks(std::string_view bytes, std::string_view what) {
  return ChunkWalker(bytes, what).walk();
}

}  // namespace nibble::vision
