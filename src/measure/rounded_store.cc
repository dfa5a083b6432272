#include "measure/rounded_store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace nibble::measure {
namespace {

/// A new file without a name.
io::Descriptor scratch_file(const std::filesystem::path& folder) {
  std::string name = (folder / ".nibble-scratch-XXXXXX").string();
  io::Descriptor file(mkostemp(name.data(), O_CLOEXEC));
  if (!file.open())
    fail("{}: no scratch file for rounded weights can be made: {}", folder.string(), io::system_message(errno));
  unlink(name.c_str());
  return file;
}

}  // namespace

RoundedStore::RoundedStore(const std::filesystem::path& folder)
    : folder_(folder), file_(scratch_file(folder)) {}

void RoundedStore::put(const std::string& linear, const quant::Packed4& packed) {
  NIBBLE_CHECK(packed.format == quant::Format::nf4 && packed.nested && packed.block == quant::kBlock);
  Entry entry{.shape = packed.shape,
              .dtype = packed.dtype,
              .begin = end_,
              .codes = std::ssize(packed.codes),
              .blocks = std::ssize(packed.nested->q),
              .scales = std::ssize(packed.nested->absmax),
              .offset = packed.nested->offset};
  const auto append = [&](std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(file_.get(), bytes.data(), bytes.size(), end_);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail("{}: the scratch file for rounded weights cannot grow beyond {} bytes: {}", folder_.string(), end_,
             io::system_message(n < 0 ? errno : ENOSPC));
      end_ += n;
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  };
  append(std::as_bytes(std::span(packed.codes)));
  append(std::as_bytes(std::span(packed.nested->q)));
  append(std::as_bytes(std::span(packed.nested->absmax)));
  entries_[linear] = std::move(entry);
}

quant::Packed4 RoundedStore::get(const std::string& linear) const {
  const auto it = entries_.find(linear);
  NIBBLE_CHECK(it != entries_.end(), "{} was not rounded", linear);
  const Entry& entry = it->second;
  int64_t at = entry.begin;
  const auto read = [&](std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = pread(file_.get(), bytes.data(), bytes.size(), at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail("{}: the scratch file for rounded weights cannot be read: {}", folder_.string(),
             n < 0 ? io::system_message(errno) : "it ends too early");
      at += n;
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  };
  quant::Packed4 out;
  out.format = quant::Format::nf4;
  out.shape = entry.shape;
  out.dtype = entry.dtype;
  out.code = quant::code_values(quant::Format::nf4);
  out.codes.resize(static_cast<size_t>(entry.codes));
  out.nested.emplace();
  out.nested->map = quant::dynamic_map();
  out.nested->offset = entry.offset;
  out.nested->q.resize(static_cast<size_t>(entry.blocks));
  out.nested->absmax.resize(static_cast<size_t>(entry.scales));
  read(std::as_writable_bytes(std::span(out.codes)));
  read(std::as_writable_bytes(std::span(out.nested->q)));
  read(std::as_writable_bytes(std::span(out.nested->absmax)));
  return out;
}

}  // namespace nibble::measure
