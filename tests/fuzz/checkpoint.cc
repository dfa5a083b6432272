// config.json and the index of a checkpoint. Input: a byte that chooses the weights (those of one of the
// tests' small models), config.json, a NUL byte, the index; no index where nothing follows.
#include <array>
#include <memory>

#include "fuzz/fuzz.h"
#include "model/binding.h"
#include "support/temp_folder.h"

using namespace nibble;
namespace fs = std::filesystem;

namespace {

constexpr std::array kModels = {"llama", "llava", "mllama", "phi3", "phi3_longrope"};

/// A folder of links, as a hub cache has them: to the weights of a model and to files in memory.
struct Folder {
  test::TempFolder folder;
  fuzz::MemoryFile config, index;

  explicit Folder(const std::string& model) {
    fs::create_symlink(fs::path(NIBBLE_ROOT) / "tests/data/goldens/families" / model / "model.safetensors",
                       folder / "model.safetensors");
    fs::create_symlink(config.path(), folder / "config.json");
  }

  void set(std::string_view config_text, std::string_view index_text) {
    config.set(config_text);
    const fs::path link = folder / "model.safetensors.index.json";
    fs::remove(link);
    if (index_text.empty()) return;
    index.set(index_text);
    fs::create_symlink(index.path(), link);
  }
};

/// What the configuration alone is used for.
void describe(std::string_view text) {
  const io::Json json = io::parse_json(text, "config.json");
  const io::Fields fields(json, "config.json");
  const model::Family& family = model::find_family(fields);
  const model::Spec spec = model::describe(family, fields);
  const records::Inventory inventory = model::inventory_of(spec, DType::bf16, "model");
  NIBBLE_CHECK(inventory.bytes_all16() > 0 && inventory.bytes_all4() > 0 && inventory.bytes_all8() > 0);
  // Readers of both styles see the same model.
  const io::Json both = family.config_for_both(json);
  const io::Fields again(both, "config.json");
  NIBBLE_CHECK(model::tensor_table(family.describe(again)).size() == model::tensor_table(spec).size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::array<std::unique_ptr<Folder>, kModels.size()> folders;
  std::string_view rest = fuzz::text_of(data, size);
  const size_t model = fuzz::take_byte(rest) % kModels.size();
  if (!folders[model]) folders[model] = std::make_unique<Folder>(kModels[model]);
  const std::string_view config = fuzz::take_text(rest);
  // An index is read before the configuration is understood.
  if (!fuzz::accepts([&] { describe(config); }) && rest.empty()) return 0;
  folders[model]->set(config, rest);
  fuzz::accepts([&] {
    const model::Binding binding(folders[model]->folder.path());
    NIBBLE_CHECK(binding.inventory("model").bytes_all16() == binding.tensor_bytes() || binding.quantized());
  });
  return 0;
}
