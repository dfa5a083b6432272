// How fast the 4-bit codes are made and read, beside copying memory.
//   cmake --build build --target bench_codes && build/bench_codes
// bytes_per_second counts bytes read plus bytes written; over that of copy it is the share of the memory's
// rate. Matrices are 4096 x 4096 in bf16, double quantization included; _many go through more of them than a
// cache holds.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "base/threads.h"
#include "quant/format.h"

namespace {

using nibble::DType;
using nibble::Tensor;
using nibble::quant::Format;
using nibble::quant::Packed4;

constexpr int64_t kSide = 4096, kMany = 12;

std::vector<Tensor> matrices(int64_t count) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(kSide * kSide);
  for (float& v : values) v = normal(generator);
  std::vector<Tensor> out;
  for (int64_t i = 0; i < count; ++i)
    nibble::from_float(values, DType::bf16,
                       out.emplace_back(DType::bf16, nibble::Shape{kSide, kSide}).as<std::byte>());
  return out;
}

int64_t bytes(const Packed4& packed) {
  return std::ssize(packed.codes) + 4 * std::ssize(packed.absmax) +
         (packed.nested ? std::ssize(packed.nested->q) + 4 * std::ssize(packed.nested->absmax) : 0);
}

void copy(benchmark::State& state) {
  const auto source = matrices(kMany);
  auto target = matrices(kMany);
  size_t next = 0;
  for (auto _ : state) {
    const auto* from = source[next % kMany].as<std::byte>();
    auto* to = target[next++ % kMany].as<std::byte>();
    nibble::parallel_ranges(source[0].view().bytes(), 1 << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 2 * source[0].view().bytes());
}

void encode(benchmark::State& state, Format format, int64_t count) {
  const auto source = matrices(count);
  std::vector<Packed4> packed(static_cast<size_t>(count));
  size_t next = 0;
  for (auto _ : state) {
    const size_t i = next++ % packed.size();
    nibble::quant::encode4_into(source[i].view(), format, true, nibble::quant::kBlock, packed[i]);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * (source[0].view().bytes() + bytes(packed[0])));
}

void decode(benchmark::State& state, Format format, int64_t count) {
  auto target = matrices(count);
  std::vector<Packed4> packed;
  for (const Tensor& t : target) packed.push_back(nibble::quant::encode4(t.view(), format, true));
  size_t next = 0;
  for (auto _ : state) {
    const size_t i = next++ % packed.size();
    nibble::quant::decode4_into(packed[i], DType::bf16, target[i].as<std::byte>());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * (target[0].view().bytes() + bytes(packed[0])));
}

BENCHMARK(copy)->UseRealTime();
BENCHMARK_CAPTURE(encode, nf4_many, Format::nf4, kMany)->UseRealTime();
BENCHMARK_CAPTURE(decode, nf4_many, Format::nf4, kMany)->UseRealTime();
BENCHMARK_CAPTURE(encode, fp4_many, Format::fp4, kMany)->UseRealTime();
BENCHMARK_CAPTURE(decode, fp4_many, Format::fp4, kMany)->UseRealTime();
BENCHMARK_CAPTURE(encode, nf4_one, Format::nf4, 1)->UseRealTime();
BENCHMARK_CAPTURE(decode, nf4_one, Format::nf4, 1)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
