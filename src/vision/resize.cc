// Two-pass resampling with the numbers of Pillow 13's libImaging/Resample.c. Bytes lie between the passes, so
// their order shows in the result: columns first, unless the height shrinks by more than twice the pixels of
// the width.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/threads.h"
#include "vision/image.h"

namespace nibble::vision {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // fixed-point bits of a coefficient
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);
constexpr int64_t kRowsPerTask = 16;

/// A filter's weight at distance x from the centre, 0 beyond its support.
struct Filter {
  double support;
  double (*weight)(double x);
};

double box(double x) {
  return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

/// sin(pi x) / (pi x) in a Hamming window, whose two numbers are floats.
double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= std::numbers::pi;
  return std::sin(x) / x * (static_cast<double>(0.54f) + static_cast<double>(0.46f) * std::cos(x));
}

/// Keys' cubic convolution with a = -0.5.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) {
  return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

Filter filter_of(Resample resample) {
  switch (resample) {
    case Resample::bilinear:
      return {1.0, bilinear};
    case Resample::bicubic:
      return {2.0, bicubic};
    case Resample::lanczos:
      return {3.0, lanczos};
    case Resample::box:
      return {0.5, box};
    case Resample::hamming:
      return {1.0, hamming};
  }
  NIBBLE_CHECK(false, "resample {}", static_cast<int>(resample));
}

/// For each target position the source positions [first, first + count) and their fixed-point weights.
struct Taps {
  struct Range {
    int64_t first = 0, count = 0, weights = 0;  // weights: start in `weight`
  };
  std::vector<Range> ranges;
  std::vector<int32_t> weight;

  const int32_t* weights_of(int64_t i) const { return weight.data() + ranges[i].weights; }
};

int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kPrecisionBits);
  return static_cast<int32_t>(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
}

Taps compute_taps(int64_t source_size, int64_t target_size, Resample resample) {
  const Filter filter = filter_of(resample);
  // Pillow holds the source box in floats, which matters from 2^24 on.
  const double scale =
      static_cast<double>(static_cast<float>(source_size)) / static_cast<double>(target_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = filter.support * filter_scale;
  const double inverse = 1.0 / filter_scale;
  Taps taps;
  taps.ranges.reserve(target_size);
  std::vector<double> exact;
  for (int64_t i = 0; i < target_size; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), source_size);
    const int64_t count = std::max<int64_t>(last - first, 0);
    exact.assign(count, 0.0);
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      const double x = (static_cast<double>(k + first) - center + 0.5) * inverse;
      exact[k] = filter.weight(x);
      sum += exact[k];
    }
    taps.ranges.push_back({first, count, static_cast<int64_t>(taps.weight.size())});
    for (const double w : exact) taps.weight.push_back(to_fixed(sum != 0.0 ? w / sum : w));
  }
  return taps;
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

/// Rows [first_row, first_row + rows) of `source` resized to `width` columns.
Image resize_horizontally(const Image& source, int64_t width, int64_t first_row, int64_t rows,
                          Resample filter) {
  const Taps taps = compute_taps(source.width, width, filter);
  Image target{width, rows, std::vector<uint8_t>(static_cast<size_t>(width * rows * 3))};
  parallel_ranges(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const uint8_t* row = source.rgb.data() + (first_row + y) * source.width * 3;
      uint8_t* out = target.rgb.data() + y * width * 3;
      for (int64_t x = 0; x < width; ++x, out += 3) {
        const uint8_t* in = row + taps.ranges[x].first * 3;
        const int32_t* weight = taps.weights_of(x);
        int32_t sum0 = kHalf, sum1 = kHalf, sum2 = kHalf;
        for (int64_t k = 0; k < taps.ranges[x].count; ++k, in += 3) {
          sum0 += in[0] * weight[k];
          sum1 += in[1] * weight[k];
          sum2 += in[2] * weight[k];
        }
        out[0] = to_byte(sum0);
        out[1] = to_byte(sum1);
        out[2] = to_byte(sum2);
      }
    }
  });
  return target;
}

/// `source`, whose first row is row `first_row` of the picture that `taps` speak of, resized along its
/// columns.
Image resize_vertically(const Image& source, int64_t height, int64_t first_row, const Taps& taps) {
  const int64_t row_bytes = source.width * 3;
  Image target{source.width, height, std::vector<uint8_t>(static_cast<size_t>(row_bytes * height))};
  parallel_ranges(height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sum(static_cast<size_t>(row_bytes));  // (width, 3)
    for (int64_t y = begin; y < end; ++y) {
      std::fill(sum.begin(), sum.end(), kHalf);
      const int32_t* weight = taps.weights_of(y);
      const uint8_t* in = source.rgb.data() + (taps.ranges[y].first - first_row) * row_bytes;
      for (int64_t k = 0; k < taps.ranges[y].count; ++k, in += row_bytes) {
        const int32_t w = weight[k];
        for (int64_t i = 0; i < row_bytes; ++i) sum[i] += in[i] * w;
      }
      uint8_t* out = target.rgb.data() + y * row_bytes;
      for (int64_t i = 0; i < row_bytes; ++i) out[i] = to_byte(sum[i]);
    }
  });
  return target;
}

}  // namespace

Image resize(const Image& image, int64_t width, int64_t height, Resample filter) {
  NIBBLE_CHECK(image.width >= 1 && image.height >= 1 && width >= 1 && height >= 1, "{} x {} to {} x {}",
               image.width, image.height, width, height);
  NIBBLE_CHECK(static_cast<int64_t>(image.rgb.size()) == image.width * image.height * 3);
  const bool horizontal = width != image.width, vertical = height != image.height;
  if (!horizontal && !vertical) return image;
  if (!vertical) return resize_horizontally(image, width, 0, height, filter);
  const Taps taps = compute_taps(image.height, height, filter);
  if (!horizontal) return resize_vertically(image, height, 0, taps);
  if (height < image.height && image.height - height > 2 * (image.width - width)) {
    const Image lowered = resize_vertically(image, height, 0, taps);
    return resize_horizontally(lowered, width, 0, height, filter);
  }
  // Only the rows that the second pass reads go through the first.
  const int64_t first_row = taps.ranges.front().first;
  const int64_t end_row = taps.ranges.back().first + taps.ranges.back().count;
  const Image narrowed = resize_horizontally(image, width, first_row, end_row - first_row, filter);
  return resize_vertically(narrowed, height, first_row, taps);
}

}  // namespace nibble::vision
