// safetensors files: reading by mmap with every check of the format, and writing to a plan of offsets.
// Format: 8 bytes little-endian header length, JSON header, tensor bytes without gaps
// (huggingface/safetensors).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"
#include "tensor/tensor.h"

namespace nibble::io {

/// One tensor of a file, without its bytes.
struct TensorInfo {
  DType dtype;
  Shape shape;
  int64_t begin = 0, end = 0;  // bytes from the start of the file
};

/// A mapped safetensors file. Views stay valid as long as the object lives. Thread-safe after construction.
class SafetensorsFile {
 public:
  /// Maps the file and checks its header: length (at most 100 MB and inside the file), JSON, no duplicate
  /// name, known dtypes, shape * size == offsets, offsets inside the file, no overlap, no gap, nothing after
  /// the last. At most 1,000,000 tensors of rank 16 at most, and as many entries of metadata. Dtypes that
  /// safetensors knows and nibble does not compute with (F8_E4M3, U16, ...) are refused by name. Throws Error
  /// naming the file and the tensor. The file must not shrink while it is mapped: reading past its end raises
  /// SIGBUS, whose handler can ask mapped_file_at (mappings.h) for the file.
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::filesystem::path& path() const;
  /// All tensors by name, in byte order of the names.
  const std::map<std::string, TensorInfo>& tensors() const;
  /// "__metadata__" of the header.
  const std::map<std::string, std::string>& metadata() const;
  /// A view into the mapping; bytes that the file places off the dtype's alignment are copied once and kept.
  /// Throws Error when the file has no such tensor.
  TensorView tensor(const std::string& name) const;
  /// Gives memory back: bytes of this file that were read through the mapping and are not needed soon leave
  /// the process; the next read brings them in again. True when the bytes lie in the mapping (others are left
  /// alone).
  bool drop(std::span<const std::byte> bytes) const;
  /// Size and last change of the file when it was opened.
  const FileStamp& stamp() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A tensor that is to be written. `write` puts exactly its bytes through the sink, in pieces of any size.
/// It is called once, when the file's turn comes, so that tensors are made one at a time. Without `write` the
/// tensor is zeros, left as a hole of the file.
struct PlannedTensor {
  std::string name;
  DType dtype;
  Shape shape;
  using Sink = std::function<void(std::span<const std::byte>)>;
  std::function<void(const Sink&)> write;
};

/// Writes one file, byte for byte as safetensors.torch.save_file(..., metadata={"format": "pt"}) does:
/// tensors sorted by dtype (the library's order: I64, F64, F32, I32, BF16, F16, I16, I8, U8, BOOL) then by
/// the bytes of their names, header with "__metadata__":{"format":"pt"} first, padded with spaces to 8 bytes.
/// Goes through `path` + ".nibble-partial", fsync and rename; on any failure the partial file is removed and
/// Error thrown (disk full, unwritable folder, a writer that gives too many or too few bytes). What a writer
/// throws passes through.
void write_safetensors(const std::filesystem::path& path, std::vector<PlannedTensor> tensors);

/// A PlannedTensor of bytes that are already there and stay there until written.
PlannedTensor planned(std::string name, const TensorView& view);

}  // namespace nibble::io
