#include "tensor/activation.h"

#include <array>
#include <utility>

namespace nibble {

std::optional<Activation> parse_activation(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Activation>, 7> names = {{
      {"silu", Activation::silu},
      {"swish", Activation::silu},
      {"gelu", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh},
      {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"quick_gelu", Activation::quick_gelu},
      {"relu", Activation::relu},
  }};
  for (const auto& [text, activation] : names)
    if (text == name) return activation;
  return std::nullopt;
}

}  // namespace nibble
