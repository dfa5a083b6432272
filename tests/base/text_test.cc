#include "base/text.h"

#include <gtest/gtest.h>

#include <bit>
#include <fstream>
#include <limits>
#include <string>

namespace nibble {
namespace {

TEST(PythonRepr, EqualsPythonOnTheGoldens) {
  std::ifstream file(NIBBLE_ROOT "/tests/base/goldens/python_repr.txt");
  std::string bits, expected;
  int lines = 0;
  while (file >> bits >> expected) {
    const double value = std::bit_cast<double>(std::stoull(bits, nullptr, 16));
    EXPECT_EQ(python_repr(value), expected) << bits;
    ++lines;
  }
  EXPECT_GE(lines, 3000);
}

TEST(BytesText, ThreeDigitsInEveryUnit) {
  constexpr int64_t k = 1024;
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1), "1 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(k), "1.00 KiB");
  EXPECT_EQ(bytes_text(10 * k - 6), "9.99 KiB");
  EXPECT_EQ(bytes_text(10 * k - 5), "10.0 KiB");
  EXPECT_EQ(bytes_text(100 * k - 52), "99.9 KiB");
  EXPECT_EQ(bytes_text(100 * k - 51), "100 KiB");
  EXPECT_EQ(bytes_text(999 * k), "999 KiB");
  EXPECT_EQ(bytes_text(1000 * k), "0.977 MiB");
  EXPECT_EQ(bytes_text(k * k - 1), "1.00 MiB");
  EXPECT_EQ(bytes_text(k * k), "1.00 MiB");
  EXPECT_EQ(bytes_text(1943459594), "1.81 GiB");
  EXPECT_EQ(bytes_text(3 * k * k * k * k), "3.00 TiB");
  EXPECT_EQ(bytes_text(std::numeric_limits<int64_t>::max()), "8388608 TiB");
}

TEST(Printable, KeepsTextAndEscapesControl) {
  EXPECT_EQ(printable("model.layers.0.weight"), "model.layers.0.weight");
  EXPECT_EQ(printable("a\nb\tc\x1b[31m\x7f"), "a\\nb\\tc\\x1b[31m\\x7f");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable("é"), "é");
}

TEST(Printable, CutsBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_EQ(printable("日本語", 3), "日...");
  EXPECT_EQ(printable("日本語", 4), "日本...");
  EXPECT_LT(printable(std::string(1 << 20, '\x80')).size(), 220u);
  EXPECT_LT(printable(std::string(1 << 20, '\n')).size(), 220u);
}

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256(std::string_view("\0", 1)),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
}

}  // namespace
}  // namespace nibble
