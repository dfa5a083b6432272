// Tensors: views of bytes with a dtype and a shape, owned buffers, and fp32 matrices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "tensor/dtype.h"

namespace nibble {

using Shape = std::vector<int64_t>;

/// The most dimensions that a tensor of a file may have.
inline constexpr size_t kMaxRank = 16;

/// "[4096, 64]".
std::string shape_text(const Shape& shape);

/// Read-only bytes of a contiguous row-major tensor. Does not own: what `data` points to must outlive it.
struct TensorView {
  DType dtype = DType::f32;
  Shape shape;
  const std::byte* data = nullptr;

  /// Number of elements; the product of the shape (1 for a scalar).
  int64_t count() const;
  /// Number of bytes. InternalError when it does not fit.
  int64_t bytes() const;
  /// Elements as T, whose size must be that of the dtype.
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

/// An owned, 64-byte aligned, contiguous tensor. Movable; contents start uninitialised. One made without
/// arguments, or moved from, is empty: shape [0], no data.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor(std::move(other)).swap(*this);
    return *this;
  }

  DType dtype() const { return view_.dtype; }
  const Shape& shape() const { return view_.shape; }
  int64_t count() const { return view_.count(); }
  int64_t bytes() const { return view_.bytes(); }
  TensorView view() const { return view_; }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(buffer_.data());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(buffer_.data());
  }

 private:
  void swap(Tensor& other) noexcept {
    buffer_.swap(other.buffer_);
    std::swap(view_, other.view_);
  }

  Buffer buffer_;
  TensorView view_{DType::f32, {0}, nullptr};
};

/// Elements of a float tensor as fp32, exactly (fp64 is rounded). Throws InternalError for other dtypes.
void to_float(const TensorView& source, float* target);
std::vector<float> to_float(const TensorView& source);

/// Rounds fp32 values to a float dtype (to nearest even) at `target`, which is aligned for it. Throws
/// InternalError for other dtypes.
void from_float(std::span<const float> source, DType dtype, std::byte* target);

/// A read-only fp32 matrix, rows `stride` elements apart. Does not own.
struct ConstMatrix {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;

  const float* row(int64_t r) const { return data + r * stride; }
  /// Rows [begin, begin + n).
  ConstMatrix row_range(int64_t begin, int64_t n) const { return {row(begin), n, cols, stride}; }
  /// Columns [begin, begin + n) of every row.
  ConstMatrix col_range(int64_t begin, int64_t n) const { return {data + begin, rows, n, stride}; }
};

/// A writable fp32 matrix. Does not own.
struct MutableMatrix {
  float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;

  float* row(int64_t r) const { return data + r * stride; }
  MutableMatrix row_range(int64_t begin, int64_t n) const { return {row(begin), n, cols, stride}; }
  MutableMatrix col_range(int64_t begin, int64_t n) const { return {data + begin, rows, n, stride}; }
  operator ConstMatrix() const { return {data, rows, cols, stride}; }
};

/// An owned fp32 matrix, 64-byte aligned, rows contiguous. Contents start uninitialised.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : tensor_(DType::f32, {rows, cols}) {}
  static Matrix zeros(int64_t rows, int64_t cols);

  int64_t rows() const { return tensor_.shape().size() == 2 ? tensor_.shape()[0] : 0; }
  int64_t cols() const { return tensor_.shape().size() == 2 ? tensor_.shape()[1] : 0; }
  float* data() { return tensor_.as<float>(); }
  const float* data() const { return tensor_.as<float>(); }
  float* row(int64_t r) { return data() + r * cols(); }
  const float* row(int64_t r) const { return data() + r * cols(); }
  MutableMatrix mut() { return {data(), rows(), cols(), cols()}; }
  ConstMatrix view() const { return {data(), rows(), cols(), cols()}; }
  TensorView tensor() const { return tensor_.view(); }

 private:
  Tensor tensor_;
};

}  // namespace nibble
