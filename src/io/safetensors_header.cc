#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "io/sax.h"

namespace nibble::io {
namespace {

constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxMetadata = 1'000'000;
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kGetAgain = "the file is damaged, get it again";

/// Dtypes of the safetensors library that nibble does not compute with.
constexpr std::array<std::string_view, 12> kOtherDtypes = {"F4",      "F6_E2M3", "F6_E3M2",     "F8_E5M2",
                                                           "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                                           "U16",     "U32",     "U64",         "C64"};

/// Reads the header's events into tensors and metadata without building a tree: {"__metadata__": {text:
/// text}, name: {"dtype": text, "shape": [n, ...], "data_offsets": [begin, end]}, ...}. Further fields of a
/// tensor are passed over, as the library does.
class HeaderHandler : public SaxHandler {
 public:
  /// `where` names the header in errors of syntax, `path` the file in all others.
  HeaderHandler(std::string_view text, std::string_view where, std::string_view path, int64_t data_begin,
                int64_t file_bytes)
      : SaxHandler(text, where), path_(path), data_begin_(data_begin), file_bytes_(file_bytes) {}

  SafetensorsHeader header;

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("true or false"); }
  bool number_integer(int64_t value) override { return scalar(fmt::format("the negative number {}", value)); }
  bool number_float(double, const std::string& text) override {
    return scalar(fmt::format("the fractional or too large number {}", printable(text, 40)));
  }

  bool number_unsigned(uint64_t value) override {
    if (state_ != State::shape && state_ != State::offsets) return scalar("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return scalar(fmt::format("the too large number {}", value));
    auto& list = state_ == State::shape ? *shape_ : *offsets_;
    const size_t most = state_ == State::shape ? kMaxRank : 2;
    if (list.size() == most) wrong(fmt::format("{} has more than {} numbers", printable(field_), most));
    list.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(std::string& value) override {
    if (state_ == State::metadata) {
      if (header.metadata.size() == kMaxMetadata)
        fail("{}: has more than {} entries of {}, the most that nibble reads", path_, kMaxMetadata,
             kMetadata);
      header.metadata[field_] = std::move(value);
      return true;
    }
    if (state_ != State::tensor || field_ != "dtype") return scalar("a string");
    dtype_ = std::move(value);
    return true;
  }

  bool key(std::string& name) override {
    if (state_ == State::skip) return true;
    if (state_ == State::top) {
      name_ = std::move(name);
      const bool twice = name_ == kMetadata ? metadata_seen_ : header.tensors.contains(name_);
      if (twice) fail("{}: the header has \"{}\" twice; {}", path_, printable(name_), kGetAgain);
      if (header.tensors.size() == kMaxTensors)
        fail("{}: has more than {} tensors, the most that nibble reads", path_, kMaxTensors);
      return true;
    }
    field_ = std::move(name);
    const bool twice = state_ == State::metadata
                           ? header.metadata.contains(field_)
                           : (field_ == "dtype" && dtype_) || (field_ == "shape" && shape_) ||
                                 (field_ == "data_offsets" && offsets_);
    if (twice) wrong(fmt::format("has \"{}\" twice", printable(field_)));
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::before) {
      state_ = State::top;
    } else if (state_ == State::top && name_ == kMetadata) {
      state_ = State::metadata;
      metadata_seen_ = true;
    } else if (state_ == State::top) {
      state_ = State::tensor;
      dtype_.reset();
      shape_.reset();
      offsets_.reset();
    } else {
      open_other("an object");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (state_ == State::tensor && field_ == "shape") {
      state_ = State::shape;
      shape_.emplace();
    } else if (state_ == State::tensor && field_ == "data_offsets") {
      state_ = State::offsets;
      offsets_.emplace();
    } else {
      open_other("an array");
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor) finish_tensor();
    if (state_ == State::skip) return close_other();
    state_ = State::top;
    return true;
  }

  bool end_array() override {
    if (state_ == State::skip) return close_other();
    state_ = State::tensor;
    return true;
  }

 private:
  enum class State { before, top, metadata, tensor, shape, offsets, skip };

  bool known_field() const { return field_ == "dtype" || field_ == "shape" || field_ == "data_offsets"; }

  [[noreturn]] void wrong(std::string_view problem) const {
    if (state_ == State::metadata) fail("{}: {} of the header {}; {}", path_, kMetadata, problem, kGetAgain);
    fail("{}: tensor \"{}\": {}; {}", path_, printable(name_), problem, kGetAgain);
  }

  /// A scalar where none of this kind belongs; fields that are not known may hold anything.
  bool scalar(std::string_view kind) const {
    if (state_ == State::skip || (state_ == State::tensor && !known_field())) return true;
    misplaced(kind);
  }

  [[noreturn]] void misplaced(std::string_view kind) const {
    if (state_ == State::before) fail("{}: the header is {}, not an object; {}", path_, kind, kGetAgain);
    if (state_ == State::top) wrong(fmt::format("its entry is {}, not an object", kind));
    wrong(fmt::format("\"{}\" has {} where it does not belong", printable(field_), kind));
  }

  void open_other(std::string_view kind) {
    if (state_ != State::skip && (state_ != State::tensor || known_field())) misplaced(kind);
    state_ = State::skip;
    ++skip_depth_;
  }

  bool close_other() {
    if (--skip_depth_ == 0) state_ = State::tensor;
    return true;
  }

  DType dtype() const {
    if (const auto type = parse_dtype(*dtype_)) return *type;
    if (std::find(kOtherDtypes.begin(), kOtherDtypes.end(), *dtype_) != kOtherDtypes.end())
      fail(
          "{}: tensor \"{}\" has dtype {}, which nibble does not compute with; take the 16-bit checkpoint "
          "(BF16 or F16)",
          path_, printable(name_), *dtype_);
    wrong(fmt::format("its dtype \"{}\" is none of safetensors'", printable(*dtype_, 40)));
  }

  void finish_tensor() {
    if (!dtype_) wrong("its entry has no \"dtype\"");
    if (!shape_) wrong("its entry has no \"shape\"");
    if (!offsets_ || offsets_->size() != 2) wrong("its entry has no \"data_offsets\" of two numbers");
    const DType type = dtype();
    const auto count = checked_product(*shape_);
    const auto bytes = count ? checked_mul(*count, dtype_size(type)) : std::nullopt;
    if (!bytes) wrong(fmt::format("its shape {} is too large", shape_text(*shape_)));
    const int64_t begin = (*offsets_)[0], end = (*offsets_)[1];
    if (begin > end) wrong(fmt::format("its data begins at {} and ends before, at {}", begin, end));
    if (end - begin != *bytes)
      wrong(fmt::format("{} of shape {} takes {} bytes, but its data_offsets [{}, {}] hold {}", *dtype_,
                        shape_text(*shape_), *bytes, begin, end, end - begin));
    const auto end_in_file = checked_add(data_begin_, end);
    if (!end_in_file || *end_in_file > file_bytes_)
      wrong(fmt::format("its data ends at byte {} after the header, but the file has only {}: it is cut off",
                        end, file_bytes_ - data_begin_));
    header.tensors.emplace(name_, TensorInfo{type, std::move(*shape_), data_begin_ + begin, *end_in_file});
  }

  std::string_view path_;
  int64_t data_begin_, file_bytes_;
  State state_ = State::before;
  int skip_depth_ = 0;
  bool metadata_seen_ = false;
  std::string name_, field_;  // of the entry and of its field that comes next
  std::optional<std::string> dtype_;
  std::optional<Shape> shape_, offsets_;
};

/// The tensors must follow one another from the header to the end of the file.
void check_layout(const std::map<std::string, TensorInfo>& tensors, std::string_view what, int64_t data_begin,
                  int64_t file_bytes) {
  std::vector<const std::pair<const std::string, TensorInfo>*> order;
  order.reserve(tensors.size());
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t expected = data_begin;
  const std::string* before = nullptr;
  for (const auto* tensor : order) {
    const auto& [name, info] = *tensor;
    if (info.begin < expected)
      fail("{}: tensor \"{}\" overlaps tensor \"{}\"; {}", what, printable(name), printable(*before),
           kGetAgain);
    if (info.begin > expected)
      fail("{}: {} bytes before tensor \"{}\" belong to no tensor; {}", what, info.begin - expected,
           printable(name), kGetAgain);
    expected = info.end;
    before = &name;
  }
  if (expected != file_bytes)
    fail("{}: {} bytes after the last tensor belong to no tensor; {}", what, file_bytes - expected,
         kGetAgain);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, std::string_view what, int64_t data_begin,
                                           int64_t file_bytes) {
  const std::string where = fmt::format("{}: header", what);
  if (!text.starts_with('{')) fail("{}: the header does not begin with \"{{\"; {}", what, kGetAgain);
  HeaderHandler handler(text, where, what, data_begin, file_bytes);
  handler.parse();
  check_layout(handler.header.tensors, what, data_begin, file_bytes);
  return std::move(handler.header);
}

}  // namespace nibble::io
