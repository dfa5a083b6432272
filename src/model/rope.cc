#include "model/rope.h"

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/text.h"

namespace nibble::model {
namespace {

/// A positive number of the scaling section, which must be there.
double factor_field(const io::Fields& fields, std::string_view key) {
  if (!fields.has(key)) fail("{}: {} is missing", fields.what(), key);
  const double value = fields.number(key, 0);
  if (!(value > 0)) fail("{}: {} {} is not positive", fields.what(), key, value);
  return value;
}

/// theta^(2 j / dim) for j below dim / 2.
std::vector<float> powers_of(double theta, int64_t dim) {
  std::vector<float> out(static_cast<size_t>(dim / 2));
  for (size_t j = 0; j < out.size(); ++j)
    out[j] = std::pow(static_cast<float>(theta), static_cast<float>(2 * j) / static_cast<float>(dim));
  return out;
}

/// Llama 3.1: low frequencies are divided by factor, high ones stay, those between go over smoothly.
void scale_llama3(Rope& rope, const io::Fields& fields) {
  const double factor = factor_field(fields, "factor");
  const double low = factor_field(fields, "low_freq_factor"), high = factor_field(fields, "high_freq_factor");
  const double original = factor_field(fields, "original_max_position_embeddings");
  if (!(high > low)) fail("{}: high_freq_factor must be larger than low_freq_factor", fields.what());
  const auto longest = static_cast<float>(original / low), shortest = static_cast<float>(original / high);
  for (float& f : rope.frequency) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      f /= static_cast<float>(factor);
      continue;
    }
    const float smooth = (static_cast<float>(original) / wavelength - static_cast<float>(low)) /
                         static_cast<float>(high - low);
    f = (1 - smooth) * f / static_cast<float>(factor) + smooth * f;
  }
}

std::vector<float> factors(const io::Fields& fields, std::string_view key, size_t count) {
  std::vector<float> out;
  for (const io::Json& value : fields.array(key)) {
    if (!value.is_number() || !(value.get<double>() > 0))
      fail("{}: {} holds {}, not a positive number", fields.what(), key, io::value_text(value));
    out.push_back(static_cast<float>(value.get<double>()));
  }
  if (out.size() != count)
    fail("{}: {} has {} numbers, but {} angles turn", fields.what(), key, out.size(), count);
  return out;
}

/// LongRoPE: one factor an angle, others for sequences longer than the model was first trained for.
void scale_longrope(Rope& rope, const std::vector<float>& powers, const io::Fields& config,
                    const io::Fields& fields) {
  const auto longest =
      static_cast<double>(config.dimension("max_position_embeddings", 4096, int64_t{1} << 40));
  const int64_t fallback =
      fields.dimension("original_max_position_embeddings", static_cast<int64_t>(longest), int64_t{1} << 40);
  rope.original_positions = config.dimension("original_max_position_embeddings", fallback, int64_t{1} << 40);
  const std::vector<float> near = factors(fields, "short_factor", rope.frequency.size());
  const std::vector<float> far = factors(fields, "long_factor", rope.frequency.size());
  const auto original = static_cast<double>(rope.original_positions);
  const double factor = longest / original;
  double attention = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
  if (fields.has("attention_factor")) attention = factor_field(fields, "attention_factor");
  if (!std::isfinite(attention))
    fail("{}: {} positions cannot be scaled to {}", fields.what(), rope.original_positions, longest);
  rope.scale = static_cast<float>(attention);
  // One rounding of the product, as the reference: positions in the 100,000s show an ulp.
  rope.long_frequency = rope.frequency;
  for (size_t j = 0; j < near.size(); ++j) {
    rope.frequency[j] = 1.0f / (near[j] * powers[j]);
    rope.long_frequency[j] = 1.0f / (far[j] * powers[j]);
  }
}

}  // namespace

std::vector<float> inverse_frequencies(double theta, int64_t dim) {
  std::vector<float> out = powers_of(theta, dim);
  for (float& f : out) f = 1.0f / f;
  return out;
}

Rope text_rope(const io::Fields& config, int64_t head_dim, double default_theta) {
  double theta = config.number("rope_theta", default_theta);
  double part = config.number("partial_rotary_factor", 1.0);
  const std::string_view key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const io::Json none = io::Json::object();
  const io::Fields fields = config.has(key) ? config.object(key) : io::Fields(none, config.what());
  theta = fields.number("rope_theta", theta);
  part = fields.number("partial_rotary_factor", part);
  if (!(theta > 0)) fail("{}: rope_theta {} is not positive", config.what(), theta);
  const double turning = static_cast<double>(head_dim) * part;
  const auto dim =
      turning > 0 && turning <= static_cast<double>(head_dim) ? static_cast<int64_t>(turning) : 0;
  if (dim < 2 || dim % 2 != 0)
    fail("{}: partial_rotary_factor {} does not give an even part of the {} features of a head",
         config.what(), part, head_dim);
  Rope rope;
  rope.frequency = inverse_frequencies(theta, dim);
  rope.axis.assign(rope.frequency.size(), 0);
  const std::string type = fields.string("rope_type", fields.string("type", "default"));
  if (type == "llama3") {
    scale_llama3(rope, fields);
  } else if (type == "longrope" || type == "su") {
    scale_longrope(rope, powers_of(theta, dim), config, fields);
  } else if (type == "linear") {
    const auto factor = static_cast<float>(factor_field(fields, "factor"));
    for (float& f : rope.frequency) f /= factor;
  } else if (type != "default") {
    fail("{}: rope type \"{}\" is not known; nibble knows default, linear, llama3 and longrope",
         fields.what(), printable(type, 40));
  }
  return rope;
}

void publish_rope(io::Json& config, const io::Json& plain) {
  if (!config.contains("rope_parameters") || !config.at("rope_parameters").is_object()) return;
  io::Json scaling = config.at("rope_parameters");
  for (const char* key : {"rope_theta", "partial_rotary_factor"})
    if (scaling.contains(key)) {
      if (!config.contains(key)) config[key] = io::Json(scaling.at(key));
      scaling.erase(key);
    }
  if (config.contains("rope_scaling")) return;
  const bool scaled = scaling.contains("rope_type") && scaling.at("rope_type") != "default";
  config["rope_scaling"] = scaled ? scaling : plain;
}

}  // namespace nibble::model
