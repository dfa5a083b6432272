// Activation functions by the names that config.json uses.
#pragma once

#include <optional>
#include <string_view>

namespace nibble {

/// silu: x*sigmoid(x). gelu: with erf. gelu_tanh: the tanh approximation. quick_gelu: x*sigmoid(1.702x).
enum class Activation { silu, gelu, gelu_tanh, quick_gelu, relu };

/// The function of a Hugging Face name ("silu", "gelu", "gelu_pytorch_tanh", "quick_gelu", ...), or nothing.
std::optional<Activation> parse_activation(std::string_view name);

}  // namespace nibble
