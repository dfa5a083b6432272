// How long oneDNN's own bf16 products take: y (rows, out) f32 = x (rows, in) bf16 * W' (in, out) bf16, the
// weight laid out as it likes, on its own threads.
//   build/bench_onednn ROWS,IN,OUT,COUNT...
// Prints {"seconds": s}: the sum over shapes of COUNT times the median of some products.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

namespace {

using dnnl::memory;

struct Shape {
  memory::dim rows, in, out;
};

constexpr int kRuns = 5;

double median_seconds(const dnnl::engine& engine, const Shape& shape) {
  dnnl::stream stream(engine);
  const memory::desc x({shape.rows, shape.in}, memory::data_type::bf16, memory::format_tag::ab);
  const memory::desc any({shape.in, shape.out}, memory::data_type::bf16, memory::format_tag::any);
  const memory::desc y({shape.rows, shape.out}, memory::data_type::f32, memory::format_tag::ab);
#if DNNL_VERSION_MAJOR < 3
  const dnnl::matmul::primitive_desc product(dnnl::matmul::desc(x, any, y), engine);
#else
  const dnnl::matmul::primitive_desc product(engine, x, any, y);
#endif
  memory xs(x, engine), ws(product.weights_desc(), engine), ys(y, engine);
  for (const memory& m : {xs, ws, ys}) std::memset(m.get_data_handle(), 0, m.get_desc().get_size());
  const dnnl::matmul matmul(product);
  std::vector<double> seconds;
  for (int i = 0; i <= kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    matmul.execute(stream, {{DNNL_ARG_SRC, xs}, {DNNL_ARG_WEIGHTS, ws}, {DNNL_ARG_DST, ys}});
    stream.wait();
    // The first one warms up.
    if (i > 0)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  double sum = 0;
  for (int i = 1; i < argc; ++i) {
    long rows = 0, in = 0, out = 0, count = 0;
    if (std::sscanf(argv[i], "%ld,%ld,%ld,%ld", &rows, &in, &out, &count) != 4) {
      std::fprintf(stderr, "%s: is not ROWS,IN,OUT,COUNT\n", argv[i]);
      return EXIT_FAILURE;
    }
    sum += static_cast<double>(count) * median_seconds(engine, {rows, in, out});
  }
  std::printf("{\"seconds\": %.6f}\n", sum);
}
