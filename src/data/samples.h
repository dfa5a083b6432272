// Calibration and evaluation inputs as users have them: samples.jsonl, text jsonl, folders of pictures.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nibble::data {

/// One input. Either a prompt (with or without pictures and answer), or a plain text that is its own answer.
struct Sample {
  std::string id;  // "evaluation/samples.jsonl:3" or "photos/cat.jpg": names the input in errors and results
  bool plain = false;
  std::string text;  // of the prompt, or the plain text
  std::vector<std::filesystem::path> images;
  std::optional<std::string> answer;
};

/// What a picture without a prompt is asked.
inline constexpr const char* kDefaultPrompt = "Describe this image.";

/// Reads, in the order given, any mix of
///   a .jsonl file of {"image": path beside the file (or "images": [...]), "prompt", "answer"} lines,
///   a .jsonl file of {"text"} lines,
///   a folder that holds samples.jsonl, or pictures (.png .jpg .jpeg .webp, by name; prompt kDefaultPrompt).
/// Keys may be left out where they make sense: no answer, no image; blank lines are passed over.
/// Throws Error naming file and line: no JSON, more than 16 MiB, no known key or one that is nearly known, a
/// picture that does not exist, nothing in it at all; and where one is given twice.
std::vector<Sample> read_samples(std::span<const std::string> files);

/// Throws Error, as read_samples does, where a name is empty or given twice or nothing is there; reads
/// nothing.
void check_samples(std::span<const std::string> files);

/// Pictures in folders of pictures among `files` that read_samples leaves out: their kinds (.gif, .heic,
/// .tiff, ...) are not read.
std::vector<std::filesystem::path> unread_pictures(std::span<const std::string> files);

/// Samples that share a picture, directly or through others, belong together: whoever is judged by one must
/// not have seen another. The indices of the samples of each such group, ascending, groups in the order of
/// their first samples.
std::vector<std::vector<size_t>> groups_of(std::span<const Sample> samples);

}  // namespace nibble::data
