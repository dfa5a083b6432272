// Pixtral's image processor: at most a longest edge, sides rounded up to whole patches, patches row by row.
// Reference: transformers 4.57, models/pixtral/image_processing_pixtral.py (the slow processor) and
// processing_pixtral.py.
#pragma once

#include <cstdint>
#include <string>

#include "io/json.h"
#include "tensor/tensor.h"
#include "vision/image.h"
#include "vision/normalize.h"
#include "vision/processor.h"

namespace nibble::vision {

/// preprocessor_config.json of a Pixtral checkpoint. Missing keys take the class defaults. Pictures come as
/// RGB, so do_convert_rgb decides nothing.
struct PixtralProcessor {
  Size limit{1024, 1024};  // size: longest_edge, else height and width
  int64_t patch_size = 16;
  Normalization normalization;
  Resample resample = Resample::bicubic;
  bool do_resize = true;

  /// Reads the published layout of preprocessor_config.json, or transformers 5's processor_config.json with
  /// an "image_processor", to which use_processor_config is then applied. patch_size may be a number, a list
  /// or an object of height and width. Throws Error naming `what` for fields of another type, for patches
  /// that are not square and, with do_resize, for a size without longest_edge or height and width.
  static PixtralProcessor parse(const io::Json& json, const std::string& what);

  /// The patch size that PixtralProcessor, the processor of pictures and text, gives its image processor in
  /// place of the image processor's own: patch_size * spatial_merge_size of processor_config.json, 16 and 1
  /// where they (or, `json` being {}, the file) are missing. Throws Error naming `what`.
  void use_processor_config(const io::Json& json, const std::string& what);
};

/// Height and width to resize to: shrunk to fit `limit` with sides rounded down, then rounded up to whole
/// patches. A side that shrinks to less than a pixel becomes 0, as in the reference.
Size pixtral_size(Size picture, Size limit, int64_t patch_size);

/// Patches of one picture as the model takes them: what its convolution of stride patch_size sees, so a
/// weight (out, 3, patch_size, patch_size) seen as (out, 3 * patch_size^2) multiplies the rows.
struct PixtralImage {
  Matrix pixels;                   // (grid_h * grid_w, 3 * patch_size^2), features (channel, y, x)
  int64_t grid_h = 0, grid_w = 0;  // in patches
};

/// Equal to the patches of PixtralImageProcessor(...)(images=[picture])["pixel_values"] to the last bit. Like
/// the reference it reads a picture exactly three pixels high as if its rows were channels (of several
/// pictures in one call the reference reads all as it does the first). With do_resize off the pixels right of
/// and below the last whole patch are left out, as the model does. Throws Error naming `what` for a picture
/// one pixel high, and for one that comes to no patch or too many pixels. Thread-safe, runs on several
/// threads.
PixtralImage preprocess(const Image& image, const PixtralProcessor& processor, const std::string& what);

}  // namespace nibble::vision
