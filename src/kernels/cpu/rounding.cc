#include "kernels/rounding.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rounding_block.h"
#include "kernels/cpu/rounding_factor.h"
#include "kernels/ops.h"
#include "quant/tables.h"

namespace nibble::kernels {
namespace {

using quant::kBlock;

// Lanes of a strip, and its rows where blocks straddle them.
constexpr int64_t kStripLanes = 64, kStripRows = 1024;

/// The weight is cut into groups of as few rows as hold whole blocks: one row where `in` is a multiple of 64.
/// Groups depend on each other in nothing but the scales of double quantization, and all have their blocks in
/// the same places, so a group is a lane of a block's work. A position is an index inside a group.
struct Cut {
  int64_t in, count, group, groups, blocks, lanes;

  Cut(int64_t out, int64_t in)
      : in(in),
        count(out * in),
        group(std::lcm(in, kBlock)),
        groups((count + group - 1) / group),
        blocks(group / kBlock),
        lanes(std::min(kStripLanes, kStripRows / (group / in))) {}

  /// Calls f(offset in the block, row of the group, column, n) for the part of each row in a block of the
  /// group.
  template <typename Function>
  void for_each_part(int64_t block, const Function& f) const {
    for (int64_t k = 0; k < kBlock;) {
      const int64_t row = (block * kBlock + k) / in, col = (block * kBlock + k) % in;
      const int64_t n = std::min(in - col, kBlock - k);
      f(k, row, col, n);
      k += n;
    }
  }
};

/// The absmax values that a reader can decode.
class Decodable {
 public:
  Decodable(const quant::NestedAbsmax& nested, float largest) : nested_(nested) {
    for (size_t s = 0; s < nested.absmax.size(); ++s) {
      const auto block = static_cast<int64_t>(s) * nested.nested_block;
      int low = 0, high = 255;
      while (low < 255 && !(value(block, low) > 0)) ++low;
      while (high > low && value(block, high) > largest) --high;
      lowest_.push_back(low);
      highest_.push_back(high);
    }
  }

  float value(int64_t block, int q) const {
    const float product = nested_.map[q] * nested_.absmax[block / nested_.nested_block];
    return product + nested_.offset;
  }

  /// The code of the value nearest to `wanted` among the positive ones that the weight's dtype can hold.
  int nearest(int64_t block, float wanted) const {
    const int64_t s = block / nested_.nested_block;
    const auto& thresholds = quant::dynamic_thresholds();
    const float y = (wanted - nested_.offset) / nested_.absmax[s];
    const auto at = std::lower_bound(thresholds.begin(), thresholds.end(), y) - thresholds.begin();
    return std::clamp(static_cast<int>(at), lowest_[s], highest_[s]);
  }

 private:
  const quant::NestedAbsmax& nested_;
  std::vector<int> lowest_, highest_;
};

/// What all strips share.
struct Job {
  const TensorView& weight;
  Cut cut;
  bool feedback;
  int sweeps;
  float largest;              // finite value of the dtype
  DampedGram h = {};          //
  Matrix coupling = {};       // feedback: the factor (in, in); search: those of the blocks (group, 64)
  std::vector<float> pivots;  // feedback: (in); search: (group)
  // With a drift, of each strip: what is rounded in place of the weight, [position][lane], and the largest
  // magnitudes of the weight, [block][lane].
  std::vector<Matrix> strips = {}, largest_weights = {};
};

float largest_of(DType dtype) {
  if (dtype == DType::f16) return 65504.0f;
  return dtype == DType::bf16 ? bf16_to_float(0x7f7f) : std::numeric_limits<float>::max();
}

/// H inside a block (64, 64); no coupling between the parts of different rows.
void block_hessian(const DampedGram& h, const Cut& cut, int64_t block, float* to) {
  std::fill_n(to, kBlock * kBlock, 0.0f);
  cut.for_each_part(block, [&](int64_t k, int64_t, int64_t col, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      float* row = to + (k + i) * kBlock + k;
      if (!is_diagonal(h.gram)) std::copy_n(h.gram.row(col + i) + col, n, row);
      row[i] = h.diagonal[col + i];
    }
  });
}

/// Factors the diagonal blocks of H by themselves.
bool factor_blocks(const DampedGram& h, Job& job) {
  const Cut& cut = job.cut;
  job.coupling = Matrix(cut.group, kBlock);
  job.pivots.assign(static_cast<size_t>(cut.group), 0);
  std::vector<uint8_t> good(static_cast<size_t>(cut.blocks));
  parallel_for(cut.blocks, [&](int64_t b) {
    std::array<float, kBlock * kBlock> hessian;
    std::array<float, kBlock> diagonal;
    block_hessian(h, cut, b, hessian.data());
    std::vector<double> a(hessian.begin(), hessian.end());
    for (int64_t k = 0; k < kBlock; ++k) diagonal[k] = hessian[k * kBlock + k];
    good[b] = factor_small(a, kBlock, diagonal.data());
    for (int64_t k = 0; k < kBlock; ++k) {
      job.pivots[b * kBlock + k] = static_cast<float>(a[k * kBlock + k]);
      std::copy_n(a.data() + k * kBlock, kBlock, job.coupling.row(b * kBlock + k));
    }
  });
  return std::find(good.begin(), good.end(), 0) == good.end();
}

/// Some groups of the weight, [position][lane], and their rounding.
class Strip {
 public:
  Strip(const Job& job, int64_t strip)
      : job_(job),
        cut_(job.cut),
        first_(strip * cut_.lanes),
        lanes_(std::min(cut_.lanes, (cut_.groups - first_ + kRoundLanes - 1) / kRoundLanes * kRoundLanes)),
        weight_(cut_.group, lanes_),
        error_(cut_.group, lanes_),
        level_(cut_.group, lanes_),
        target_(kBlock, lanes_),
        scale_(cut_.blocks, lanes_),
        largest_(cut_.blocks, lanes_),
        steps_(kScaleSteps, lanes_),
        matrix_(kBlock, kBlock),
        codes_(static_cast<size_t>(kScaleSteps * lanes_)),
        picked_(static_cast<size_t>(lanes_)),
        index_(static_cast<size_t>(cut_.blocks * lanes_)) {
    if (job.strips.empty()) {
      load();
      for (int64_t b = 0; b < cut_.blocks; ++b)
        largest_of_lanes(weight_.row(b * kBlock), lanes_, largest_.row(b));
    } else {
      std::copy_n(job.strips[static_cast<size_t>(strip)].data(), cut_.group * lanes_, weight_.data());
      std::copy_n(job.largest_weights[static_cast<size_t>(strip)].data(), cut_.blocks * lanes_,
                  largest_.data());
    }
  }

  Matrix take_largest() { return std::move(largest_); }

  /// The weight with what the drift adds: z with z H = w K + its row of L for each of its rows w, by H = U D
  /// U'.
  Matrix drifted(const Drift& drift) {
    const int64_t in = cut_.in;
    const ConstMatrix u = job_.coupling.view();  // row k: column k of U, above the diagonal
    for (int64_t row = 0; row < cut_.group; row += in) {
      const MutableMatrix w = weight_.mut().row_range(row, in), z = error_.mut().row_range(row, in);
      // In the end z holds the negative of what is added, which products add to the rest as they are.
      if (drift.input.rows > 0)
        gemm(drift.input, true, w, false, false, z);
      else
        std::fill_n(z.data, in * lanes_, 0.0f);
      if (drift.stream.rows > 0) add_stream(drift.stream, row / in, z);
      const int64_t panels = (in + kBlock - 1) / kBlock;
      for (int64_t p = panels - 1; p >= 0; --p) {
        const int64_t begin = p * kBlock, n = std::min(kBlock, in - begin);
        for (int64_t k = begin + n - 1; k >= begin; --k) {
          for (int64_t l = 0; l < lanes_; ++l) z.row(k)[l] = -z.row(k)[l];
          for (int64_t j = begin; j < k; ++j) add_scaled(u.row(k)[j], z.row(k), z.row(j));
        }
        if (begin > 0)
          gemm(u.row_range(begin, n).col_range(0, begin), true, z.row_range(begin, n), false, true,
               z.row_range(0, begin));
      }
      for (int64_t k = 0; k < in; ++k)
        for (int64_t l = 0; l < lanes_; ++l) z.row(k)[l] /= -job_.pivots[static_cast<size_t>(k)];
      for (int64_t begin = 0; begin < in; begin += kBlock) {
        const int64_t n = std::min(kBlock, in - begin);
        if (begin > 0)
          gemm(u.row_range(begin, n).col_range(0, begin), false, z.row_range(0, begin), false, true,
               z.row_range(begin, n));
        for (int64_t k = begin; k < begin + n; ++k) {
          for (int64_t j = begin; j < k; ++j) add_scaled(u.row(k)[j], z.row(j), z.row(k));
          for (int64_t l = 0; l < lanes_; ++l) z.row(k)[l] = -z.row(k)[l];
        }
      }
      for (int64_t k = 0; k < in; ++k) add_scaled(-1, z.row(k), w.row(k));
    }
    return std::move(weight_);
  }

  /// Chooses absmax values and codes, block after block; from all floats if `decodable` is null.
  void round(const Decodable* decodable) {
    for (int64_t b = 0; b < cut_.blocks; ++b) {
      make_target(b);
      make_steps(b, decodable);
      RoundBlock block = describe(b);
      std::array<float, kBlock> pivots;
      fill_coupling(b, pivots.data());
      block.coupling = matrix_.data();
      block.pivots = pivots.data();
      choose_scale(block, job_.feedback ? target_.data() : block.weight, steps_.data(), job_.feedback,
                   picked_.data());
      for (int64_t l = 0; l < lanes_; ++l) {
        scale_.row(b)[l] = steps_.row(picked_[l])[l];
        index_[b * lanes_ + l] = codes_[picked_[l] * lanes_ + l];
      }
    }
  }

  /// One pass of coordinate descent over codes and absmax values.
  void descend(const Decodable& decodable) {
    float* slope = target_.data();
    std::vector<float> wanted(static_cast<size_t>(lanes_));
    for (int64_t b = 0; b < cut_.blocks; ++b) {
      make_slope(b);
      block_hessian(job_.h, cut_, b, matrix_.data());
      const RoundBlock block = describe(b);
      float* scale = scale_.row(b);
      descend_codes(block, matrix_.data(), scale, slope);
      best_scale(block, matrix_.data(), scale, slope, wanted.data());
      for (int64_t l = 0; l < lanes_; ++l) {
        const int64_t at = block_of(b, l);
        codes_[l] = decodable.nearest(at, wanted[l]);
        wanted[l] = decodable.value(at, codes_[l]);
      }
      try_scale(block, matrix_.data(), scale, wanted.data(), slope, picked_.data());
      for (int64_t l = 0; l < lanes_; ++l) {
        if (picked_[l] == 0) continue;
        scale[l] = wanted[l];
        index_[b * lanes_ + l] = codes_[l];
      }
      descend_codes(block, matrix_.data(), scale, slope);
    }
  }

  /// Each block's absmax to absmax (all blocks).
  void store_scales(std::span<float> absmax) const {
    for_each_block([&](int64_t b, int64_t l, int64_t at) { absmax[at] = scale_.row(b)[l]; });
  }

  /// Codes and nested indices to their places.
  void store(quant::Packed4& packed) const {
    for_each_block([&](int64_t b, int64_t l, int64_t at) {
      packed.nested->q[at] = static_cast<uint8_t>(index_[b * lanes_ + l]);
    });
    for (int64_t l = 0; l < lanes_; ++l) {
      const int64_t begin = (first_ + l) * cut_.group, n = std::min(cut_.group, cut_.count - begin);
      for (int64_t p = 0; p < n; p += 2) {
        const uint8_t high = code(p, l), low = p + 1 < n ? code(p + 1, l) : zero_code(packed.format);
        packed.codes[(begin + p) / 2] = static_cast<uint8_t>(high << 4 | low);
      }
    }
  }

 private:
  /// The block of the weight that a lane has as its block b; those beyond the weight are taken for its last.
  int64_t block_of(int64_t b, int64_t lane) const {
    return std::min((first_ + lane) * cut_.blocks + b, quant::block_count(cut_.count, kBlock) - 1);
  }

  /// z (in, lanes) += the rows of L that belong to row `row` of the groups.
  void add_stream(ConstMatrix stream, int64_t row, MutableMatrix z) const {
    for (int64_t l = 0; l < lanes_; ++l) {
      const int64_t out = (first_ + l) * (cut_.group / cut_.in) + row;
      if (out >= stream.rows) continue;
      for (int64_t k = 0; k < cut_.in; ++k) z.row(k)[l] += stream.row(out)[k];
    }
  }

  void add_scaled(float factor, const float* from, float* to) const {
    for (int64_t l = 0; l < lanes_; ++l) to[l] += factor * from[l];
  }

  template <typename Function>
  void for_each_block(const Function& f) const {
    for (int64_t l = 0; l < lanes_; ++l) {
      const int64_t begin = (first_ + l) * cut_.blocks;
      const int64_t n = std::min(cut_.blocks, quant::block_count(cut_.count, kBlock) - begin);
      for (int64_t b = 0; b < n; ++b) f(b, l, begin + b);
    }
  }

  /// The code of a stored level: levels lie more than 1/16 apart.
  uint8_t code(int64_t position, int64_t lane) const {
    constexpr auto slot = [](float level) { return static_cast<size_t>((level + 1) * 16 + 0.5f); };
    static constexpr auto table = [=] {
      std::array<uint8_t, 33> codes{};
      for (size_t c = 0; c < 16; ++c) codes[slot(quant::kNf4Codes[c])] = static_cast<uint8_t>(c);
      return codes;
    }();
    return table[slot(level_.row(position)[lane])];
  }

  /// The weight, zeros beyond its end.
  void load() {
    std::vector<float> rows(static_cast<size_t>(kRoundLanes * cut_.group));
    const int64_t size = dtype_size(job_.weight.dtype);
    for (int64_t lane = 0; lane < lanes_; lane += kRoundLanes) {
      for (int64_t l = 0; l < kRoundLanes; ++l) {
        const int64_t begin = std::min((first_ + lane + l) * cut_.group, cut_.count);
        const int64_t n = std::min(cut_.group, cut_.count - begin);
        float* row = rows.data() + l * cut_.group;
        to_float({job_.weight.dtype, {n}, job_.weight.data + begin * size}, row);
        std::fill(row + n, row + cut_.group, 0.0f);
      }
      for (int64_t p = 0; p < cut_.group; ++p)
        for (int64_t l = 0; l < kRoundLanes; ++l) weight_.row(p)[lane + l] = rows[l * cut_.group + p];
    }
  }

  RoundBlock describe(int64_t b) {
    return {.lanes = lanes_,
            .dtype = job_.weight.dtype,
            .weight = weight_.row(b * kBlock),
            .error = error_.row(b * kBlock),
            .level = level_.row(b * kBlock)};
  }

  /// The block's weight and, with feedback, U' times the errors of what lies before it in its row.
  void make_target(int64_t b) {
    std::copy_n(weight_.row(b * kBlock), kBlock * lanes_, target_.data());
    if (!job_.feedback) return;
    cut_.for_each_part(b, [&](int64_t k, int64_t row, int64_t col, int64_t n) {
      if (col == 0) return;
      gemm(job_.coupling.view().row_range(col, n).col_range(0, col), false,
           error_.view().row_range(row * cut_.in, col), false, true, target_.mut().row_range(k, n));
    });
  }

  /// H times the errors of whole rows, for the block's positions.
  void make_slope(int64_t b) {
    cut_.for_each_part(b, [&](int64_t k, int64_t row, int64_t col, int64_t n) {
      gemm(job_.h.gram.row_range(col, n), false, error_.view().row_range(row * cut_.in, cut_.in), false,
           false, target_.mut().row_range(k, n));
      for (int64_t i = 0; i < n; ++i) {
        const float more = job_.h.diagonal[col + i] - job_.h.gram.row(col + i)[col + i];
        const float* error = error_.row(b * kBlock + k + i);
        float* slope = target_.row(k + i);
        for (int64_t l = 0; l < lanes_; ++l) slope[l] += more * error[l];
      }
    });
  }

  /// The absmax values to try.
  void make_steps(int64_t b, const Decodable* decodable) {
    std::vector<float> target(static_cast<size_t>(lanes_));
    const float* weight = largest_.row(b);
    largest_of_lanes(target_.data(), lanes_, target.data());
    for (int64_t l = 0; l < lanes_; ++l) {
      const auto grid = scale_grid(target[l], weight[l]);
      const int64_t at = block_of(b, l);
      for (int s = 0; s < kScaleSteps; ++s) {
        const float wanted = std::min(grid[s], job_.largest);
        const int code = decodable ? decodable->nearest(at, wanted) : 0;
        codes_[s * lanes_ + l] = code;
        steps_.row(s)[l] = decodable ? decodable->value(at, code) : wanted;
      }
    }
  }

  /// U and D inside the block.
  void fill_coupling(int64_t b, float* pivots) {
    if (!job_.feedback) {
      std::copy_n(job_.coupling.row(b * kBlock), kBlock * kBlock, matrix_.data());
      std::copy_n(job_.pivots.data() + b * kBlock, kBlock, pivots);
      return;
    }
    std::fill_n(matrix_.data(), kBlock * kBlock, 0.0f);
    cut_.for_each_part(b, [&](int64_t k, int64_t, int64_t col, int64_t n) {
      std::copy_n(job_.pivots.data() + col, n, pivots + k);
      for (int64_t i = 0; i < n; ++i)
        std::copy_n(job_.coupling.row(col + i) + col, i, matrix_.row(k + i) + k);
    });
  }

  const Job& job_;
  const Cut& cut_;
  int64_t first_, lanes_;
  Matrix weight_, error_, level_;  // (group, lanes)
  Matrix target_;                  // (64, lanes): of the block at hand; or its slopes
  Matrix scale_, largest_;         // (blocks, lanes); largest magnitudes of the weight
  Matrix steps_;                   // (kScaleSteps, lanes)
  Matrix matrix_;                  // (64, 64): U or H inside the block
  std::vector<int> codes_;         // (kScaleSteps, lanes): nested indices of steps_
  std::vector<int32_t> picked_;    // (lanes)
  std::vector<int> index_;         // (blocks, lanes): nested indices of scale_
};

void check_statistics(std::string_view what, ConstMatrix gram, int64_t rows, int64_t in) {
  NIBBLE_CHECK(gram.rows == rows && gram.cols == in, "a {} of {} x {} for {} inputs", what, gram.rows,
               gram.cols, in);
  for (int64_t i = 0; i < rows; ++i) {
    const auto at =
        quant::find_nonfinite({DType::f32, {in}, reinterpret_cast<const std::byte*>(gram.row(i))});
    if (at)
      fail("rounding: the {} holds NaN or infinity at [{}, {}]; check the inputs it comes from", what, i,
           *at);
  }
}

}  // namespace

std::array<float, kScaleSteps> scale_grid(float target, float weight) {
  const float high = target * kScaleHigh, low = std::min(target, weight) * kScaleLow;
  std::array<float, kScaleSteps> grid{};
  if (high <= 0) return grid;
  const float ratio = std::pow(low / high, 1.0f / (kScaleSteps - 1));
  for (float scale = high; float& g : grid) {
    g = scale;
    scale *= ratio;
  }
  return grid;
}

float short_offset(float plain) {
  constexpr float kBits = 256;
  int exponent = 0;
  const float fraction = std::frexp(plain, &exponent);
  return std::ldexp(std::round(fraction * kBits) / kBits, exponent);
}

std::string_view rounding_name(Rounding rounding) {
  switch (rounding) {
    case Rounding::plain:
      return "plain";
    case Rounding::search:
      return "search";
    case Rounding::feedback:
      return "feedback";
  }
  NIBBLE_CHECK(false, "rounding {}", static_cast<int>(rounding));
  return "";
}

std::optional<Rounding> parse_rounding(std::string_view name) {
  for (const Rounding r : {Rounding::plain, Rounding::search, Rounding::feedback})
    if (rounding_name(r) == name) return r;
  return std::nullopt;
}

quant::Packed4 round4(const TensorView& weight, ConstMatrix gram, const RoundingOptions& options,
                      const Drift& drift) {
  NIBBLE_CHECK(weight.shape.size() == 2, "rounding of {}", shape_text(weight.shape));
  quant::Packed4 packed = quant::encode4(weight, quant::Format::nf4, true);
  if (options.kind == Rounding::plain || weight.count() == 0) return packed;
  check_statistics("Gram matrix", gram, is_diagonal(gram) ? 1 : weight.shape[1], weight.shape[1]);
  const bool feedback = options.kind == Rounding::feedback && !is_diagonal(gram);
  NIBBLE_CHECK(drift.empty() || feedback);
  if (drift.input.rows > 0) check_statistics("drift", drift.input, weight.shape[1], weight.shape[1]);
  if (drift.stream.rows > 0) check_statistics("drift", drift.stream, weight.shape[0], weight.shape[1]);
  Job job{.weight = weight,
          .cut = Cut(weight.shape[0], weight.shape[1]),
          .feedback = feedback,
          .sweeps = feedback ? options.sweeps : 0,
          .largest = largest_of(weight.dtype),
          .pivots = {}};
  if (feedback) job.coupling = Matrix(job.cut.in, job.cut.in);
  Matrix zeros;
  job.h = damp_until(gram, options.damping, zeros, [&](const DampedGram& h) {
    return feedback ? factor_gram(h, job.coupling, job.pivots) : factor_blocks(h, job);
  });
  const int64_t strips = (job.cut.groups + job.cut.lanes - 1) / job.cut.lanes;
  std::vector<float> absmax(static_cast<size_t>(quant::block_count(job.cut.count, kBlock)));
  if (!drift.empty() && zeros.rows() == 0) {
    std::vector<Matrix> moved(static_cast<size_t>(strips)), largest(static_cast<size_t>(strips));
    parallel_for(strips, [&](int64_t s) {
      Strip strip(job, s);
      moved[static_cast<size_t>(s)] = strip.drifted(drift);
      largest[static_cast<size_t>(s)] = strip.take_largest();
    });
    job.strips = std::move(moved);
    job.largest_weights = std::move(largest);
  }
  parallel_for(strips, [&](int64_t s) {
    Strip strip(job, s);
    strip.round(nullptr);
    strip.store_scales(absmax);
  });
  packed.nested = quant::encode_absmax(absmax, short_offset(packed.nested->offset));
  const Decodable decodable(*packed.nested, job.largest);
  parallel_for(strips, [&](int64_t s) {
    Strip strip(job, s);
    strip.round(&decodable);
    for (int sweep = 0; sweep < job.sweeps; ++sweep) strip.descend(decodable);
    strip.store(packed);
  });
  return packed;
}

}  // namespace nibble::kernels
