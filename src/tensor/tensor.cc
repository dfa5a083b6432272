#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace nibble {

std::string shape_text(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

int64_t TensorView::count() const {
  const auto n = checked_product(shape);
  NIBBLE_CHECK(n, "shape {}", shape_text(shape));
  return *n;
}

int64_t TensorView::bytes() const {
  const auto n = checked_mul(count(), dtype_size(dtype));
  NIBBLE_CHECK(n, "{} of shape {}", dtype_name(dtype), shape_text(shape));
  return *n;
}

Tensor::Tensor(DType dtype, Shape shape) {
  view_.dtype = dtype;
  view_.shape = std::move(shape);
  buffer_ = Buffer(static_cast<size_t>(view_.bytes()));
  view_.data = buffer_.data();
}

namespace {
/// Reads n elements of type T, at any address: a file's tensors need not be aligned.
template <class T, class F>
void convert(const TensorView& source, float* target, const F& as_float) {
  const auto* bytes = source.as<std::byte>();
  for (int64_t i = 0, n = source.count(); i < n; ++i) {
    T value;
    std::memcpy(&value, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    target[i] = as_float(value);
  }
}
}  // namespace

void to_float(const TensorView& source, float* target) {
  switch (source.dtype) {
    case DType::f32:
      return convert<float>(source, target, [](float v) { return v; });
    case DType::f64:
      return convert<double>(source, target, [](double v) { return static_cast<float>(v); });
    case DType::bf16:
      return convert<uint16_t>(source, target, [](uint16_t v) { return bf16_to_float(v); });
    case DType::f16:
      return convert<uint16_t>(source, target, [](uint16_t v) { return f16_to_float(v); });
    default:
      NIBBLE_CHECK(false, "to_float of {}", dtype_name(source.dtype));
  }
}

std::vector<float> to_float(const TensorView& source) {
  std::vector<float> out(static_cast<size_t>(source.count()));
  to_float(source, out.data());
  return out;
}

void from_float(std::span<const float> source, DType dtype, std::byte* target) {
  auto* words = reinterpret_cast<uint16_t*>(target);
  switch (dtype) {
    case DType::f32:
      if (!source.empty()) std::memcpy(target, source.data(), source.size_bytes());
      return;
    case DType::f64:
      std::copy(source.begin(), source.end(), reinterpret_cast<double*>(target));
      return;
    case DType::bf16:
      std::transform(source.begin(), source.end(), words, float_to_bf16);
      return;
    case DType::f16:
      std::transform(source.begin(), source.end(), words, float_to_f16);
      return;
    default:
      NIBBLE_CHECK(false, "from_float to {}", dtype_name(dtype));
  }
}

Matrix Matrix::zeros(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  std::fill_n(m.data(), rows * cols, 0.0f);
  return m;
}

}  // namespace nibble
