// Shared by the tests of quant: inputs from a fixed generator, tensors that own their bytes, forced targets.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "quant/format.h"
#include "quant/ref.h"
#include "quant/state.h"
#include "tensor/tensor.h"

namespace nibble::quant {

/// splitmix64 by counter: number i of the stream `seed`.
inline uint64_t random_bits(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// Bell-shaped whole numbers from -131070 to 131070 (deviation 37837); make_goldens.py has the same.
inline float sample(uint64_t seed, uint64_t i) {
  const uint64_t z = random_bits(seed, i);
  int64_t sum = -131070;
  for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int64_t>((z >> shift) & 0xffffu);
  return static_cast<float>(sum);
}

/// A standard normal number (Box and Muller).
inline double gaussian(uint64_t seed, uint64_t i) {
  const auto uniform = [&](uint64_t k) {
    return (static_cast<double>(random_bits(seed, k) >> 11) + 0.5) * 0x1p-53;
  };
  return std::sqrt(-2 * std::log(uniform(2 * i))) * std::cos(6.283185307179586 * uniform(2 * i + 1));
}

inline Tensor from_values(const std::vector<float>& values, DType dtype, Shape shape = {}) {
  Tensor out(dtype, shape.empty() ? Shape{std::ssize(values)} : shape);
  from_float(values, dtype, out.as<std::byte>());
  return out;
}

inline Tensor samples(int64_t count, DType dtype, uint64_t seed, float scale = 1e-6f) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(sample(seed, static_cast<uint64_t>(i)) * scale);
  return from_values(values, dtype);
}

/// Random bit patterns of a type, NaN and infinity among them.
inline Tensor random_patterns(int64_t count, DType dtype, uint64_t seed) {
  Tensor out(dtype, {count});
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = random_bits(seed, static_cast<uint64_t>(i));
    std::memcpy(out.as<std::byte>() + i * dtype_size(dtype), &bits, static_cast<size_t>(dtype_size(dtype)));
  }
  return out;
}

template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> out(values.size() * sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

inline std::vector<std::byte> bytes_of(const Tensor& t) {
  return {t.as<std::byte>(), t.as<std::byte>() + t.bytes()};
}

/// The instruction sets that this machine has and that are compiled in.
inline std::vector<int64_t> targets() {
  return hwy::SupportedAndGeneratedTargets();
}

/// Makes Highway choose one instruction set for as long as it lives.
class ForcedTarget {
 public:
  explicit ForcedTarget(int64_t target) { choose(target); }
  ~ForcedTarget() { choose(0); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;

 private:
  static void choose(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

inline void expect_same(const Packed4& a, const Packed4& b, const std::string& what) {
  EXPECT_EQ(a.format, b.format) << what;
  EXPECT_EQ(a.shape, b.shape) << what;
  EXPECT_EQ(a.dtype, b.dtype) << what;
  EXPECT_EQ(a.block, b.block) << what;
  EXPECT_EQ(a.code, b.code) << what;
  EXPECT_TRUE(a.codes == b.codes) << what;
  EXPECT_TRUE(bytes_of(a.absmax) == bytes_of(b.absmax)) << what;
  ASSERT_EQ(a.nested.has_value(), b.nested.has_value()) << what;
  if (!a.nested) return;
  EXPECT_TRUE(a.nested->q == b.nested->q) << what;
  EXPECT_TRUE(bytes_of(a.nested->absmax) == bytes_of(b.nested->absmax)) << what;
  EXPECT_EQ(a.nested->map, b.nested->map) << what;
  EXPECT_EQ(a.nested->offset, b.nested->offset) << what;
}

/// The tensors of one weight with bytes of their own (at odd addresses), to be damaged.
struct StoredCopies {
  struct Entry {
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;  // the first one is not part of it
  };
  std::map<std::string, Entry> entries;

  explicit StoredCopies(const std::vector<StoredTensor>& tensors) {
    for (const StoredTensor& t : tensors) set(t.suffix, t.view.dtype, t.view.shape, t.view.data);
  }
  void set(const std::string& suffix, DType dtype, const Shape& shape, const void* data) {
    const TensorView view{dtype, shape, nullptr};
    Entry entry{dtype, shape, std::vector<std::byte>(static_cast<size_t>(view.bytes()) + 1)};
    if (view.bytes() > 0) std::memcpy(entry.bytes.data() + 1, data, static_cast<size_t>(view.bytes()));
    entries[suffix] = std::move(entry);
  }
  TensorLookup lookup() const {
    return [this](const std::string& suffix) -> std::optional<TensorView> {
      const auto it = entries.find(suffix);
      if (it == entries.end()) return std::nullopt;
      return TensorView{it->second.dtype, it->second.shape, it->second.bytes.data() + 1};
    };
  }
  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& [suffix, entry] : entries) sum += std::ssize(entry.bytes) - 1;
    return sum;
  }
};

/// The text of the Error that f throws, one line that starts with `what`; "no error" when it throws none.
template <class F>
std::string error_of(const std::string& what, const F& f) {
  try {
    f();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_EQ(text.substr(0, what.size()), what);
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  return "no error";
}

inline constexpr std::array kDtypes = {DType::f32, DType::bf16, DType::f16};
inline constexpr std::array kFormats = {Format::nf4, Format::fp4};
inline constexpr std::array<int64_t, 8> kBlocks = {32, 64, 128, 256, 512, 1024, 2048, 4096};

inline std::string label(Format format, DType dtype, int64_t block, int64_t count) {
  return fmt::format("{} of {}, block {}, count {}, {}", format_name(format), dtype_name(dtype), block, count,
                     instruction_set());
}

}  // namespace nibble::quant
