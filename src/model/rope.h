// Frequencies of rotary embedding, from config.json.
// Source: "RoFormer" (arXiv:2104.09864); llama3 and longrope (arXiv:2402.13753) as transformers 4.57 computes
// them (modeling_rope_utils.py), in fp32.
#pragma once

#include "io/json.h"
#include "model/spec.h"

namespace nibble::model {

/// theta^(-2 j / dim) for j below dim / 2.
std::vector<float> inverse_frequencies(double theta, int64_t dim);

/// The rotary embedding that follows one position, of a text part: rope_theta and rope_scaling (published) or
/// rope_parameters (transformers 5), with partial_rotary_factor. Types: default, linear, llama3, longrope
/// (also under its older name su). Throws Error naming the field.
Rope text_rope(const io::Fields& config, int64_t head_dim, double default_theta);

/// Writes the keys of the published style (rope_theta, rope_scaling, partial_rotary_factor) beside the
/// rope_parameters of a config in the style of transformers 5; one without them is left as it is. `plain` is
/// what rope_scaling says where nothing is scaled.
void publish_rope(io::Json& config, const io::Json& plain);

}  // namespace nibble::model
