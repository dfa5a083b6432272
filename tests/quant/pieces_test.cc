// Piece by piece is bit for bit the whole.
#include "quant/pieces.h"

#include "quant/helpers.h"

namespace nibble::quant {
namespace {

TEST(Pieces, EncodeAndErrorAsOfTheWholeTensor) {
  PieceEncoder encoder;  // used again: what a larger tensor leaves behind must not show
  for (const int64_t count : {3 * kPiece + 77, kPiece, int64_t{100}, int64_t{63}, int64_t{1}})
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32})
      for (const Format format : {Format::nf4, Format::fp4}) {
        const Tensor w = samples(count, dtype, 77);
        encoder.start({count}, dtype, format);
        EXPECT_EQ(encoder.pieces(), block_count(count, kPiece));
        const auto piece = [&](int64_t i) { return w.as<std::byte>() + i * kPiece * dtype_size(dtype); };
        for (int64_t i = encoder.pieces(); i-- > 0;) encoder.encode(i, piece(i));
        const Packed4& packed = encoder.finish();
        expect_same(packed, encode4(w.view(), format, true), fmt::format("{} {}", count, dtype_name(dtype)));
        PieceOffset offset(count);
        for (int64_t i = offset.pieces(); i-- > 0;) offset.add(i, dtype, piece(i));
        EXPECT_EQ(offset.offset(), packed.nested->offset);
        PieceError sums(packed);
        for (int64_t i = sums.pieces(); i-- > 0;) sums.add(i, dtype, piece(i));
        const WeightError expected = weight_error(w.view(), decode4(packed).view());
        EXPECT_EQ(sums.error().relative, expected.relative);
        EXPECT_EQ(sums.error().largest_block, expected.largest_block);
      }
}

TEST(Pieces, AnOffsetTellsWhetherAllIsFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      std::vector<float> values(kPiece + 77, 1.0f);
      values[kPiece + 70] = bad;
      const auto offset = [&] {
        Tensor w(dtype, {std::ssize(values)});
        from_float(values, dtype, w.as<std::byte>());
        PieceOffset out(std::ssize(values));
        for (int64_t i = 0; i < out.pieces(); ++i)
          out.add(i, dtype, w.as<std::byte>() + i * kPiece * dtype_size(dtype));
        return out.offset();
      };
      EXPECT_FALSE(std::isfinite(offset()));
      values[kPiece + 70] = -1;
      EXPECT_EQ(offset(), 1);
    }
}

}  // namespace
}  // namespace nibble::quant
