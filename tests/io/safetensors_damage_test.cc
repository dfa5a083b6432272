// Damaged safetensors files: whatever happens to the bytes, opening either throws Error or yields views that
// lie inside the file. Meant to be run with sanitizers as well.
#include <numeric>
#include <random>

#include "io/safetensors.h"
#include "io/temp_folder.h"

namespace nibble::io {
namespace {

using namespace testing_io;

/// True when the file opens. Then its tensors must fill the data without overlap, and all bytes must be
/// readable.
bool opens_consistently(const std::filesystem::path& path, size_t file_bytes) {
  try {
    const SafetensorsFile file(path);
    int64_t data = 0;
    for (const auto& [name, info] : file.tensors()) {
      EXPECT_LE(0, info.begin);
      EXPECT_LE(info.begin, info.end);
      EXPECT_LE(info.end, static_cast<int64_t>(file_bytes));
      const TensorView view = file.tensor(name);
      EXPECT_EQ(view.bytes(), info.end - info.begin);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(dtype_size(view.dtype)), 0u);
      const auto* bytes = view.as<uint8_t>();
      volatile unsigned sum = std::accumulate(bytes, bytes + view.bytes(), 0u);
      static_cast<void>(sum);
      data += view.bytes();
    }
    EXPECT_LE(data + 8, static_cast<int64_t>(file_bytes));
    return true;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return false;
  }
}

class Damage : public testing::TestWithParam<const char*> {
 protected:
  std::string valid_ = get(kGoldens / GetParam());
  size_t header_end_ =
      8 + static_cast<unsigned char>(valid_[0]) + 256u * static_cast<unsigned char>(valid_[1]);
  TempFolder folder_;
  std::mt19937 rng_{1};

  bool opens(const std::string& bytes) {
    const auto path = folder_ / "x.safetensors";
    std::filesystem::remove(path);  // a new file: some file systems flush one that is overwritten
    put(path, bytes);
    return opens_consistently(path, bytes.size());
  }
  size_t below(size_t n) { return rng_() % n; }
};
INSTANTIATE_TEST_SUITE_P(, Damage,
                         testing::Values("dtypes.safetensors", "names.safetensors", "shapes.safetensors"));

TEST_P(Damage, TheFileItselfOpens) {
  EXPECT_TRUE(opens(valid_));
}

TEST_P(Damage, EveryTruncationIsRefused) {
  for (size_t n = 0; n < valid_.size(); ++n) EXPECT_FALSE(opens(valid_.substr(0, n))) << n;
}

TEST_P(Damage, TrailingBytesAreRefused) {
  for (size_t n : {1, 7, 8, 4096}) EXPECT_FALSE(opens(valid_ + std::string(n, '\0'))) << n;
}

TEST_P(Damage, EverySingleBitOfLengthAndHeader) {
  for (size_t bit = 0; bit < 8 * header_end_; ++bit) {
    std::string bytes = valid_;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    const bool ok = opens(bytes);
    EXPECT_FALSE(ok && bit < 64) << "bit " << bit << " of the length";
  }
}

TEST_P(Damage, RandomBytesReplaced) {
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = valid_;
    for (size_t n = 1 + below(6); n > 0; --n) bytes[below(header_end_)] = static_cast<char>(rng_());
    opens(bytes);
  }
}

/// Characters that JSON and the offsets are made of, put in, taken out and swapped: these get past the
/// parser.
TEST_P(Damage, RandomEditsOfTheHeader) {
  const std::string alphabet = "0123456789{}[],:\"\\ -.eEnulltrue";
  int opened = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string header = valid_.substr(8, header_end_ - 8);
    for (size_t n = 1 + below(3); n > 0; --n) {
      const size_t at = below(header.size());
      switch (below(4)) {
        case 0:
          header[at] = alphabet[below(alphabet.size())];
          break;
        case 1:
          header.insert(at, 1, alphabet[below(alphabet.size())]);
          break;
        case 2:
          header.erase(at, 1 + below(4));
          break;
        default:
          std::swap(header[at], header[below(header.size())]);
      }
    }
    opened += opens(safetensors_bytes(header, valid_.substr(header_end_)));
  }
  EXPECT_GT(opened, 0);  // changes in names and spaces do no harm
}

TEST_P(Damage, RandomBytesAloneAreRefused) {
  for (int round = 0; round < 500; ++round) {
    std::string bytes(below(300), '\0');
    for (char& c : bytes) c = static_cast<char>(rng_());
    EXPECT_FALSE(opens(bytes));
  }
}

}  // namespace
}  // namespace nibble::io
