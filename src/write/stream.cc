#include "write/stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "quant/int8.h"

namespace nibble::write {
namespace {

constexpr int64_t kCopyPiece = int64_t{256} << 10;  // bytes; a multiple of every element
constexpr int64_t kCopyBatch = int64_t{16} << 20;   // bytes that are hashed while the next are read

bool is_state(const std::string& suffix) {
  return suffix.starts_with(".quant_state.");
}

std::span<const std::byte> bytes_of(const TensorView& view) {
  return {view.data, static_cast<size_t>(view.bytes())};
}

}  // namespace

int64_t Item::bytes() const {
  int64_t sum = 0;
  for (const io::TensorPlan& t : tensors) sum += t.bytes();
  return sum;
}

Stream::Stream(const model::Binding& source, StreamOptions options)
    : source_(source), options_(std::move(options)) {}

/// task(i) for each i in [0, n), and beside it the digests that are due.
void Stream::run(int64_t n, const std::function<void(int64_t)>& task) {
  const auto jobs = std::exchange(deferred_, {});
  const int64_t first = std::ssize(jobs);
  parallel_for(first + n, [&](int64_t i) {
    if (i < first)
      jobs[static_cast<size_t>(i)]();
    else
      task(i - first);
  });
}

void Stream::check_finite(const Item& item, int64_t first, const TensorView& part) const {
  if (options_.allow_nonfinite && item.kind == Item::Kind::copy) return;
  if (const auto at = quant::find_nonfinite(part)) source_.refuse_nonfinite(item.source, first + *at);
}

/// task(i, elements) for every piece of the item's weight; `checked`: all of them were found to be finite
/// before.
void Stream::read_pieces(const Item& item, bool checked,
                         const std::function<void(int64_t, const std::byte*)>& task) {
  const io::TensorBytes bytes = source_.checkpoint().bytes(item.source);
  const DType dtype = source_.checkpoint().tensors().at(item.source).dtype;
  const int64_t piece = quant::kPiece * dtype_size(dtype);
  run(quant::block_count(bytes.size(), piece), [&](int64_t i) {
    thread_local std::vector<std::byte> buffer;
    buffer.resize(static_cast<size_t>(std::min(piece, bytes.size() - i * piece)));
    bytes.read(i * piece, buffer);
    if (!checked)
      check_finite(item, i * quant::kPiece, {dtype, {std::ssize(buffer) / dtype_size(dtype)}, buffer.data()});
    task(i, buffer.data());
  });
}

/// Takes the digest of bytes that stay where they are until the work after the next begins.
void Stream::hash(const std::string& name, std::span<const std::byte> bytes,
                  std::shared_ptr<const void> owner) {
  std::string& digest = written_.digests[name];
  deferred_.push_back([&digest, bytes, owner = std::move(owner)] {
    Sha256 sha;
    sha.update(bytes);
    digest = sha.hex();
  });
}

void Stream::write(Item& item, io::ShardFile& file) {
  switch (item.kind) {
    case Item::Kind::copy:
      copy(item, file);
      break;
    case Item::Kind::plain4:
    case Item::Kind::rounded4:
      write4(item, file);
      break;
    case Item::Kind::plain8:
      write8(item, file);
  }
  file.begin_sync();
}

void Stream::copy(const Item& item, io::ShardFile& file) {
  const io::TensorPlan& plan = item.tensors.front();
  const io::TensorBytes bytes = source_.checkpoint().bytes(item.source);
  const auto sha = std::make_shared<Sha256>();
  for (int64_t begin = 0; begin < bytes.size(); begin += kCopyBatch) {
    std::vector<std::byte>& buffer = buffers_[buffer_ ^= 1];
    buffer.resize(static_cast<size_t>(std::min(kCopyBatch, bytes.size() - begin)));
    run(quant::block_count(std::ssize(buffer), kCopyPiece), [&](int64_t i) {
      const auto at = static_cast<size_t>(i * kCopyPiece);
      const std::span part =
          std::span(buffer).subspan(at, std::min(buffer.size() - at, static_cast<size_t>(kCopyPiece)));
      const int64_t offset = begin + i * kCopyPiece, size = dtype_size(plan.dtype);
      bytes.read(offset, part);
      check_finite(item, offset / size, {plan.dtype, {std::ssize(part) / size}, part.data()});
      file.write(plan.name, offset, part);
    });
    deferred_.push_back([sha, part = std::span<const std::byte>(buffer)] { sha->update(part); });
    if (options_.progress) options_.progress(std::ssize(buffer));
  }
  // The last piece's digest must be there first.
  std::string& digest = written_.digests[plan.name];
  const auto last = deferred_.empty() || bytes.size() == 0 ? std::function<void()>() : deferred_.back();
  if (last) deferred_.pop_back();
  deferred_.push_back([sha, last, &digest] {
    if (last) last();
    digest = sha->hex();
  });
}

/// The item's weight as it is stored.
const quant::Packed4& Stream::round(const Item& item) {
  Slot& slot = slots_[slot_ ^= 1];
  if (item.kind == Item::Kind::rounded4) return slot.given = options_.rounded(item.linear);
  const io::TensorInfo& info = source_.checkpoint().tensors().at(item.source);
  slot.encoder.start(info.shape, info.dtype, quant::Format::nf4);
  read_pieces(item, false, [&](int64_t i, const std::byte* elements) { slot.encoder.encode(i, elements); });
  return slot.encoder.finish();
}

void Stream::look(Item& item) {
  if (item.exact) return;
  run(0, {});  // round() uses a slot again
  item.tensors.back().shape = {std::ssize(quant::quant_state_json(round(item)))};
  item.exact = true;
}

void Stream::write4(Item& item, io::ShardFile& file) {
  const DType dtype = source_.checkpoint().tensors().at(item.source).dtype;
  const quant::Packed4& packed = round(item);
  const std::vector<quant::StoredTensor> stored = quant::to_tensors(packed);
  for (const quant::StoredTensor& t : stored) {
    if (!is_state(t.suffix)) continue;
    item.tensors.back().shape = t.view.shape;
    item.exact = true;
    file.set_length(item.source + t.suffix, t.view.bytes());
  }
  const std::span codes = bytes_of(stored.front().view);
  constexpr size_t kCodes = quant::kPiece / 2;
  quant::PieceError error(packed);
  read_pieces(item, item.kind == Item::Kind::plain4, [&](int64_t i, const std::byte* elements) {
    const size_t at = static_cast<size_t>(i) * kCodes;
    error.add(i, dtype, elements);
    file.write(item.source, i * static_cast<int64_t>(kCodes),
               codes.subspan(at, std::min(kCodes, codes.size() - at)));
  });
  written_.errors[item.linear] = error.error().relative;
  hash(item.source, codes);
  for (const quant::StoredTensor& t : stored) {
    if (t.suffix.empty()) continue;
    file.write(item.source + t.suffix, 0, bytes_of(t.view));
    hash(item.source + t.suffix, bytes_of(t.view), t.text);
  }
  if (options_.progress) options_.progress(item.bytes());
}

void Stream::write8(const Item& item, io::ShardFile& file) {
  const io::TensorInfo& info = source_.checkpoint().tensors().at(item.source);
  const io::TensorBytes bytes = source_.checkpoint().bytes(item.source);
  const int64_t out = info.shape.at(0), in = info.shape.at(1), size = dtype_size(info.dtype);
  const int64_t rows = std::max<int64_t>(1, quant::kPiece / std::max<int64_t>(1, in));
  quant::Packed8& packed = slots_[slot_ ^= 1].packed8;
  packed.shape = info.shape;
  packed.dtype = info.dtype;
  packed.codes.resize(static_cast<size_t>(out * in));
  packed.scb.resize(static_cast<size_t>(out));
  run(quant::block_count(out, rows), [&](int64_t i) {
    const int64_t first = i * rows, n = std::min(rows, out - first);
    std::vector<std::byte> buffer(static_cast<size_t>(n * in * size));
    bytes.read(first * in * size, buffer);
    const TensorView part{info.dtype, {n, in}, buffer.data()};
    check_finite(item, first * in, part);
    if (const auto at = quant::find_beyond_f16(part))
      fail(
          "{}: tensor {}: element {} is beyond fp16, which LLM.int8 rounds to first; keep this linear, or "
          "take 4 "
          "bits",
          source_.checkpoint().file_of(item.source).string(), item.source, first * in + *at);
    const quant::Packed8 coded = quant::encode8(part);
    std::copy(coded.codes.begin(), coded.codes.end(), packed.codes.begin() + first * in);
    std::copy(coded.scb.begin(), coded.scb.end(), packed.scb.begin() + first);
    file.write(item.source, first * in, std::as_bytes(std::span(coded.codes)));
  });
  const std::string stored = item.source.substr(0, item.source.size() - 7);
  for (const quant::StoredTensor& t : quant::to_tensors8(packed)) {
    if (t.suffix != ".weight") file.write(stored + t.suffix, 0, bytes_of(t.view));
    hash(stored + t.suffix, bytes_of(t.view), t.text);
  }
  if (options_.progress) options_.progress(item.bytes());
}

Written Stream::take() {
  run(0, {});
  return std::exchange(written_, {});
}

}  // namespace nibble::write
