// A small model of every family with a few inputs, and what it says the plain way.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "data/answers.h"
#include "data/prompts.h"
#include "kernels/ops.h"
#include "records/groups.h"
#include "run/forward.h"

namespace nibble::measure {

namespace fs = std::filesystem;

inline const std::array kModels = {
    NIBBLE_ROOT "/models/qwen2-vl-tiny", NIBBLE_ROOT "/tests/data/goldens/families/llama",
    NIBBLE_ROOT "/tests/data/goldens/families/phi3", NIBBLE_ROOT "/tests/data/goldens/families/llava",
    NIBBLE_ROOT "/tests/data/goldens/families/mllama"};

/// A model with a few inputs, two of them with a picture where it takes some.
struct Loaded {
  explicit Loaded(const fs::path& folder)
      : binding(folder), maker(binding), weights(binding, kernels::Compute::f32), runner(weights) {
    const fs::path picture = NIBBLE_ROOT "/pictures/calibration/images/0000.png";
    const auto add = [&](run::Prompt prompt, size_t answer) {
      data::Item item;
      item.id = "item " + std::to_string(items.size());
      item.prompt = std::move(prompt);
      for (size_t i = 0; i < answer; ++i) item.answer.push_back(item.prompt.ids[i % item.prompt.ids.size()]);
      for (int64_t& id : item.answer)
        if (maker.is_image(id)) id = 5;
      items.push_back(std::move(item));
    };
    if (maker.takes_pictures()) {
      add(maker.chat("What is this?", {&picture, 1}), 4);
      add(maker.chat("Describe this image.", {&picture, 1}), 7);
    }
    add(maker.chat("The quick brown fox", {}), 5);
    add(maker.chat("and the lazy dog of the house", {}), 3);
    inventory = binding.inventory("model");
    groups = records::group_linears(inventory);
  }

  /// KL of each item the plain way: the groups' linears replaced, the whole model run, both on its own.
  std::vector<double> alone(const std::vector<size_t>& quantized) {
    std::vector<Matrix> reference, changed;
    for (const data::Item& item : items) reference.push_back(logits(item));
    const auto linears = model::linears(binding.spec());
    for (const size_t g : quantized)
      for (const size_t member : groups[g].members) {
        Tensor buffer;
        const auto packed =
            quant::encode4(binding.weight(*linears[member], buffer), quant::Format::nf4, true);
        weights.replace(linears[member]->name,
                        kernels::Weight::pack(quant::decode4(packed).view(), weights.compute()));
      }
    for (const data::Item& item : items) changed.push_back(logits(item));
    for (const model::Linear* l : linears) weights.replace(l->name, {});
    std::vector<double> out;
    for (size_t i = 0; i < items.size(); ++i) {
      double sum = 0;
      for (int64_t r = 0; r < reference[i].rows(); ++r)
        sum += kernels::kl_divergence({reference[i].row(r), static_cast<size_t>(reference[i].cols())},
                                      {changed[i].row(r), static_cast<size_t>(changed[i].cols())});
      out.push_back(sum / static_cast<double>(reference[i].rows()));
    }
    return out;
  }

  Matrix logits(const data::Item& item) {
    const run::Prompt prompt = item.fed();
    const run::Prompt* pointer = &prompt;
    auto sequences = runner.start({&pointer, 1});
    run::Sequence* sequence = &sequences[0];
    const auto last = std::ssize(item.answer);
    return runner.feed({&sequence, 1}, {&last, 1}, false);
  }

  model::Binding binding;
  data::PromptMaker maker;
  run::Weights weights;
  run::Runner runner;
  std::vector<data::Item> items;
  records::Inventory inventory;
  std::vector<records::Group> groups;
};

}  // namespace nibble::measure
