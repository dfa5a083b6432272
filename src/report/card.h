// The model card of a written checkpoint: README.md with the front matter that the Hugging Face hub reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "records/comparison.h"
#include "records/made.h"

namespace nibble::report {

struct Card {
  records::Made made;            // nibble.json of the checkpoint
  std::string name;              // of the checkpoint, as its title and where it is loaded from
  std::string base_model;        // hub name of the 16-bit model; "" where it has none
  std::string_view family;       // for people: "Qwen2-VL"
  std::string_view model_class;  // of transformers: "Qwen2VLForConditionalGeneration"
  bool takes_pictures = false;
  std::vector<records::ComparedModel> models;  // evaluations to show; may be empty
};

/// The card: front matter, sizes, what was kept and why, KL of the verification where the plan was verified,
/// the evaluations, how to load it, and the command that made it. Says nothing that is not in the records.
/// The same records give the same text.
std::string model_card(const Card& card);

/// True when the text is a card that model_card() wrote, whatever was added to it since.
bool is_model_card(std::string_view text);

/// "ORG/NAME" of "ORG/NAME" or "ORG/NAME@REVISION"; "" for what cannot be the hub's name of a model.
std::string hub_name(std::string_view model);

}  // namespace nibble::report
