#include "measure/rounded_store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "base/error.h"
#include "base/sha256.h"
#include "base/text.h"

namespace nibble::measure {
namespace {

/// A new file without a name.
io::Descriptor scratch_file(const std::filesystem::path& folder) {
  std::string name = (folder / ".nibble-scratch-XXXXXX").string();
  io::Descriptor file(mkostemp(name.data(), O_CLOEXEC));
  if (!file.open())
    fail("{}: no scratch file for rounded weights can be made: {}", folder.string(),
         io::system_message(errno));
  unlink(name.c_str());
  return file;
}

std::string digest_of(const quant::Packed4& packed) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(packed.codes)));
  digest.update(std::as_bytes(std::span(packed.nested->q)));
  digest.update(std::as_bytes(std::span(packed.nested->absmax)));
  return digest.hex();
}

}  // namespace

RoundedStore::RoundedStore(const std::filesystem::path& folder)
    : path_(folder), file_(scratch_file(folder)) {}

RoundedStore::RoundedStore(const std::filesystem::path& file, const io::Json& index)
    : path_(file), file_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) {
  if (!file_.open()) fail("{}: cannot open it: {}", file.string(), io::system_message(errno));
  if (index.is_null()) return;
  end_ = index.at("bytes").get<int64_t>();
  if (io::stamp_of(file_, file).size < end_) fail("{}: is shorter than it was", file.string());
  for (const auto& [name, json] : index.at("linears").items())
    entries_[name] = {.shape = json.at("shape").get<Shape>(),
                      .dtype = static_cast<DType>(json.at("dtype").get<int>()),
                      .begin = json.at("begin").get<int64_t>(),
                      .codes = json.at("codes").get<int64_t>(),
                      .blocks = json.at("blocks").get<int64_t>(),
                      .scales = json.at("scales").get<int64_t>(),
                      .offset = std::bit_cast<float>(json.at("offset").get<uint32_t>()),
                      .sha256 = json.at("sha256").get<std::string>()};
  for (const auto& [name, entry] : entries_)
    if (digest_of(get(name)) != entry.sha256) fail("{}: {} is not what was put there", file.string(), name);
}

io::Json RoundedStore::index() const {
  io::Json linears = io::Json::object();
  for (const auto& [name, entry] : entries_)
    linears[name] = {{"shape", entry.shape},
                     {"dtype", static_cast<int>(entry.dtype)},
                     {"begin", entry.begin},
                     {"codes", entry.codes},
                     {"blocks", entry.blocks},
                     {"scales", entry.scales},
                     {"offset", std::bit_cast<uint32_t>(entry.offset)},
                     {"sha256", entry.sha256}};
  return {{"bytes", end_}, {"linears", std::move(linears)}};
}

void RoundedStore::sync() const {
  if (fdatasync(file_.get()) != 0) fail("{}: cannot sync it: {}", path_.string(), io::system_message(errno));
}

void RoundedStore::put(const std::string& linear, const quant::Packed4& packed) {
  NIBBLE_CHECK(packed.format == quant::Format::nf4 && packed.nested && packed.block == quant::kBlock);
  Entry entry{.shape = packed.shape,
              .dtype = packed.dtype,
              .begin = end_,
              .codes = std::ssize(packed.codes),
              .blocks = std::ssize(packed.nested->q),
              .scales = std::ssize(packed.nested->absmax),
              .offset = packed.nested->offset,
              .sha256 = digest_of(packed)};
  const auto append = [&](std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(file_.get(), bytes.data(), bytes.size(), end_);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail(
            "{}: the scratch file for rounded weights cannot grow beyond {}: {}; make room, or write "
            "elsewhere",
            path_.string(), bytes_text(end_), io::system_message(n < 0 ? errno : ENOSPC));
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
        fail("{}: the scratch file for rounded weights cannot be read: {}", path_.string(),
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
