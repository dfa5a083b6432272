#include "text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxForms = 64;  // each goes over the whole text
/// ICU sorts combining marks by insertion; runs that are longer than this are sorted beforehand.
constexpr size_t kLongRun = 64;

void check(UErrorCode status) {
  NIBBLE_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
}

/// Combining marks with their classes, in canonical order once sorted.
using Marks = std::vector<std::pair<uint8_t, char32_t>>;

/// Code points that a combining mark comes first of in one decomposition or the other.
const icu::UnicodeSet& marks_first() {
  static const icu::UnicodeSet set = [] {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* nfkd = icu::Normalizer2::getNFKDInstance(status);
    icu::UnicodeSet candidates(u"[[[:^lccc=0:][:NFKD_QC=No:]]&[:age=9.0:]]", status);
    check(status);
    icu::UnicodeSet result;
    for (int32_t i = 0; i < candidates.size(); ++i) {
      icu::UnicodeString parts;
      const UChar32 c = candidates.charAt(i);
      if (!nfkd->getDecomposition(c, parts)) parts = c;
      if (nfkd->getCombiningClass(parts.char32At(0)) != 0) result.add(c);
    }
    result.freeze();
    return result;
  }();
  return set;
}

/// Appends the full decomposition of c when it begins with a combining mark; false otherwise.
bool append_marks(const icu::Normalizer2& decomposition, char32_t c, Marks& marks) {
  const auto point = static_cast<UChar32>(c);
  if (c < 0x300 || !marks_first().contains(point)) return false;
  icu::UnicodeString parts;
  if (!decomposition.getDecomposition(point, parts)) parts = point;
  if (decomposition.getCombiningClass(parts.char32At(0)) == 0) return false;
  for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) {
    const UChar32 part = parts.char32At(i);
    marks.emplace_back(decomposition.getCombiningClass(part), static_cast<char32_t>(part));
  }
  return true;
}

/// A canonically equivalent text (or a compatible one) whose long runs of combining marks are in order.
std::string sort_long_runs(const icu::Normalizer2& decomposition, std::string_view text) {
  std::string result;
  result.reserve(text.size());
  Marks marks;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    marks.clear();
    while (at < text.size() && append_marks(decomposition, code_point_at(text, at), marks))
      at += utf8_length(text[at]);
    if (marks.size() > kLongRun) {
      std::stable_sort(marks.begin(), marks.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
      for (const auto& mark : marks) append_utf8(result, mark.second);
    } else {
      result.append(text.substr(begin, at - begin));
    }
    if (at < text.size()) {
      const size_t length = utf8_length(text[at]);
      result.append(text.substr(at, length));
      at += length;
    }
  }
  return result;
}

}  // namespace

Normalizer::Normalizer(const io::Json& json, const std::string& what) {
  if (!json.is_null()) add(json, what, 0);
}

void Normalizer::add(const io::Json& json, const std::string& what, int depth) {
  const io::Fields fields(json, what);
  const std::string type = fields.string("type");
  if (type == "Sequence") {
    if (depth >= kMaxDepth) fail("{}: is nested deeper than {} levels", what, kMaxDepth);
    const io::Json& parts = fields.array("normalizers");
    for (size_t i = 0; i < parts.size(); ++i)
      add(parts[i], fmt::format("{}.normalizers[{}]", what, i), depth + 1);
    return;
  }
  UErrorCode status = U_ZERO_ERROR;
  const bool compatible = type == "NFKC" || type == "NFKD";
  const icu::Normalizer2* decomposition =
      compatible ? icu::Normalizer2::getNFKDInstance(status) : icu::Normalizer2::getNFDInstance(status);
  const icu::Normalizer2* form = nullptr;
  if (type == "NFC")
    form = icu::Normalizer2::getNFCInstance(status);
  else if (type == "NFKC")
    form = icu::Normalizer2::getNFKCInstance(status);
  else if (type == "NFD" || type == "NFKD")
    form = decomposition;
  else
    fail("{}: normalizers of type {} are not supported, only NFC, NFD, NFKC, NFKD and Sequence", what,
         printable(type, 40));
  check(status);
  if (forms_.size() == kMaxForms) fail("{}: more than {} normalizers are not supported", what, kMaxForms);
  forms_.push_back({decomposition, std::make_unique<icu::FilteredNormalizer2>(*form, normalizable_set())});
}

std::string Normalizer::normalize(std::string_view text) const {
  std::string result(text);
  if (is_ascii(text)) return result;
  for (const Form& form : forms_) {
    const std::string sorted = sort_long_runs(*form.decomposition, result);
    result.clear();
    UErrorCode status = U_ZERO_ERROR;
    icu::StringByteSink<std::string> sink(&result);
    form.filtered->normalizeUTF8(0, icu::StringPiece(sorted.data(), static_cast<int32_t>(sorted.size())),
                                 sink, nullptr, status);
    check(status);
  }
  return result;
}

}  // namespace nibble::text
