// The normalizer part of tokenizer.json: Unicode normalization forms.
#pragma once

#include <unicode/normalizer2.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::text {

/// NFC, NFD, NFKC, NFKD, or a Sequence of them, of Unicode 9.0 as in the reference: code points that were
/// assigned later stay as they are. Immutable, hence thread-safe.
class Normalizer {
 public:
  /// `json` may be null: then texts stay as they are. Throws Error naming `what` and the part that is not
  /// supported.
  Normalizer(const io::Json& json, const std::string& what);

  /// The text, valid UTF-8, normalized. Linear in time but for sorting long runs of combining marks.
  std::string normalize(std::string_view text) const;

 private:
  struct Form {
    const icu::Normalizer2* decomposition;  // NFD, or NFKD for the compatibility forms
    std::unique_ptr<const icu::Normalizer2> filtered;
  };

  void add(const io::Json& json, const std::string& what, int depth);

  std::vector<Form> forms_;
};

}  // namespace nibble::text
