#include "report/captions.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.h"
#include "report/html.h"
#include "report/numbers.h"

namespace nibble::report {
namespace {

using records::SampleResult;

constexpr size_t kShown = 12;
constexpr int64_t kPictureBytes = 2 << 20, kAllPictureBytes = 8 << 20;
constexpr size_t kText = 16;  // bytes; the letter of a multiple choice is shorter

/// Words, each with the space before it.
struct Word {
  std::string_view space, text;
};

std::vector<Word> words_of(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<Word> out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = std::min(text.find_first_not_of(kSpace, at), text.size());
    const size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    out.push_back({text.substr(at, begin - at), text.substr(begin, end - begin)});
    at = end;
  }
  return out;
}

/// Which of `words` are in the longest common subsequence with `others`.
std::vector<bool> common_words(const std::vector<Word>& words, const std::vector<Word>& others) {
  const size_t n = words.size(), m = others.size();
  std::vector<uint32_t> length((n + 1) * (m + 1));  // [i, j]: of what is left from word i and other word j
  for (size_t i = n; i-- > 0;)
    for (size_t j = m; j-- > 0;)
      length[i * (m + 1) + j] = words[i].text == others[j].text
                                    ? length[(i + 1) * (m + 1) + j + 1] + 1
                                    : std::max(length[(i + 1) * (m + 1) + j], length[i * (m + 1) + j + 1]);
  std::vector<bool> out(n);
  for (size_t i = 0, j = 0; i < n && j < m;) {
    if (words[i].text == others[j].text) {
      out[i++] = true;
      ++j;
    } else if (length[(i + 1) * (m + 1) + j] >= length[i * (m + 1) + j + 1]) {
      ++i;
    } else {
      ++j;
    }
  }
  return out;
}

/// All samples that were asked, in the order of the first model that has them.
std::vector<SaidSample> joined(std::span<const records::ComparedModel> models) {
  std::vector<SaidSample> out;
  std::map<std::tuple<std::string_view, std::string_view, int>, size_t> places;
  for (size_t m = 0; m < models.size(); ++m) {
    if (!models[m].evaluation) continue;
    std::map<std::pair<std::string_view, std::string_view>, int> seen;
    for (const SampleResult& sample : models[m].evaluation->samples) {
      if (sample.plain || !sample.generated) continue;
      const int number = seen[{sample.id, sample.prompt}]++;
      const auto [it, fresh] = places.try_emplace({sample.id, sample.prompt, number}, out.size());
      if (fresh) out.push_back({std::vector<const SampleResult*>(models.size())});
      out[it->second].results[m] = &sample;
    }
  }
  return out;
}

bool differs(const SaidSample& sample) {
  const SampleResult& first = sample.first();
  int64_t said = 0;
  for (const SampleResult* result : sample.results) {
    if (!result) continue;
    ++said;
    if (result->output != first.output) return true;
  }
  return said == 1 && !first.exact;
}

double largest_kl(const SaidSample& sample) {
  double kl = 0;
  for (const SampleResult* result : sample.results)
    if (result) kl = std::max(kl, result->kl);
  return kl;
}

/// The <img> of a sample's pictures; a remark where one is too large. `budget` is what may still be embedded.
std::string pictures_html(const std::vector<std::filesystem::path>& paths, const std::string& alt,
                          int64_t& budget) {
  std::string out;
  for (const std::filesystem::path& path : paths) {
    std::error_code error;
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
    if (error) continue;
    if (size > std::min(kPictureBytes, budget)) {
      out += "<p class=\"muted\">The picture is too large to be shown here.</p>\n";
      continue;
    }
    const std::string uri = picture_uri(io::read_file(path));
    if (uri.empty()) continue;
    budget -= size;
    out += fmt::format("<img src=\"{}\" alt=\"{}\" loading=\"lazy\">\n", uri, html_text(alt));
  }
  return out;
}

std::string said_html(const std::string& name, const std::string& html) {
  return fmt::format("<dt>{}</dt><dd>{}</dd>\n", html_text(name),
                     html.empty() ? "<span class=\"muted\">(nothing)</span>" : html);
}

std::string sample_html(const SaidSample& sample, std::span<const records::ComparedModel> models,
                        const PictureFinder& pictures, int64_t& budget) {
  const SampleResult& first = sample.first();
  const bool alone =
      std::count(sample.results.begin(), sample.results.end(), nullptr) + 1 == std::ssize(sample.results);
  std::string said;
  if (alone) said += said_html("expected", html_text(first.expected));
  const std::string& reference = alone ? first.expected : first.output;
  for (size_t m = 0; m < models.size(); ++m) {
    const SampleResult* result = sample.results[m];
    if (!result) continue;
    const std::string kl = result->kl > 0 ? fmt::format(" (KL {:.3g})", result->kl) : "";
    said += said_html(models[m].description + kl, marked_words(result->output, reference));
  }
  const std::string shown = pictures_html(pictures(first), "The picture of " + first.id, budget);
  return fmt::format(
      "<article class=\"sample\"><div>{}<p class=\"muted\">{}</p></div>\n<div><p "
      "class=\"prompt\">{}</p>\n<dl>{}</dl>"
      "</div></article>\n",
      shown, html_text(first.id), html_text(first.prompt), said);
}

}  // namespace

std::string marked_words(std::string_view text, std::string_view reference) {
  constexpr size_t kMost = 1'000'000;
  const std::vector<Word> words = words_of(text), others = words_of(reference);
  if (words.size() > kMost / std::max<size_t>(1, others.size())) return html_text(text);
  const std::vector<bool> common = common_words(words, others);
  std::string out;
  bool open = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool mark = !common[i] && !words[i].text.empty();
    if (open && !mark) out += "</mark>";
    out += html_text(words[i].space);
    if (mark && !open) out += "<mark>";
    out += html_text(words[i].text);
    open = mark;
  }
  return open ? out + "</mark>" : out;
}

const SampleResult& SaidSample::first() const {
  const auto it =
      std::find_if(results.begin(), results.end(), [](const auto* result) { return result != nullptr; });
  NIBBLE_CHECK(it != results.end(), "a sample that no model was asked");
  return **it;
}

std::vector<SaidSample> telling_samples(std::span<const records::ComparedModel> models, size_t limit) {
  std::vector<SaidSample> out = joined(models);
  std::erase_if(out, [](const SaidSample& sample) { return !differs(sample); });
  const auto rank = [](const SaidSample& sample) {
    const SampleResult& first = sample.first();
    return std::pair(std::max(first.output.size(), first.expected.size()) >= kText, largest_kl(sample));
  };
  std::stable_sort(out.begin(), out.end(),
                   [&](const SaidSample& a, const SaidSample& b) { return rank(a) > rank(b); });
  if (out.size() > limit) out.resize(limit);
  return out;
}

std::string captions_html(std::span<const records::ComparedModel> models, const PictureFinder& pictures) {
  const std::vector<SaidSample> all = telling_samples(models, std::string::npos);
  if (all.empty()) return "";
  const size_t shown = std::min(kShown, all.size());
  std::string out = fmt::format(
      "<p>{} answered otherwise; {}. Words that are not in the first answer, in its order, are "
      "<mark>marked</mark>.</p>\n",
      all.size() == 1 ? "One sample was" : fmt::format("{} samples were", all.size()),
      shown == all.size() ? "all are shown"
                          : fmt::format("the {} with the largest differences are shown", shown));
  int64_t budget = kAllPictureBytes;
  for (size_t i = 0; i < shown; ++i) out += sample_html(all[i], models, pictures, budget);
  return out;
}

}  // namespace nibble::report
