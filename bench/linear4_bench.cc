// How fast products with 4-bit weights are: few rows against reading memory, many against 16-bit weights.
//   cmake --build build --target bench_linear4 && build/bench_linear4
// bytes_per_second of decode and read count the bytes that lie in memory (codes and absmax values); those of
// both divide to the share of the memory's rate that decoding a token reaches. prefill counts multiplications
// and additions as items; onednn is oneDNN's own bf16 product of the same shape, with the weight laid out as
// it likes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <vector>

#include "base/threads.h"
#include "kernels/ops.h"

namespace {

using nibble::DType;
using nibble::Matrix;
using nibble::Tensor;
using nibble::kernels::Compute;
using nibble::kernels::Weight;

// Of the MLP of a language model of 2 billion parameters; kWeights of them are more than any cache holds.
constexpr int64_t kOut = 8960, kIn = 1536, kWeights = 48;

Tensor random_weight(DType dtype) {
  std::mt19937 generator(1);
  std::vector<float> values(kOut * kIn);
  for (float& v : values) v = static_cast<float>(generator() % 2001) * 2e-5f - 0.02f;
  Tensor out(dtype, {kOut, kIn});
  nibble::from_float(values, dtype, out.as<std::byte>());
  return out;
}

/// Copies of one weight, each in memory of its own.
std::vector<Weight> make_weights(int64_t count, DType dtype, Compute compute, bool four_bits) {
  const Tensor source = random_weight(dtype);
  const nibble::quant::Packed4 packed =
      nibble::quant::encode4(source.view(), nibble::quant::Format::nf4, true);
  std::vector<Weight> out;
  for (int64_t i = 0; i < count; ++i)
    out.push_back(four_bits ? Weight::pack(packed, compute) : Weight::pack(source.view(), compute));
  return out;
}

Matrix ones(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  std::fill_n(m.data(), rows * cols, 1.0f);
  return m;
}

/// Sums of all bytes of a buffer, 8 at a time, on nibble's threads.
void read(benchmark::State& state) {
  constexpr int64_t kCount = int64_t{64} << 20, kGrain = 1 << 18;
  std::vector<uint64_t> buffer(kCount, 1);
  std::atomic<uint64_t> total = 0;
  for (auto _ : state) {
    nibble::parallel_ranges(kCount, kGrain, [&](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += buffer[static_cast<size_t>(i)];
      total += sum;
    });
  }
  state.SetBytesProcessed(state.iterations() * kCount * 8);
}

/// range(0): rows. Every product reads another weight, as the linears of a model follow each other.
void decode(benchmark::State& state, DType dtype, Compute compute, bool four_bits) {
  const auto weights = make_weights(four_bits ? kWeights : kWeights / 4, dtype, compute, four_bits);
  const Matrix x = ones(state.range(0), kIn);
  Matrix y(x.rows(), kOut);
  size_t next = 0;
  for (auto _ : state) {
    nibble::kernels::linear(x.view(), weights[next++ % weights.size()], {}, y.mut());
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * weights[0].bytes());
}

void prefill(benchmark::State& state, DType dtype, Compute compute, bool four_bits) {
  const Weight weight = make_weights(1, dtype, compute, four_bits)[0];
  const Matrix x = ones(state.range(0), kIn);
  Matrix y(x.rows(), kOut);
  for (auto _ : state) {
    nibble::kernels::linear(x.view(), weight, {}, y.mut());
    benchmark::DoNotOptimize(y.data());
  }
  state.SetItemsProcessed(state.iterations() * 2 * x.rows() * kOut * kIn);
}

/// range(0): rows. y (rows, kOut) f32 = x (rows, kIn) bf16 * W' (kIn, kOut) bf16, on oneDNN's threads.
void onednn(benchmark::State& state) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x({state.range(0), kIn}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc any({kIn, kOut}, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc y({state.range(0), kOut}, memory::data_type::f32, memory::format_tag::ab);
#if DNNL_VERSION_MAJOR < 3
  const dnnl::matmul::primitive_desc product(dnnl::matmul::desc(x, any, y), engine);
#else
  const dnnl::matmul::primitive_desc product(engine, x, any, y);
#endif
  const memory::desc weight(product.weights_desc());
  memory xs(x, engine), ws(weight, engine), ys(y, engine);
  for (const memory& m : {xs, ws, ys}) std::memset(m.get_data_handle(), 0, m.get_desc().get_size());
  const dnnl::matmul matmul(product);
  for (auto _ : state) {
    matmul.execute(stream, {{DNNL_ARG_SRC, xs}, {DNNL_ARG_WEIGHTS, ws}, {DNNL_ARG_DST, ys}});
    stream.wait();
  }
  state.SetItemsProcessed(state.iterations() * 2 * state.range(0) * kOut * kIn);
}

BENCHMARK(read)->UseRealTime();
BENCHMARK(onednn)->Arg(64)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(decode, 16_bit_bf16, DType::bf16, Compute::bf16, false)->Arg(1)->UseRealTime();
BENCHMARK_CAPTURE(decode, nf4_bf16, DType::bf16, Compute::bf16, true)
    ->RangeMultiplier(2)
    ->Range(1, 8)
    ->UseRealTime();
BENCHMARK_CAPTURE(decode, nf4_f16_f32, DType::f16, Compute::f32, true)->Arg(1)->UseRealTime();
BENCHMARK_CAPTURE(prefill, 16_bit_bf16, DType::bf16, Compute::bf16, false)->Arg(64)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, nf4_bf16, DType::bf16, Compute::bf16, true)->Arg(64)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, f16_f32, DType::f16, Compute::f32, false)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(prefill, nf4_f16_f32, DType::f16, Compute::f32, true)->Arg(512)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
