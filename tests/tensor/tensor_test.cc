#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max() / 2;

template <typename T>
TensorView view_of(DType dtype, const std::vector<T>& values) {
  return {dtype, {static_cast<int64_t>(values.size())}, reinterpret_cast<const std::byte*>(values.data())};
}

TEST(ShapeText, AsLists) {
  EXPECT_EQ(shape_text({}), "[]");
  EXPECT_EQ(shape_text({7}), "[7]");
  EXPECT_EQ(shape_text({4096, 64}), "[4096, 64]");
}

TEST(TensorView, CountsElementsAndBytes) {
  EXPECT_EQ((TensorView{DType::f32, {}, nullptr}.count()), 1);
  EXPECT_EQ((TensorView{DType::f32, {}, nullptr}.bytes()), 4);
  EXPECT_EQ((TensorView{DType::bf16, {3, 5}, nullptr}.bytes()), 30);
  EXPECT_EQ((TensorView{DType::bf16, {3, 0}, nullptr}.bytes()), 0);
}

TEST(TensorView, SizesThatDoNotFitAreInternalErrors) {
  EXPECT_THROW((TensorView{DType::u8, {kHuge, 3}, nullptr}.count()), InternalError);
  EXPECT_THROW((TensorView{DType::u8, {-1}, nullptr}.count()), InternalError);
  EXPECT_EQ((TensorView{DType::u8, {kHuge}, nullptr}.bytes()), kHuge);
  EXPECT_THROW((TensorView{DType::f32, {kHuge}, nullptr}.bytes()), InternalError);
  EXPECT_THROW((Tensor{DType::f64, {kHuge}}), InternalError);
}

TEST(Tensor, IsAlignedAndKeepsItsBytesWhenMoved) {
  for (int64_t n : {0, 1, 3, 1000}) {
    Tensor a(DType::i32, {n});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.as<int32_t>()) % 64, 0u);
    for (int64_t i = 0; i < n; ++i) a.as<int32_t>()[i] = static_cast<int32_t>(i);
    const std::byte* data = a.view().data;
    Tensor b(std::move(a));
    EXPECT_EQ(b.view().data, data);
    EXPECT_EQ(b.shape(), Shape{n});
    EXPECT_EQ(b.dtype(), DType::i32);
    Tensor c;
    c = std::move(b);
    EXPECT_EQ(c.view().data, data);
    EXPECT_EQ(c.as<std::byte>(), data);
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(c.as<int32_t>()[i], i);
  }
}

TEST(Tensor, DefaultAndMovedFromAreEmpty) {
  Tensor a;
  EXPECT_EQ(a.count(), 0);
  EXPECT_EQ(a.bytes(), 0);
  Tensor b(DType::bf16, {4, 4});
  Tensor c(std::move(b));
  EXPECT_EQ(b.count(), 0);  // NOLINT: the moved-from state is part of the contract
  EXPECT_EQ(b.view().data, nullptr);
  b = Tensor(DType::u8, {2});
  EXPECT_EQ(b.count(), 2);
  static_assert(!std::is_copy_constructible_v<Tensor>);
  static_assert(std::is_nothrow_move_constructible_v<Tensor>);
}

TEST(ToFloat, EveryFloatType) {
  EXPECT_EQ(to_float(view_of<float>(DType::f32, {1.5f, -0.0f})), (std::vector<float>{1.5f, -0.0f}));
  EXPECT_EQ(to_float(view_of<double>(DType::f64, {0.1, 1e300})), (std::vector<float>{0.1f, INFINITY}));
  EXPECT_EQ(to_float(view_of<uint16_t>(DType::bf16, {0x3fc0, 0xc000})), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(to_float(view_of<uint16_t>(DType::f16, {0x3e00, 0xc000})), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(to_float(TensorView{DType::bf16, {0, 4}, nullptr}), std::vector<float>{});
  EXPECT_THROW(to_float(view_of<int8_t>(DType::i8, {1})), InternalError);
}

template <typename T>
std::vector<T> from(const std::vector<float>& values, DType dtype) {
  std::vector<T> out(values.size());
  from_float(values, dtype, reinterpret_cast<std::byte*>(out.data()));
  return out;
}

TEST(FromFloat, EveryFloatType) {
  const std::vector<float> values = {1.5f, -2.0f, 1.00390625f, 65520.0f};  // the third is a tie in bf16
  EXPECT_EQ(from<float>(values, DType::f32), values);
  EXPECT_EQ(from<double>(values, DType::f64), (std::vector<double>{1.5, -2.0, 1.00390625, 65520.0}));
  EXPECT_EQ(from<uint16_t>(values, DType::bf16), (std::vector<uint16_t>{0x3fc0, 0xc000, 0x3f80, 0x4780}));
  EXPECT_EQ(from<uint16_t>(values, DType::f16), (std::vector<uint16_t>{0x3e00, 0xc000, 0x3c04, 0x7c00}));
  EXPECT_THROW(from<int64_t>(values, DType::i64), InternalError);
  from_float({}, DType::f32, nullptr);
}

TEST(Matrix, RowsColumnsAndRanges) {
  Matrix m = Matrix::zeros(3, 4);
  EXPECT_EQ(m.rows(), 3);
  EXPECT_EQ(m.cols(), 4);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(m.data()[i], 0.0f);
    m.data()[i] = static_cast<float>(i);
  }
  EXPECT_EQ(m.row(2)[1], 9.0f);
  const ConstMatrix part = m.view().row_range(1, 2).col_range(2, 2);  // (2, 2)
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part.cols, 2);
  EXPECT_EQ(part.row(0)[0], 6.0f);
  EXPECT_EQ(part.row(1)[1], 11.0f);
  m.mut().col_range(3, 1).row(0)[0] = -1.0f;
  EXPECT_EQ(m.data()[3], -1.0f);
  const ConstMatrix whole = m.mut();
  EXPECT_EQ(whole.data, m.data());
  EXPECT_EQ(whole.stride, 4);
  EXPECT_EQ(m.tensor().shape, (Shape{3, 4}));
}

TEST(Matrix, DefaultIsEmpty) {
  const Matrix m;
  EXPECT_EQ(m.rows(), 0);
  EXPECT_EQ(m.cols(), 0);
  EXPECT_EQ(m.view().rows, 0);
}

}  // namespace
}  // namespace nibble
