// What several models said to the same samples, side by side.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "records/comparison.h"

namespace nibble::report {

/// The words of `text` as HTML, those that are not in `reference` in the same order (the longest common
/// subsequence of words) marked with <mark>. Texts whose lengths multiply to more than a million words are
/// not compared.
std::string marked_words(std::string_view text, std::string_view reference);

/// The pictures of a sample, where they are found; may be empty.
using PictureFinder = std::function<std::vector<std::filesystem::path>(const records::SampleResult&)>;

/// A sample with what each model said to it; a model that was not asked is a null pointer.
struct SaidSample {
  std::vector<const records::SampleResult*> results;  // one for each model

  /// The first result there is.
  const records::SampleResult& first() const;
};

/// The samples on which outputs differ, between models or (of a single one) from the expected answer: texts
/// before short answers, then by the largest KL, at most `limit`. Samples are the same where id, prompt and
/// number among those alike are.
std::vector<SaidSample> telling_samples(std::span<const records::ComparedModel> models, size_t limit);

/// The section's HTML: pictures as data URIs (PNG, JPEG and WebP, up to 2 MiB each and 8 MiB in all), the
/// prompt, and each model's words, marked where they differ from the first model's, or from the expected
/// answer where there is one model. "" where nothing differs.
std::string captions_html(std::span<const records::ComparedModel> models, const PictureFinder& pictures);

}  // namespace nibble::report
