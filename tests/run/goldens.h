// What the tests of the forward pass share: goldens/qwen2_vl.safetensors (make_goldens.py), the shipped
// model, and comparisons.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "run/forward.h"

namespace nibble::run {

inline const std::filesystem::path kModel = NIBBLE_ROOT "/models/qwen2-vl-tiny";

/// fp32 sums in another order than the reference's differ by about 1e-6 of the largest value after all
/// blocks; a wrong operation or weight by more than a hundredth of it. Both are far from this share.
inline constexpr double kTolerance = 1e-4;

inline const io::SafetensorsFile& goldens() {
  static const io::SafetensorsFile file(NIBBLE_ROOT "/tests/run/goldens/qwen2_vl.safetensors");
  return file;
}

/// A golden of whole numbers, row after row.
inline std::vector<int64_t> golden_ids(const std::string& name) {
  const TensorView view = goldens().tensor(name);
  EXPECT_EQ(view.dtype, DType::i64) << name;
  std::vector<int64_t> out(static_cast<size_t>(view.count()));
  std::memcpy(out.data(), view.data, out.size() * sizeof(int64_t));
  return out;
}

inline bool has_golden(const std::string& name) {
  return goldens().tensors().contains(name);
}

/// pixels() of make_goldens.py, from pixel number `first` on: a hash of the number, a multiple of 2^-11 in
/// [-2, 2).
inline std::shared_ptr<const Matrix> golden_pixels(int64_t rows, int64_t cols, uint64_t first) {
  auto out = std::make_shared<Matrix>(rows, cols);
  for (int64_t k = 0; k < rows * cols; ++k) {
    const uint64_t hash = (first + static_cast<uint64_t>(k)) * 2654435761u & 0xffffffffu;
    out->data()[k] = static_cast<float>(hash >> 19) / 2048.0f - 2.0f;
  }
  return out;
}

/// A prompt of the goldens; `features` are those of a patch.
inline Prompt golden_prompt(const std::string& name, int64_t features) {
  Prompt prompt;
  prompt.ids = golden_ids(name + ".ids");
  if (!has_golden(name + ".grids")) return prompt;
  const std::vector<int64_t> grids = golden_ids(name + ".grids");
  uint64_t first = 0;
  for (size_t i = 0; i < grids.size(); i += 3) {
    Picture picture{.pixels = nullptr, .grid_t = grids[i], .grid_h = grids[i + 1], .grid_w = grids[i + 2]};
    picture.pixels = golden_pixels(picture.patches(), features, first);
    first += static_cast<uint64_t>(picture.patches() * features);
    prompt.pictures.push_back(std::move(picture));
  }
  return prompt;
}

/// The shipped model, ready to run.
struct Model {
  explicit Model(kernels::Compute compute = kernels::Compute::f32)
      : binding(kModel), weights(binding, compute), runner(weights) {}

  Prompt prompt(const std::string& name) const {
    return golden_prompt(name, binding.spec().vision->patch_features());
  }

  model::Binding binding;
  Weights weights;
  Runner runner;
};

/// Logits of the last tokens of each prompt, run side by side.
inline Matrix last_logits(Runner& runner, const std::vector<Prompt>& prompts, int64_t last) {
  std::vector<const Prompt*> pointers;
  for (const Prompt& p : prompts) pointers.push_back(&p);
  std::vector<Sequence> sequences = runner.start(pointers);
  std::vector<Sequence*> batch;
  for (Sequence& s : sequences) batch.push_back(&s);
  return runner.feed(batch, std::vector<int64_t>(batch.size(), last), false);
}

/// Largest difference as a share of the largest expected value.
inline double difference(const float* actual, const float* expected, int64_t count) {
  double largest = 0, apart = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    apart = std::max(apart, std::abs(double{actual[i]} - expected[i]));
    if (!std::isfinite(actual[i])) return INFINITY;
  }
  return largest > 0 ? apart / largest : apart;
}

/// Expects a matrix to be the golden `name`, within kTolerance of its largest value.
inline void expect_golden(ConstMatrix actual, const std::string& name) {
  const TensorView view = goldens().tensor(name);
  ASSERT_EQ(view.shape, (Shape{actual.rows, actual.cols})) << name;
  ASSERT_EQ(actual.stride, actual.cols) << name;
  const std::vector<float> expected = to_float(view);
  EXPECT_LT(difference(actual.data, expected.data(), actual.rows * actual.cols), kTolerance) << name;
}

inline bool same_bits(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.rows() * a.cols()) * sizeof(float)) == 0;
}

}  // namespace nibble::run
