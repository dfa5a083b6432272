// Pictures as each kind of model takes them: what its image processor and its processor of text do.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/binding.h"
#include "run/inputs.h"
#include "text/tokenizer.h"

namespace nibble::data {

/// A tensor with the name that the reference gives it.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Prepares pictures for one checkpoint. Thread-safe.
class PictureMaker {
 public:
  virtual ~PictureMaker() = default;
  /// Decodes and prepares a picture. Throws Error naming the file.
  virtual run::Picture make(const std::filesystem::path& path) const = 0;
  /// Appends the ids that stand for a picture where the prompt has its one image token.
  virtual void append_ids(const run::Picture& picture, std::vector<int64_t>& ids) const = 0;
  /// What the reference's processor gives for the pictures of one prompt: pixel_values and what goes with it,
  /// in its shapes.
  virtual std::vector<NamedTensor> reference_tensors(std::span<const run::Picture> pictures) const = 0;
};

/// The maker for a checkpoint; null when its family takes no pictures or the configuration of its image
/// processor is not there. Throws Error for one that does not fit config.json or tokenizer.json.
std::unique_ptr<const PictureMaker> picture_maker(const model::Binding& binding,
                                                  const text::Tokenizer& tokenizer);

}  // namespace nibble::data
