#include "data/pictures.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "vision/mllama.h"
#include "vision/pixtral.h"
#include "vision/qwen2_vl.h"

namespace nibble::data {
namespace {

NamedTensor ids_tensor(const std::string& name, Shape shape, const std::vector<int64_t>& values) {
  NamedTensor out{name, Tensor(DType::i64, std::move(shape))};
  NIBBLE_CHECK(out.tensor.count() == std::ssize(values));
  std::copy(values.begin(), values.end(), out.tensor.as<int64_t>());
  return out;
}

/// Moves between patches and picture: row r of `patches` is the box of `patch` pixels at row r / cols, column
/// r % cols of a picture (channels, height, width); features are (channel, y, x).
struct PatchGrid {
  int64_t channels = 3, patch = 0, cols = 0, height = 0, width = 0;

  template <typename Move>
  void each_line(int64_t rows, Move&& move) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t y = 0; y < patch; ++y)
          move(r, (c * patch + y) * patch, (c * height + r / cols * patch + y) * width + r % cols * patch);
  }
};

/// Qwen2-VL: one token for each merged patch.
class Qwen2VlPictures : public PictureMaker {
 public:
  Qwen2VlPictures(const model::Binding& binding, const io::Json& json, const std::string& path)
      : processor_(vision::Qwen2VlProcessor::parse(json, path)),
        image_(binding.spec().tokens.image),
        vision_(*binding.spec().vision) {
    if (processor_.patch_size != vision_.patch || processor_.merge_size != vision_.merge ||
        processor_.temporal_patch_size != vision_.temporal_patch)
      fail("{}: patch_size, merge_size or temporal_patch_size differ from config.json's", path);
  }

  run::Picture make(const std::filesystem::path& path) const override {
    vision::Patches patches = vision::preprocess(vision::load_image(path), processor_, path.string());
    return {.pixels = std::make_shared<const Matrix>(std::move(patches.pixels)),
            .grid_t = patches.grid_t,
            .grid_h = patches.grid_h,
            .grid_w = patches.grid_w};
  }

  void append_ids(const run::Picture& picture, std::vector<int64_t>& ids) const override {
    ids.insert(ids.end(), static_cast<size_t>(run::feature_rows(picture, vision_)), image_);
  }

  std::vector<NamedTensor> reference_tensors(std::span<const run::Picture> pictures) const override {
    int64_t rows = 0, at = 0;
    std::vector<int64_t> grids;
    for (const run::Picture& p : pictures) {
      grids.insert(grids.end(), {p.grid_t, p.grid_h, p.grid_w});
      rows += p.patches();
    }
    std::vector<NamedTensor> out;
    out.push_back({"pixel_values", Tensor(DType::f32, {rows, vision_.patch_features()})});
    for (const run::Picture& p : pictures) {
      const int64_t count = p.patches() * vision_.patch_features();
      std::copy_n(p.pixels->data(), count, out[0].tensor.as<float>() + at);
      at += count;
    }
    out.push_back(ids_tensor("image_grid_thw", {std::ssize(pictures), 3}, grids));
    return out;
  }

 private:
  vision::Qwen2VlProcessor processor_;
  int64_t image_;
  const model::Vision& vision_;
};

/// Pixtral: a token for each patch, one behind each row of patches, and another one behind the last.
class PixtralPictures : public PictureMaker {
 public:
  PixtralPictures(const model::Binding& binding, const text::Tokenizer& tokenizer, const io::Json& json,
                  const std::string& path)
      : processor_(vision::PixtralProcessor::parse(json, path)), vision_(*binding.spec().vision) {
    const auto own = binding.checkpoint().json("processor_config.json");
    const std::string own_path = (binding.checkpoint().folder() / "processor_config.json").string();
    const io::Json fields = own ? *own : io::Json::object();
    processor_.use_processor_config(fields, own_path);
    if (processor_.patch_size != vision_.patch)
      fail("{}: patches of {} pixels, but config.json has {}", own ? own_path : path, processor_.patch_size,
           vision_.patch);
    image_ = binding.spec().tokens.image;
    const auto id = [&](const char* key, const char* fallback) {
      const std::string token = io::Fields(fields, own_path).string(key, fallback);
      const auto found = tokenizer.id_of(token);
      if (!found) fail("{}: {} \"{}\" is not a token of tokenizer.json", own_path, key, token);
      return *found;
    };
    break_ = id("image_break_token", "[IMG_BREAK]");
    end_ = id("image_end_token", "[IMG_END]");
  }

  run::Picture make(const std::filesystem::path& path) const override {
    vision::PixtralImage image = vision::preprocess(vision::load_image(path), processor_, path.string());
    const int64_t side = vision_.position_side;
    if (image.grid_h > side || image.grid_w > side)
      fail(
          "{}: {} by {} patches, but the tower (image_size) has places for {} along a side; lower the size "
          "in "
          "preprocessor_config.json",
          path.string(), image.grid_h, image.grid_w, side);
    return {.pixels = std::make_shared<const Matrix>(std::move(image.pixels)),
            .grid_h = image.grid_h,
            .grid_w = image.grid_w};
  }

  void append_ids(const run::Picture& picture, std::vector<int64_t>& ids) const override {
    for (int64_t r = 0; r < picture.grid_h; ++r) {
      ids.insert(ids.end(), static_cast<size_t>(picture.grid_w), image_);
      ids.push_back(r + 1 < picture.grid_h ? break_ : end_);
    }
  }

  std::vector<NamedTensor> reference_tensors(std::span<const run::Picture> pictures) const override {
    const int64_t patch = vision_.patch;
    PatchGrid grid{.channels = vision_.channels, .patch = patch};
    std::vector<int64_t> sizes;
    for (const run::Picture& p : pictures) {
      sizes.insert(sizes.end(), {p.grid_h * patch, p.grid_w * patch});
      grid.height = std::max(grid.height, p.grid_h * patch);
      grid.width = std::max(grid.width, p.grid_w * patch);
    }
    std::vector<NamedTensor> out;
    out.push_back(
        {"pixel_values", Tensor(DType::f32, {std::ssize(pictures), grid.channels, grid.height, grid.width})});
    float* to = out[0].tensor.as<float>();
    std::fill_n(to, out[0].tensor.count(), 0.0f);
    for (const run::Picture& p : pictures) {
      grid.cols = p.grid_w;
      grid.each_line(p.patches(), [&](int64_t row, int64_t feature, int64_t pixel) {
        std::copy_n(p.pixels->row(row) + feature, patch, to + pixel);
      });
      to += grid.channels * grid.height * grid.width;
    }
    out.push_back(ids_tensor("image_sizes", {std::ssize(pictures), 2}, sizes));
    return out;
  }

 private:
  vision::PixtralProcessor processor_;
  const model::Vision& vision_;
  int64_t image_ = 0, break_ = 0, end_ = 0;
};

/// Llama 3.2 Vision: one token for a picture, whatever its tiles.
class MllamaPictures : public PictureMaker {
 public:
  MllamaPictures(const model::Binding& binding, const io::Json& json, const std::string& path)
      : processor_(vision::MllamaProcessor::parse(json, path)),
        vision_(*binding.spec().vision),
        image_(binding.spec().tokens.image) {
    const model::Tiles& tiles = *vision_.tiles;
    grid_ = {.channels = vision_.channels,
             .patch = vision_.patch,
             .cols = tiles.side,
             .height = processor_.tile_size,
             .width = processor_.tile_size};
    if (processor_.tile_size / vision_.patch != tiles.side || processor_.max_image_tiles != tiles.count)
      fail("{}: {} tiles of {} pixels, but config.json has {} of {} patches of {} pixels", path,
           processor_.max_image_tiles, processor_.tile_size, tiles.count, tiles.side, vision_.patch);
  }

  run::Picture make(const std::filesystem::path& path) const override {
    const vision::MllamaTiles image = vision::preprocess(vision::load_image(path), processor_, path.string());
    if (image.aspect_ratio_id >= vision_.tiles->aspect_ratios)
      fail("{}: aspect ratio {} of the canvas is not one of config.json's {}", path.string(),
           image.aspect_ratio_id, vision_.tiles->aspect_ratios - 1);
    const int64_t side = vision_.tiles->side, rows = side * side;
    Matrix pixels(image.num_tiles * rows, vision_.patch_features());
    for (int64_t t = 0; t < image.num_tiles; ++t)
      grid_.each_line(rows, [&](int64_t row, int64_t feature, int64_t pixel) {
        std::copy_n(image.pixels.row(t) + pixel, grid_.patch, pixels.row(t * rows + row) + feature);
      });
    return {.pixels = std::make_shared<const Matrix>(std::move(pixels)),
            .grid_h = side,
            .grid_w = side,
            .tiles = image.num_tiles,
            .aspect_ratio = image.aspect_ratio_id};
  }

  void append_ids(const run::Picture&, std::vector<int64_t>& ids) const override { ids.push_back(image_); }

  std::vector<NamedTensor> reference_tensors(std::span<const run::Picture> pictures) const override {
    const int64_t count = vision_.tiles->count, rows = grid_.cols * grid_.cols, n = std::ssize(pictures);
    const int64_t tile = grid_.channels * grid_.height * grid_.width;
    std::vector<NamedTensor> out;
    out.push_back(
        {"pixel_values", Tensor(DType::f32, {1, n, count, grid_.channels, grid_.height, grid_.width})});
    float* to = out[0].tensor.as<float>();
    std::fill_n(to, out[0].tensor.count(), 0.0f);
    std::vector<int64_t> ratios, mask;
    for (const run::Picture& p : pictures) {
      ratios.push_back(p.aspect_ratio);
      for (int64_t t = 0; t < count; ++t) {
        mask.push_back(t < p.tiles);
        if (t < p.tiles)
          grid_.each_line(rows, [&](int64_t row, int64_t feature, int64_t pixel) {
            std::copy_n(p.pixels->row(t * rows + row) + feature, grid_.patch, to + pixel);
          });
        to += tile;
      }
    }
    out.push_back(ids_tensor("aspect_ratio_ids", {1, n}, ratios));
    out.push_back(ids_tensor("aspect_ratio_mask", {1, n, count}, mask));
    return out;
  }

 private:
  vision::MllamaProcessor processor_;
  const model::Vision& vision_;
  int64_t image_;
  PatchGrid grid_;
};

}  // namespace

std::unique_ptr<const PictureMaker> picture_maker(const model::Binding& binding,
                                                  const text::Tokenizer& tokenizer) {
  const model::ImageFormat format = binding.family().image;
  if (format == model::ImageFormat::none) return nullptr;
  // transformers 5 may put the image processor into processor_config.json.
  std::string path = (binding.checkpoint().folder() / "preprocessor_config.json").string();
  std::optional<io::Json> json = binding.checkpoint().json("preprocessor_config.json");
  if (!json) {
    path = (binding.checkpoint().folder() / "processor_config.json").string();
    json = binding.checkpoint().json("processor_config.json");
    if (!json || !json->is_object() || !json->contains("image_processor")) return nullptr;
    json = io::Json(json->at("image_processor"));
  }
  switch (format) {
    case model::ImageFormat::qwen2_vl:
      return std::make_unique<Qwen2VlPictures>(binding, *json, path);
    case model::ImageFormat::pixtral:
      return std::make_unique<PixtralPictures>(binding, tokenizer, *json, path);
    case model::ImageFormat::mllama:
      return std::make_unique<MllamaPictures>(binding, *json, path);
    case model::ImageFormat::none:
      break;
  }
  return nullptr;
}

}  // namespace nibble::data
