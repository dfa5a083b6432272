#include "vision/exif.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/threads.h"

namespace nibble::vision {
namespace {

constexpr int kUpright = 1;
constexpr int kOrientationTag = 274;

/// Reads integers of either byte order; every call is bounds-checked.
class TiffReader {
 public:
  TiffReader(std::string_view data, bool big_endian) : data_(data), big_endian_(big_endian) {}

  /// The unsigned integer of `size` (1 to 8) bytes at `offset`, or nothing outside the data.
  std::optional<uint64_t> integer(int64_t offset, int size) const {
    if (!holds(offset, size)) return std::nullopt;
    uint64_t value = 0;
    for (int i = 0; i < size; ++i) {
      const int shift = 8 * (big_endian_ ? size - 1 - i : i);
      value |= static_cast<uint64_t>(static_cast<uint8_t>(data_[offset + i])) << shift;
    }
    return value;
  }

  bool holds(int64_t offset, int64_t size) const {
    const auto total = static_cast<int64_t>(data_.size());
    return offset >= 0 && size >= 0 && offset <= total && size <= total - offset;
  }

  int64_t size() const { return static_cast<int64_t>(data_.size()); }

 private:
  std::string_view data_;
  bool big_endian_;
};

/// Types of values in a TIFF directory.
enum TiffType {
  tiff_byte = 1,
  tiff_ascii,
  tiff_short,
  tiff_long,
  tiff_rational,
  tiff_signed_byte,
  tiff_undefined,
  tiff_signed_short,
  tiff_signed_long,
  tiff_signed_rational,
  tiff_float,
  tiff_double,
  tiff_directory,
  tiff_long8 = 16,
};

/// Bytes of one value of a TIFF type, 0 for a type that is not known.
int64_t type_size(int type) {
  constexpr std::array<int8_t, 17> kSizes{0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
  return type < static_cast<int>(kSizes.size()) ? kSizes[type] : 0;
}

/// The first value at `offset` as an orientation; upright when it is no number from 1 to 8.
int orientation_value(const TiffReader& reader, int type, int64_t offset) {
  const auto bits = reader.integer(offset, static_cast<int>(type_size(type)));
  double value = 0;
  switch (type) {
    case tiff_short:
    case tiff_long:
    case tiff_directory:
    case tiff_long8:
      value = static_cast<double>(*bits);
      break;
    case tiff_signed_byte:
      value = static_cast<int8_t>(*bits);
      break;
    case tiff_signed_short:
      value = static_cast<int16_t>(*bits);
      break;
    case tiff_signed_long:
      value = static_cast<int32_t>(*bits);
      break;
    case tiff_float:
      value = std::bit_cast<float>(static_cast<uint32_t>(*bits));
      break;
    case tiff_double:
      value = std::bit_cast<double>(*bits);
      break;
    case tiff_rational:
    case tiff_signed_rational: {
      auto numerator = static_cast<int64_t>(*reader.integer(offset, 4));
      auto denominator = static_cast<int64_t>(*reader.integer(offset + 4, 4));
      if (type == tiff_signed_rational) {
        numerator = static_cast<int32_t>(numerator);
        denominator = static_cast<int32_t>(denominator);
      }
      if (denominator == 0 || numerator % denominator != 0) return kUpright;
      value = static_cast<double>(numerator / denominator);
      break;
    }
    default:
      return kUpright;  // bytes and texts are no numbers
  }
  for (int known = 1; known <= 8; ++known) {
    if (value == known) return known;
  }
  return kUpright;
}

/// Walks the first directory as Pillow does: an unknown type or a value that cannot fit is passed over, the
/// first usable entry of a tag counts, and a value outside the data ends the directory.
std::optional<int> find_orientation(const TiffReader& reader, int64_t directory) {
  const auto count = reader.integer(directory, 2);
  if (!count) return std::nullopt;
  std::vector<bool> seen(65536);  // by tag
  int64_t outside = 0;            // bytes of all values that lie outside their entry
  for (uint64_t i = 0; i < *count; ++i) {
    const int64_t entry = directory + 2 + 12 * static_cast<int64_t>(i);
    if (!reader.holds(entry, 12)) return std::nullopt;
    const auto tag = static_cast<int>(*reader.integer(entry, 2));
    if (seen[tag]) continue;
    const auto type = static_cast<int>(*reader.integer(entry + 2, 2));
    const int64_t size = type_size(type) * static_cast<int64_t>(*reader.integer(entry + 4, 4));
    if (size == 0) continue;
    int64_t offset = entry + 8;
    if (size > 4) {
      outside += size;
      if (outside > reader.size()) continue;
      offset = static_cast<int64_t>(*reader.integer(entry + 8, 4));
      if (!reader.holds(offset, size)) return std::nullopt;
    }
    if (tag == kOrientationTag) return orientation_value(reader, type, offset);
    seen[tag] = true;
  }
  return std::nullopt;
}

/// tiff:Orientation="6" or <tiff:Orientation>6</...>: the digit after the first such place, or nothing.
std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at + 1)) {
    std::string_view rest = xmp.substr(at + kName.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with(">")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

}  // namespace

int orientation(const Metadata& metadata) {
  if (metadata.exif_malformed) return kUpright;
  std::string_view data = metadata.exif ? std::string_view(*metadata.exif) : std::string_view();
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  for (int i = 0; i < 2 && data.starts_with(kPrefix); ++i) data.remove_prefix(kPrefix.size());
  if (!data.empty()) {
    const std::string_view head = data.substr(0, 4);
    const bool big = head == std::string_view("MM\0*", 4) || head == std::string_view("MM*\0", 4);
    const bool little = head == std::string_view("II*\0", 4) || head == std::string_view("II\0*", 4);
    if (data.size() < 8 || !(big || little)) return kUpright;
    const TiffReader reader(data, big);
    const auto found = find_orientation(reader, static_cast<int64_t>(*reader.integer(4, 4)));
    if (found) return *found;
  }
  const int from_xmp = xmp_orientation(metadata.xmp).value_or(kUpright);
  return from_xmp >= 1 && from_xmp <= 8 ? from_xmp : kUpright;
}

Image apply_orientation(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  // Each orientation is an optional exchange of rows and columns, then mirroring of the target's axes.
  const bool exchange = orientation >= 5;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  Image target;
  target.width = exchange ? image.height : image.width;
  target.height = exchange ? image.width : image.height;
  target.rgb.resize(image.rgb.size());
  constexpr int64_t kRows = 32;
  parallel_ranges(target.height, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const int64_t v = mirror_y ? target.height - 1 - y : y;
      uint8_t* out = target.rgb.data() + y * target.width * 3;
      for (int64_t x = 0; x < target.width; ++x, out += 3) {
        const int64_t u = mirror_x ? target.width - 1 - x : x;
        const int64_t source = exchange ? u * image.width + v : v * image.width + u;
        std::memcpy(out, image.rgb.data() + source * 3, 3);
      }
    }
  });
  return target;
}

}  // namespace nibble::vision
