// The tensors of a checkpoint on their way from the source's files into new ones, piece by piece.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "io/shard_file.h"
#include "model/binding.h"
#include "quant/pieces.h"

namespace nibble::write {

/// A tensor of the source and what is written for it; its tensors stay in one file.
struct Item {
  enum class Kind { copy, plain4, rounded4, plain8 };

  Kind kind = Kind::copy;
  std::string source;  // name of the tensor in the source's files
  std::string linear;  // published name of the linear; "" for a copy
  std::vector<io::TensorPlan> tensors;
  bool exact =
      true;  // false: the last of `tensors` has the length that bitsandbytes::likely_state_bytes gives

  int64_t bytes() const;
};

/// What is known about tensors once they are written.
struct Written {
  std::map<std::string, std::string> digests;  // SHA-256 of each tensor's bytes
  std::map<std::string, double> errors;        // weight error of each 4-bit linear
};

struct StreamOptions {
  bool allow_nonfinite = false;
  std::function<quant::Packed4(const std::string&)> rounded;  // gives linears of Kind::rounded4
  std::function<void(int64_t)> progress;                      // is told the bytes of every tensor written
};

/// Reads, rounds, hashes and writes with bounded memory: beside a few buffers, the codes and absmax values of
/// two linears. Work is cut by shape alone; the bytes do not depend on the number of threads. The digest of
/// what was written last is taken while the next piece is read and rounded. Not thread-safe.
class Stream {
 public:
  /// `source` must outlive the object.
  Stream(const model::Binding& source, StreamOptions options);

  /// Writes an item's tensors. An item that is not exact becomes so. Items must come in the file's order from
  /// the first tensor that stands behind one of unknown length. Throws Error for weights that are not finite
  /// or that the format cannot hold, for a source that changes or cannot be read, and for a full disk.
  void write(Item& item, io::ShardFile& file);
  /// Makes an item exact without writing it.
  void look(Item& item);
  /// Everything written since the last call.
  Written take();

 private:
  struct Slot {
    quant::PieceEncoder encoder;
    quant::Packed4 given;
    quant::Packed8 packed8;
  };

  void run(int64_t n, const std::function<void(int64_t)>& task);
  void check_finite(const Item& item, int64_t first, const TensorView& part) const;
  void read_pieces(const Item& item, bool checked,
                   const std::function<void(int64_t, const std::byte*)>& task);
  void hash(const std::string& name, std::span<const std::byte> bytes,
            std::shared_ptr<const void> owner = {});
  const quant::Packed4& round(const Item& item);
  void copy(const Item& item, io::ShardFile& file);
  void write4(Item& item, io::ShardFile& file);
  void write8(const Item& item, io::ShardFile& file);

  const model::Binding& source_;
  StreamOptions options_;
  std::vector<std::function<void()>> deferred_;    // digests to be taken beside the next work
  std::array<Slot, 2> slots_;                      // by turns: what is written last is still to be hashed
  std::array<std::vector<std::byte>, 2> buffers_;  // likewise
  size_t slot_ = 0, buffer_ = 0;
  Written written_;
};

}  // namespace nibble::write
