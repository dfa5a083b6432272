#include "text/split_regex.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

/// Steps of ICU's engine, in its units of ten thousand, for one text: a word pattern takes a few per
/// character.
constexpr int64_t kSteps = 2000;
constexpr int64_t kBytesPerStep = 100;
/// Bytes that ICU's engine may keep to come back to.
constexpr int64_t kStack = int64_t{1} << 24;
constexpr int64_t kStackPerByte = 256;

void check(UErrorCode status) {
  NIBBLE_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
}

/// Turns positions in UTF-16 into positions in UTF-8, for positions that never go back.
class Positions {
 public:
  explicit Positions(std::string_view text) : text_(text) {}

  size_t utf8(int32_t position) {
    while (utf16_ < position) {
      const size_t length = utf8_length(text_[utf8_]);
      utf8_ += length;
      utf16_ += length == 4 ? 2 : 1;
    }
    return utf8_;
  }

 private:
  std::string_view text_;
  size_t utf8_ = 0;
  int32_t utf16_ = 0;
};

}  // namespace

SplitRegex::SplitRegex(std::string_view icu_pattern, std::string what) : what_(std::move(what)) {
  UErrorCode status = U_ZERO_ERROR;
  UParseError place;
  const auto text = icu::UnicodeString::fromUTF8(
      icu::StringPiece(icu_pattern.data(), static_cast<int32_t>(icu_pattern.size())));
  pattern_.reset(icu::RegexPattern::compile(text, place, status));
  if (U_FAILURE(status))
    fail("{}: ICU cannot use the pattern ({}); patterns that look behind must do so over a bounded length",
         what_, u_errorName(status));
}

Finder::Finder(const SplitRegex& regex) : regex_(regex) {
  UErrorCode status = U_ZERO_ERROR;
  matcher_.reset(regex.pattern_->matcher(status));
  check(status);
  matcher_->setMatchCallback(&Finder::count_steps, this, status);
  check(status);
}

Finder::~Finder() = default;

UBool Finder::count_steps(const void* finder, int32_t) {
  return --static_cast<const Finder*>(finder)->steps_left_ > 0;
}

bool Finder::find(int32_t from) {
  UErrorCode status = U_ZERO_ERROR;
  const bool found = matcher_->find(from, status) != 0;
  if (status == U_REGEX_STOPPED_BY_CALLER || status == U_REGEX_STACK_OVERFLOW || status == U_REGEX_TIME_OUT)
    fail("{}: the pattern takes too many steps on a text of {} characters", regex_.what_,
         utf16_.countChar32());
  check(status);
  return found;
}

const std::vector<Span>& Finder::spans(std::string_view text) {
  if (text.size() >= size_t{1} << 30)
    fail("a text of {} bytes is too long to be split into words", text.size());
  utf16_ = icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  UErrorCode status = U_ZERO_ERROR;
  matcher_->reset(utf16_);
  const int64_t stack = kStack + kStackPerByte * static_cast<int64_t>(text.size());
  matcher_->setStackLimit(static_cast<int32_t>(std::min<int64_t>(stack, INT32_MAX)), status);
  check(status);
  steps_left_ = kSteps + static_cast<int64_t>(text.size()) / kBytesPerStep;
  spans_.clear();
  Positions positions(text);
  size_t done = 0;
  std::optional<int32_t> last_end;
  for (int32_t from = 0; from <= utf16_.length() && find(from);) {
    const int32_t begin = matcher_->start(status);
    const int32_t end = matcher_->end(status);
    check(status);
    if (begin == end && last_end == end) {
      // An empty match beside the last one does not count: the next is looked for one character further on.
      from = end < utf16_.length() ? utf16_.moveIndex32(end, 1) : end + 1;
      continue;
    }
    from = end;
    last_end = end;
    const size_t first = positions.utf8(begin);
    if (first > done) spans_.push_back({done, first, false});
    done = positions.utf8(end);
    spans_.push_back({first, done, true});
  }
  if (done < text.size()) spans_.push_back({done, text.size(), false});
  return spans_;
}

}  // namespace nibble::text
